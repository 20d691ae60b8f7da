"""Images as uint8 or float16 over the wire: the answers, draws and flags of their float32 values."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from protos.codec import decode, dtype_name
from protos.mirage.v1 import oracle_pb2 as pb
from tests.fixtures import Command, Start
from tests.serving import Caller, Server, assert_refused
from tests.world import PAYLOAD

SHAPE = (20, 1, 8, 6)
LEVELS = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
HALVES = np.random.default_rng(1).random(SHAPE).astype(np.float16)
PAIRS = {"uint8": (LEVELS, LEVELS / np.float32(255)), "float16": (HALVES, HALVES.astype(np.float32))}
KEYED = (("keyed_noise", (("sigma", 0.05),)),)
BENT = (("reverse_sigmoid", (("beta", 0.7),)),)
Predict = Callable[[Caller, np.ndarray], pb.PredictResponse]


def check_the_same(predict: Predict, server: Server, dtype: str, **contract: object) -> None:
    """Both forms of the rows get the same bytes, under keys of their own."""
    small, plain = PAIRS[dtype]
    assert (small.dtype.name, plain.dtype) == (dtype, np.float32)
    one, other = server.new_key(**contract), server.new_key(**contract)
    first, second = predict(one, small), predict(other, plain)
    assert first.WhichOneof("answer") == second.WhichOneof("answer")
    assert (first.scores, first.top_k, first.labels) == (second.scores, second.top_k, second.labels)
    assert first.receipt.rows_charged == one.usage().spent == len(small)


@pytest.mark.parametrize("dtype", PAIRS)
@pytest.mark.parametrize("contract", [{}, {"defences": KEYED}, {"defences": BENT, "top_k": 2}, {"access": "label"}])
def test_the_answer_is_that_of_the_values(server: Server, dtype: str, contract: dict[str, object]) -> None:
    check_the_same(Caller.predict, server, dtype, **contract)


def test_one_level_more_is_another_answer(server: Server) -> None:
    """The negative control: bits are compared, and they do depend on the levels."""

    def off_by_one(caller: Caller, rows: np.ndarray) -> pb.PredictResponse:
        return caller.predict(rows ^ np.uint8(1) if rows.dtype == np.uint8 else rows)

    with pytest.raises(AssertionError):
        check_the_same(off_by_one, server, "uint8")


def test_the_card_says_what_is_taken(caller: Caller) -> None:
    assert tuple(map(dtype_name, caller.describe().card.accepted_dtypes)) == PAYLOAD


def test_other_bytes_of_the_same_values_are_another_request(server: Server, caller: Caller) -> None:
    small, plain = PAIRS["uint8"]
    request_id = b"0123456789abcdef"
    first = caller.predict(small, request_id)
    again = caller.predict(small, request_id)
    assert (again.scores, again.receipt.rows_charged) == (first.scores, 0)
    reused = ("ALREADY_EXISTS", "ID_REUSED", "this request id was used for other bytes: take a new id")
    assert_refused(server, lambda: caller.predict(plain, request_id), *reused)


def test_detectors_see_the_values(server: Server) -> None:
    """Copies of one image are flagged whatever they come as, and counted together."""
    small, plain = (rows[:1] for rows in PAIRS["uint8"])
    detections = (("fingerprints", "suspend", (("alike", 5.0), ("past", 50.0))),)
    caller = server.new_key(detections=detections)
    for rows in (small, plain, small, plain, small, plain):  # the sixth is one too many
        caller.predict(rows)
    suspended = ("PERMISSION_DENIED", "KEY_SUSPENDED", "the API key is suspended: ask the operator to reinstate it")
    assert_refused(server, lambda: caller.predict(small), *suspended)


def test_a_model_that_was_hosted_before_takes_what_it_took(start: Start) -> None:
    server = start()
    path = server.root / "models" / "linear" / "1" / "card.json"
    card = json.loads(path.read_text())
    del card["accepted_dtypes"]
    path.write_text(json.dumps(card))
    server.kill()
    server.start()
    caller = server.new_key()
    for small, plain in PAIRS.values():
        said = f"inputs have dtype {small.dtype}: send float32 rows of shape [1, 8, 6]"
        assert_refused(server, lambda: caller.predict(small), "INVALID_ARGUMENT", "BAD_INPUT", said)  # noqa: B023
        assert decode(caller.predict(plain).scores).shape == (20, 5)


@pytest.mark.parametrize(("payload", "accepted"), [("none", []), ("uint8", ["uint8"]), (None, list(PAYLOAD))])
def test_what_is_imported_says_what_it_takes(
    server: Server, command: Command, payload: str | None, accepted: list[str]
) -> None:
    source = server.root / "models" / "linear" / "1" / "model.pt2"
    name = f"mine-{payload or 'default'}"
    words = ["import", source, "--root", server.root, "--name", name, "--input-shape", "1,8,6"]
    status, said = command(*words, *(("--payload", payload) if payload else ()))
    assert status == 0, said
    card = json.loads((server.root / "models" / name / "1" / "card.json").read_text())
    assert card["accepted_dtypes"] == accepted


def test_a_payload_that_there_is_not(server: Server, command: Command) -> None:
    source = server.root / "models" / "linear" / "1" / "model.pt2"
    words = ["import", source, "--root", server.root, "--name", "mine", "--input-shape", "1,8,6"]
    status, said = command(*words, "--payload", "uint8,int8")
    assert status != 0
    assert "inputs are never int8: give --payload uint8,float16, or none" in said
