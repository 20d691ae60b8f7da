"""The Open Inference Protocol at the real server: the same answers, charges and refusals as by our own protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.codec import decode
from protos.inference import open_inference_pb2 as v2
from protos.mirage.v1 import admin_pb2
from tests.open_inference import arrays, assert_same, infer, named, receipt, request, stub
from tests.serving import Caller, Server, inputs

NOISE = (("gaussian_noise", (("sigma", 0.2),)),)
CONTRACTS: dict[str, dict[str, Any]] = {
    "weights": {"access": "weights"},
    "scores": {"access": "scores"},
    "rounded": {"access": "scores", "round_to": 0.01},
    "top 2": {"access": "scores", "top_k": 2},
    "top 5 of 5": {"access": "scores", "top_k": 5},
    "noise, top 3": {"access": "scores", "top_k": 3, "defences": NOISE},
    "keyed noise": {"access": "scores", "defences": (("keyed_noise", (("sigma", 0.05),)),)},
    "label": {"access": "label"},
    "noise, label": {"access": "label", "defences": NOISE},
}
RANDOM = {name for name, contract in CONTRACTS.items() if contract.get("defences") == NOISE}


# A client that others wrote


def test_tritonclient_as_it_is(server: Server) -> None:
    caller = server.new_key("label", budget=100)
    environment = os.environ | {"ORACLE": server.address, "KEY": caller.key}
    command = [sys.executable, str(Path(__file__).parents[2] / "triton_caller.py")]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.pop("ours") == []
    assert (said["live"], said["ready"], said["model ready"]) == (True, True, True)
    assert said["server"]["name"] == "oracle-server"
    assert "linear" not in json.dumps(said["server"])
    assert said["model"] == {
        "name": "linear",
        "versions": ["1"],
        "platform": "mirage_neural",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": ["-1", "1", "8", "6"]}],
        "outputs": [{"name": "label", "datatype": "INT64", "shape": ["-1"]}],
    }
    labels = decode(server.new_key("label").predict(inputs(4)).labels).tolist()
    first = said["answers"][0]
    for answer in said["answers"]:
        assert (answer["outputs"], answer["label"]) == (["label"], labels)
    assert [answer["receipt"]["rows_charged"] for answer in said["answers"]] == [4, 0, 0, 4, 4, 4]
    assert [answer["receipt"]["spent"] for answer in said["answers"]] == [4, 4, 4, 8, 12, 16]
    assert [answer["receipt"]["budget_left"] for answer in said["answers"]] == [96, 96, 96, 92, 88, 84]
    assert {answer["receipt"]["sequence"] for answer in said["answers"][:3]} == {first["receipt"]["sequence"]}
    assert [answer["id"] for answer in said["answers"][:3]] == [first["id"]] * 3
    assert [answer["id"] for answer in said["answers"][3:]] == ["1", "1", ""]
    assert (caller.usage().spent, caller.usage().budget_left) == (16, 84)
    bad, other = "StatusCode.INVALID_ARGUMENT", "this key is for the model linear/1 and no other"
    parameter = "there are no sequences, shared memory or classification here: leave the parameter {} out"
    assert said["refused"] == {
        "without a key": [
            "StatusCode.UNAUTHENTICATED",
            "no API key: send it as metadata 'authorization: Bearer <key>'",
        ],
        "scores": [bad, "an output was asked for that is not released: this key's contract gives label"],
        "classification": [bad, parameter.format("classification")],
        "another model": ["StatusCode.PERMISSION_DENIED", other],
        "another version": ["StatusCode.PERMISSION_DENIED", other],
        "a sequence": [bad, parameter.format("sequence_id")],
        "out of range": [bad, refused_range()],
        "another input": [bad, "the model has one input: send one, and name it 'input'"],
    }


def refused_range() -> str:
    rows = np.random.default_rng(0).random((4, 1, 8, 6), dtype=np.float32) + 1
    return f"inputs lie in [{rows.min():.9g}, {rows.max():.9g}]: values outside [0, 1] are not answered"


# The same answers, and the same charges


@pytest.fixture(scope="module")
def pairs(server: Server) -> dict[str, tuple[Caller, Caller]]:
    """Two keys of each contract: one asks by our protocol, one by the other."""
    return {name: (server.new_key(**contract), server.new_key(**contract)) for name, contract in CONTRACTS.items()}


@given(
    name=st.sampled_from(sorted(set(CONTRACTS) - RANDOM)),
    rows=st.integers(1, 20),
    seed=st.integers(0, 1000),
    form=st.sampled_from(["float32", "float32 typed", "uint8", "uint8 typed", "float16"]),
)
@settings(max_examples=40, deadline=None)
def test_both_protocols_answer_alike(
    pairs: dict[str, tuple[Caller, Caller]], name: str, rows: int, seed: int, form: str
) -> None:
    ours, others = pairs[name]
    dtype, _, typed = form.partition(" ")
    asked = (inputs(rows, seed) * (255 if dtype == "uint8" else 1)).astype(dtype)
    mine = ours.predict(asked)
    theirs = infer(others, request(asked, typed=bool(typed)))
    assert_same(named(theirs), arrays(mine))
    told = receipt(theirs)
    assert (told["rows_charged"], told["spent"]) == (mine.receipt.rows_charged, mine.receipt.spent)
    assert "budget_left" not in told
    assert len(bytes.fromhex(str(told["head"]))) == 32
    assert (theirs.model_name, theirs.model_version, theirs.id) == ("linear", "1", "")


def test_another_input_is_another_answer(server: Server) -> None:
    """The negative control of the above: bits are compared, and they do depend on the rows."""
    caller, rows = server.new_key(), inputs(5)
    with pytest.raises(AssertionError):
        assert_same(named(infer(caller, request(rows))), arrays(caller.predict(rows[::-1].copy())))


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_retry_may_come_by_the_other_protocol(server: Server, name: str) -> None:
    """The id of a request is the key's, whatever protocol it came by: one charge, one draw, the same bits."""
    caller, rows = server.new_key(budget=14, **CONTRACTS[name]), inputs(7)
    one, other = uuid.uuid4(), uuid.uuid4()
    mine, theirs = caller.predict(rows, one.bytes), infer(caller, request(rows, str(one)))
    assert_same(named(theirs), arrays(mine))
    told = receipt(theirs)
    assert (told["rows_charged"], told["spent"], told["budget_left"]) == (0, 7, 7)
    assert (told["sequence"], told["head"]) == (mine.receipt.sequence, mine.receipt.head.hex())
    theirs, mine = infer(caller, request(rows, str(other))), caller.predict(rows, other.bytes)
    assert_same(named(theirs), arrays(mine))
    assert (receipt(theirs)["rows_charged"], mine.receipt.rows_charged) == (7, 0)
    if name in RANDOM:  # the negative control: another id is another draw
        drawn = [named(infer(server.new_key(**CONTRACTS[name]), request(inputs(60), str(one)))) for _ in range(2)]
        with pytest.raises(AssertionError):
            assert_same(*drawn)


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_metadata_say_what_is_answered(server: Server, name: str) -> None:
    caller = server.new_key(**CONTRACTS[name])
    said = stub(caller).ModelMetadata(v2.ModelMetadataRequest(name="linear"), metadata=caller.metadata, timeout=10)
    answer = infer(caller, request(inputs(3)))
    assert [(t.name, t.datatype, t.shape[1:]) for t in said.outputs] == [
        (t.name, t.datatype, t.shape[1:]) for t in answer.outputs
    ]
    assert {t.shape[0] for t in said.outputs} == {-1}
    for tensor in said.outputs:
        alone = infer(caller, request(inputs(3), outputs=[{"name": tensor.name}]))
        assert list(named(alone)) == [tensor.name]
        assert receipt(alone)["rows_charged"] == 3


