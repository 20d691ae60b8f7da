"""Keys over the wire: whose model they are for, when they end, where they are kept, which contracts make none.

Who may call what is in `test_hostile_keys.py`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from protos.mirage.v1 import admin_pb2
from protos.mirage.v1 import oracle_pb2 as pb
from tests.fixtures import Start
from tests.serving import Caller, Server, assert_refused, inputs, refused


def calls(caller: Caller) -> dict[str, Callable[[], Any]]:
    """One call of each RPC that the holder of a key may make."""
    return {
        "Describe": caller.describe,
        "Predict": lambda: caller.predict(inputs(2)),
        "Download": lambda: list(caller.download()),
        "Usage": caller.usage,
    }


def test_key_expires_while_in_use(server: Server) -> None:
    expires = time.time() + 1.5
    caller = server.new_key(expires=expires)
    caller.predict(inputs(2))
    time.sleep(max(0.0, expires - time.time()))
    with pytest.raises(grpc.RpcError) as caught:
        caller.predict(inputs(2))
    assert refused(caught.value).reason == "KEY_EXPIRED"


@pytest.mark.parametrize("model", ["other", "other/1", "linear/2", "nobody", "../linear", "LINEAR"])
def test_another_models_key(server: Server, model: str) -> None:
    caller = server.new_key("weights")
    expected = ("PERMISSION_DENIED", "OTHER_MODEL", "this key is for the model linear/1 and no other")
    for call in (
        lambda: caller.stub.Describe(pb.DescribeRequest(model=model), metadata=caller.metadata),
        lambda: list(caller.stub.Download(pb.DownloadRequest(model=model), metadata=caller.metadata)),
        lambda: caller.stub.Usage(pb.UsageRequest(model=model), metadata=caller.metadata),
        lambda: caller.send(caller.request(inputs(2), model=model)),
    ):
        assert_refused(server, call, *expected)


@pytest.mark.parametrize("model", ["", "linear", "linear/1"])
def test_the_keys_own_model_by_any_name(caller: Caller, model: str) -> None:
    assert caller.send(caller.request(inputs(2), model=model)).receipt.rows_charged == 2


def test_a_model_that_was_taken_away(start: Start) -> None:
    server = start("linear", "other")
    caller = server.new_key()
    server.kill()
    shutil.rmtree(server.root / "models" / "linear")
    server.start()
    sentence = "the model linear/1 of this key is not served here: tell the operator"
    for rpc in ("Describe", "Predict", "Usage"):
        assert_refused(server, calls(caller)[rpc], "NOT_FOUND", "NO_MODEL", sentence)


def test_the_secret_is_kept_nowhere(server: Server) -> None:
    caller = server.new_key()
    caller.predict(inputs(2))
    secret = caller.key.rpartition("_")[2].encode()
    for path in server.root.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes(), path


CONTRACTS = {
    "no access": (pb.Contract(), "access must be one of weights, scores, label"),
    "more of the top than there is": (
        pb.Contract(access=pb.Contract.ACCESS_SCORES, top_k=6),
        "top_k=6 is more than the model's 5 classes",
    ),
    "top-k of labels": (
        pb.Contract(access=pb.Contract.ACCESS_LABEL, top_k=1),
        "top_k has no meaning with access=label: leave it out or use scores",
    ),
    "rounding to nothing": (
        pb.Contract(access=pb.Contract.ACCESS_SCORES, round_to=0.0),
        "round_to=0.0 must lie in ",
    ),
    "features of a classifier": (
        pb.Contract(access=pb.Contract.ACCESS_SCORES, features=["shape"]),
        "features belong to feature models, and this model is a classifier: leave them out",
    ),
    "an unknown defence": (
        pb.Contract(access=pb.Contract.ACCESS_SCORES, defences=[pb.Defence(name="prayer")]),
        "no response defence 'prayer'; there is ",
    ),
}


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_contract_that_cannot_be_kept_makes_no_key(server: Server, name: str) -> None:
    contract, sentence = CONTRACTS[name]
    keys = len(server.admin.ListKeys(admin_pb2.ListKeysRequest()).keys)
    with pytest.raises(grpc.RpcError) as caught:
        server.admin.CreateKey(admin_pb2.CreateKeyRequest(model="linear", contract=contract))
    told = refused(caught.value)
    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "BAD_CONTRACT")
    assert told.sentence.startswith(sentence)
    assert len(server.admin.ListKeys(admin_pb2.ListKeysRequest()).keys) == keys
