"""Who may call what: every way to have no right, over the wire, and what it costs: nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from oracle_server.threat_model import POLICY
from oracle_server.threat_model import Caller as Who
from protos.mirage.v1 import admin_pb2
from protos.mirage.v1 import oracle_pb2 as pb
from protos.mirage.v1.admin_pb2_grpc import AdminStub
from tests.fixtures import Start
from tests.serving import Caller, Server, assert_refused, inputs, refused

UNKNOWN = ("UNAUTHENTICATED", "BAD_KEY", "the API key is not known here: check it, or ask the operator for one")
MISSING = ("UNAUTHENTICATED", "NO_KEY", "no API key: send it as metadata 'authorization: Bearer <key>'")

# What is sent as "authorization", from a valid key "mirage_<id>_<secret>" and a second one.
HEADERS: dict[str, tuple[Callable[[str, str], str], tuple[str, str, str]]] = {
    "empty": (lambda key, other: "", MISSING),
    "the scheme alone": (lambda key, other: "Bearer ", MISSING),
    "the key alone": (lambda key, other: key, MISSING),
    "another scheme": (lambda key, other: f"Basic {key}", UNKNOWN),
    "another prefix": (lambda key, other: f"Bearer mirror{key.removeprefix('mirage')}", UNKNOWN),
    "a space too many": (lambda key, other: f"Bearer  {key}", UNKNOWN),
    "cut short": (lambda key, other: f"Bearer {key[:-1]}", UNKNOWN),
    "one digit more": (lambda key, other: f"Bearer {key}0", UNKNOWN),
    "one digit changed": (lambda key, other: f"Bearer {key[:-1]}{'0' if key[-1] != '0' else '1'}", UNKNOWN),
    "capitals": (lambda key, other: f"Bearer {key.upper()}", UNKNOWN),
    "an id alone": (lambda key, other: f"Bearer {key.rpartition('_')[0]}", UNKNOWN),
    "an id and an empty secret": (lambda key, other: f"Bearer {key.rpartition('_')[0]}_", UNKNOWN),
    "another key's secret": (lambda key, other: f"Bearer {key.rpartition('_')[0]}_{other.rpartition('_')[2]}", UNKNOWN),
    "no key of ours": (lambda key, other: "Bearer hunter2", UNKNOWN),
    "a quotation": (lambda key, other: "Bearer mirage_' OR '1'='1_x", UNKNOWN),
    "a long one": (lambda key, other: f"Bearer mirage_{'0' * 5000}", UNKNOWN),
}


def calls(caller: Caller) -> dict[str, Callable[[], Any]]:
    """One call of each RPC that the holder of a key may make."""
    return {
        "Describe": caller.describe,
        "Predict": lambda: caller.predict(inputs(2)),
        "Download": lambda: list(caller.download()),
        "Usage": caller.usage,
    }


class Impostor(Caller):
    """A caller who sends this header, or none."""

    header: str | None = None

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self.header is None else (("authorization", self.header),)


def test_the_table_of_calls_is_complete(caller: Caller) -> None:
    keyed = {rpc.rpartition("/")[2] for rpc, rule in POLICY.items() if rule.caller is Who.KEY}
    assert set(calls(caller)) == keyed


def test_every_call_is_answered_to_the_right_key(server: Server) -> None:
    for call in calls(server.new_key("weights")).values():
        call()


@pytest.mark.parametrize("rpc", ["Describe", "Predict", "Download", "Usage"])
def test_no_key(server: Server, rpc: str) -> None:
    assert_refused(server, calls(Impostor(server, "", ""))[rpc], *MISSING)


@pytest.mark.parametrize("name", HEADERS)
def test_wrong_key(server: Server, name: str) -> None:
    header, expected = HEADERS[name]
    key, other = server.new_key("weights").key, server.new_key("weights").key
    impostor = Impostor(server, "", "")
    impostor.header = header(key, other)
    for call in calls(impostor).values():
        assert_refused(server, call, *expected)


def test_revoked_key(server: Server) -> None:
    caller = server.new_key("weights")
    caller.predict(inputs(2))
    server.admin.RevokeKey(admin_pb2.RevokeKeyRequest(key_id=caller.key_id))
    for call in calls(caller).values():
        sentence = "the API key was revoked: ask the operator for another"
        assert_refused(server, call, "UNAUTHENTICATED", "KEY_REVOKED", sentence)


def test_revoked_key_is_not_told_from_an_unknown_one_without_its_secret(server: Server) -> None:
    caller = server.new_key()
    server.admin.RevokeKey(admin_pb2.RevokeKeyRequest(key_id=caller.key_id))
    impostor = Impostor(server, "", "")
    impostor.header = f"Bearer {caller.key[:-4]}0000"
    assert_refused(server, impostor.describe, *UNKNOWN)


def test_expired_key(server: Server) -> None:
    caller = server.new_key("weights", expires=time.time() - 1)
    for call in calls(caller).values():
        sentence = "the API key has expired: ask the operator for another"
        assert_refused(server, call, "UNAUTHENTICATED", "KEY_EXPIRED", sentence)


def test_key_expires_while_in_use(server: Server) -> None:
    expires = time.time() + 1.5
    caller = server.new_key(expires=expires)
    caller.predict(inputs(2))
    time.sleep(max(0.0, expires - time.time()))
    with pytest.raises(grpc.RpcError) as caught:
        caller.predict(inputs(2))
    assert refused(caught.value).reason == "KEY_EXPIRED"


@pytest.mark.parametrize("access", ["scores", "label"])
def test_download_without_weights(server: Server, access: str) -> None:
    caller = server.new_key(access)
    told = f"Download needs access weights; this key's contract gives {access}"
    assert_refused(server, lambda: list(caller.download()), "PERMISSION_DENIED", "NOT_IN_CONTRACT", told)


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


def admin_calls(stub: AdminStub, metadata: Any) -> list[Callable[[], object]]:
    return [
        lambda: stub.CreateKey(admin_pb2.CreateKeyRequest(model="linear"), metadata=metadata),
        lambda: stub.SetBudget(admin_pb2.SetBudgetRequest(key_id="x"), metadata=metadata),
        lambda: stub.RevokeKey(admin_pb2.RevokeKeyRequest(key_id="x"), metadata=metadata),
        lambda: stub.RotateKey(admin_pb2.RotateKeyRequest(key_id="x"), metadata=metadata),
        lambda: stub.ReinstateKey(admin_pb2.ReinstateKeyRequest(key_id="x"), metadata=metadata),
        lambda: stub.ListKeys(admin_pb2.ListKeysRequest(), metadata=metadata),
        lambda: list(stub.Audit(admin_pb2.AuditRequest(), metadata=metadata)),
    ]


def test_operators_calls_on_the_open_port(server: Server) -> None:
    """They are not there at all, whatever key comes with them."""
    caller = server.new_key("weights")
    for metadata in ((), caller.metadata):
        for call in admin_calls(AdminStub(server.channel), metadata):
            assert_refused(server, call, "UNIMPLEMENTED", None, "Method not found!")


def test_oracles_calls_on_the_operators_socket(server: Server) -> None:
    caller = server.new_key("weights")
    channel = grpc.insecure_channel(f"unix:{server.root.resolve() / 'admin.sock'}")
    with channel:
        predict = channel.unary_unary("/mirage.v1.Oracle/Predict")
        data = caller.request(inputs(2)).SerializeToString()
        expected = ("UNIMPLEMENTED", None, "Method not found!")
        assert_refused(server, lambda: predict(data, metadata=caller.metadata), *expected)


def test_the_operators_socket_is_the_users_own(server: Server) -> None:
    assert (server.root / "admin.sock").stat().st_mode & 0o777 == 0o600
    assert (server.root / "ledger.db").stat().st_mode & 0o777 == 0o600


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