def test_the_ledger_says_by_which_call(server: Server) -> None:
    caller, rows, chosen = server.new_key(), inputs(3), uuid.uuid4()
    caller.predict(rows)
    infer(caller, request(rows, str(chosen)))
    entries = [entry for batch in server.admin.Audit(admin_pb2.AuditRequest()) for entry in batch.entries]
    mine, theirs = [entry for entry in entries if entry.key_id == caller.key_id]
    assert (mine.rpc, theirs.rpc) == ("Predict", "ModelInfer")
    assert (theirs.model, theirs.rows, theirs.digest) == (mine.model, mine.rows, mine.digest)
    assert theirs.request_id == chosen.bytes


# Under `label`


def test_two_inputs_of_one_label_get_the_same_bytes(server: Server) -> None:
    labels = decode(server.new_key("label").predict(inputs(64)).labels)
    sure = inputs(64)[labels == labels[0]]
    assert len(sure) >= 4

    def without_receipt(caller: Caller, rows: np.ndarray) -> bytes:
        answer = infer(caller, request(rows, "x"))
        assert set(answer.parameters) == {"rows_charged", "spent", "sequence", "head"}
        answer.ClearField("parameters")
        return answer.SerializeToString()

    caller = server.new_key("label")
    assert without_receipt(caller, sure[:2]) == without_receipt(caller, sure[2:4])
    knows = server.new_key("scores")
    one, other = without_receipt(knows, sure[:2]), without_receipt(knows, sure[2:4])
    assert one != other  # the negative control
    assert len(one) == len(other)
