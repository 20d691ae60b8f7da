"""Every RPC of every service, for every role and every state of a key, at both listeners: who is answered what.

The roles are *attacker*, the holder of a key for labels, *benign*, of one for scores, *experimenter*, of one for
weights, and the operator, who has no key but may open the Unix socket. The calls are taken from the descriptors of the
services that the server registers, so that a new one fails here until somebody says who may make it.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from oracle_server.operator import admin_socket
from protos.codec import encode
from protos.inference import open_inference_pb2 as inference
from protos.mirage.v1 import admin_pb2 as admin
from protos.mirage.v1 import oracle_pb2 as pb
from tests.fixtures import Start
from tests.serving import Forker, Server, inputs, new_root, refused

ROLES = {"attacker": "label", "benign": "scores", "experimenter": "weights"}
EVERYBODY = frozenset(ROLES)
MODEL = "linear/1"
SERVICES = {
    "port": (
        pb.DESCRIPTOR.services_by_name["Oracle"],
        inference.DESCRIPTOR.services_by_name["GRPCInferenceService"],
        health_pb2.DESCRIPTOR.services_by_name["Health"],
        reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
    ),
    "socket": (admin.DESCRIPTOR.services_by_name["Admin"],),
}
METHODS = {
    f"/{service.full_name}/{method.name}": (listener, method)
    for listener, services in SERVICES.items()
    for service in services
    for method in service.methods
}


@dataclass(frozen=True)
class Row:
    """A request that is well made, who may make it with a key in order (None: no key is asked for), and what follows
    when it is let in: an answer, or a refusal for this reason.
    """

    request: Callable[[], Message]
    roles: frozenset[str] | None = None
    then: str | None = None


def predict() -> pb.PredictRequest:
    return pb.PredictRequest(model=MODEL, request_id=secrets.token_bytes(16), inputs=encode(inputs(2)))


def infer() -> inference.ModelInferRequest:
    rows = inputs(2)
    tensor = inference.ModelInferRequest.InferInputTensor(name="input", datatype="FP32", shape=rows.shape)
    return inference.ModelInferRequest(model_name="linear", inputs=[tensor], raw_input_contents=[rows.tobytes()])


TABLE = {
    "/mirage.v1.Oracle/Describe": Row(lambda: pb.DescribeRequest(model=MODEL), EVERYBODY),
    "/mirage.v1.Oracle/Predict": Row(predict, EVERYBODY),
    "/mirage.v1.Oracle/Download": Row(lambda: pb.DownloadRequest(model=MODEL), frozenset({"experimenter"})),
    "/mirage.v1.Oracle/Usage": Row(lambda: pb.UsageRequest(model=MODEL), EVERYBODY),
    "/inference.GRPCInferenceService/ServerLive": Row(inference.ServerLiveRequest),
    "/inference.GRPCInferenceService/ServerReady": Row(inference.ServerReadyRequest),
    "/inference.GRPCInferenceService/ServerMetadata": Row(inference.ServerMetadataRequest),
    "/inference.GRPCInferenceService/ModelReady": Row(lambda: inference.ModelReadyRequest(name="linear"), EVERYBODY),
    "/inference.GRPCInferenceService/ModelMetadata": Row(
        lambda: inference.ModelMetadataRequest(name="linear"), EVERYBODY
    ),
    "/inference.GRPCInferenceService/ModelInfer": Row(infer, EVERYBODY),
    "/mirage.v1.Admin/CreateKey": Row(lambda: admin.CreateKeyRequest(model=MODEL), then="BAD_CONTRACT"),
    "/mirage.v1.Admin/SetBudget": Row(lambda: admin.SetBudgetRequest(key_id="nobody"), then="NO_SUCH_KEY"),
    "/mirage.v1.Admin/RevokeKey": Row(lambda: admin.RevokeKeyRequest(key_id="nobody"), then="NO_SUCH_KEY"),
    "/mirage.v1.Admin/RotateKey": Row(lambda: admin.RotateKeyRequest(key_id="nobody"), then="NO_SUCH_KEY"),
    "/mirage.v1.Admin/ReinstateKey": Row(lambda: admin.ReinstateKeyRequest(key_id="nobody"), then="NO_SUCH_KEY"),
    "/mirage.v1.Admin/ListKeys": Row(lambda: admin.ListKeysRequest(key_ids=["nobody"])),
    "/mirage.v1.Admin/Audit": Row(admin.AuditRequest),
    "/grpc.health.v1.Health/Check": Row(health_pb2.HealthCheckRequest),
    "/grpc.health.v1.Health/Watch": Row(health_pb2.HealthCheckRequest),
    "/grpc.health.v1.Health/List": Row(lambda: health_pb2.HealthListRequest()),  # not in every version of that package
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Row(
        lambda: reflection_pb2.ServerReflectionRequest(list_services="")
    ),
}

Outcome = tuple[str, str | None, str | None]  # code, reason, sentence; None: not looked at
ANSWERED: Outcome = ("OK", None, None)
NOT_THERE: Outcome = ("UNIMPLEMENTED", None, "Method not found!")
UNKNOWN: Outcome = (
    "UNAUTHENTICATED", "BAD_KEY", "the API key is not known here: check it, or ask the operator for one"
)  # fmt: skip
MISSING: Outcome = ("UNAUTHENTICATED", "NO_KEY", "no API key: send it as metadata 'authorization: Bearer <key>'")
TWO: Outcome = ("UNAUTHENTICATED", "BAD_KEY", "more than one API key: send one 'authorization' and no other")
REVOKED: Outcome = ("UNAUTHENTICATED", "KEY_REVOKED", "the API key was revoked: ask the operator for another")
EXPIRED: Outcome = ("UNAUTHENTICATED", "KEY_EXPIRED", "the API key has expired: ask the operator for another")
OTHER: Outcome = ("PERMISSION_DENIED", "OTHER_MODEL", "this key is for the model other/1 and no other")

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class State:
    """What is sent of which key, from "mirage_<id>_<secret>" and a second valid one; and what the guard says to it."""

    outcome: Outcome
    metadata: Callable[[str, str], Metadata]
    key: str = "live"


def header(text: Callable[[str, str], str], outcome: Outcome = UNKNOWN, key: str = "live") -> State:
    return State(outcome, lambda key, other: (("authorization", text(key, other)),), key)


def _id(key: str) -> str:
    return key.rpartition("_")[0]


STATES = {
    "in order": header(lambda key, other: f"Bearer {key}", ANSWERED),
    "revoked": header(lambda key, other: f"Bearer {key}", REVOKED, "revoked"),
    "revoked, and of another secret": header(lambda key, other: f"Bearer {key[:-4]}0000", UNKNOWN, "revoked"),
    "expired": header(lambda key, other: f"Bearer {key}", EXPIRED, "expired"),
    "another model's": header(lambda key, other: f"Bearer {key}", OTHER, "other"),
    "none": State(MISSING, lambda key, other: ()),
    "empty": header(lambda key, other: "", MISSING),
    "the scheme alone": header(lambda key, other: "Bearer ", MISSING),
    "only spaces": header(lambda key, other: "    ", UNKNOWN),
    "the key alone": header(lambda key, other: key, MISSING),
    "in another header": State(MISSING, lambda key, other: (("x-api-key", key), ("authorization-", f"Bearer {key}"))),
    "in bytes": State(MISSING, lambda key, other: (("authorization-bin", f"Bearer {key}".encode()),)),
    "bytes of no text": State(MISSING, lambda key, other: (("authorization-bin", b"\xff\x00\xfe"),)),
    "another scheme": header(lambda key, other: f"Basic {key}"),
    "the scheme in small letters": header(lambda key, other: f"bearer {key}"),
    "another prefix": header(lambda key, other: f"Bearer mirror{key.removeprefix('mirage')}"),
    "a space too many": header(lambda key, other: f"Bearer  {key}"),
    "cut short": header(lambda key, other: f"Bearer {key[:-1]}"),
    "half a key": header(lambda key, other: f"Bearer {key[: len(key) // 2]}"),
    "one digit more": header(lambda key, other: f"Bearer {key}0"),
    "one digit changed": header(lambda key, other: f"Bearer {key[:-1]}{'0' if key[-1] != '0' else '1'}"),
    "capitals": header(lambda key, other: f"Bearer {key.upper()}"),
    "an id alone": header(lambda key, other: f"Bearer {_id(key)}"),
    "an id and an empty secret": header(lambda key, other: f"Bearer {_id(key)}_"),
    "another's secret": header(lambda key, other: f"Bearer {_id(key)}_{other.rpartition('_')[2]}"),
    "another's id": header(lambda key, other: f"Bearer {_id(other)}_{key.rpartition('_')[2]}"),
    "two keys in one": header(lambda key, other: f"Bearer {key},{other}"),
    "no key of ours": header(lambda key, other: "Bearer hunter2"),
    "a quotation": header(lambda key, other: "Bearer mirage_' OR '1'='1_x"),
    "a pattern": header(lambda key, other: "Bearer mirage_%_%"),
    "a long one": header(lambda key, other: f"Bearer mirage_{'0' * 7000}"),
    "a key sent twice": State(TWO, lambda key, other: (("authorization", f"Bearer {key}"),) * 2),
    "a bad key before the good one": State(
        TWO, lambda key, other: (("authorization", "Bearer x"), ("authorization", f"Bearer {key}"))
    ),
    "the good key before a bad one": State(
        TWO, lambda key, other: (("authorization", f"Bearer {key}"), ("authorization", ""))
    ),
}


def expected(listener: str, rpc: str, role: str, state: State) -> Outcome:
    """What the table says to this call; at the socket everybody is the operator, whatever key comes along."""
    row = TABLE[rpc]
    if METHODS[rpc][0] != listener:
        return NOT_THERE
    if row.roles is None:
        return ANSWERED if row.then is None else (admin_code(row.then), row.then, None)
    if state.outcome[0] == "UNAUTHENTICATED":
        return state.outcome
    if role not in row.roles:
        allowed = " or ".join(sorted(ROLES[one] for one in row.roles))
        sentence = f"{rpc.rpartition('/')[2]} needs access {allowed}; this key's contract gives {ROLES[role]}"
        return "PERMISSION_DENIED", "NOT_IN_CONTRACT", sentence
    return state.outcome


def admin_code(reason: str) -> str:
    return {"BAD_CONTRACT": "INVALID_ARGUMENT", "NO_SUCH_KEY": "NOT_FOUND"}[reason]


def outcome(channel: grpc.Channel, rpc: str, method: MethodDescriptor, metadata: Metadata) -> Outcome:
    """Make one call and take at most two messages of what is answered, which is all that any of these has here."""
    data = TABLE[rpc].request().SerializeToString()
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call = getattr(channel, kind)(rpc)
    try:
        answer = call(iter([data]) if method.client_streaming else data, metadata=metadata, timeout=30)
        if method.server_streaming:
            list(islice(answer, 1 if method.name == "Watch" else None))  # a watch has no end
            answer.cancel()
    except grpc.RpcError as error:
        told = refused(error)
        assert told.rows_charged in (0, None)
        return told.code, told.reason, told.sentence
    return ANSWERED


class Place:
    """A server that logs every forward pass, with a key of each role in each state."""

    def __init__(self, server: Server) -> None:
        self.server = server
        socket = f"unix:{admin_socket(server.root)}"
        self.channels = {"port": server.channel, "socket": grpc.insecure_channel(socket)}
        self.keys = {
            (role, kind): server.new_key(access, **more)
            for role, access in ROLES.items()
            for kind, more in {
                "live": {},
                "revoked": {},
                "expired": {"expires": time.time() - 1},
                "other": {"model": "other"},
                "second": {},
            }.items()
        }
        for (_, kind), caller in self.keys.items():
            if kind == "revoked":
                server.admin.RevokeKey(admin.RevokeKeyRequest(key_id=caller.key_id))

    @property
    def passes(self) -> int:
        return self.server.process.log.count("a forward pass")

    def check(self, role: str, name: str) -> None:
        """Every RPC at both listeners, with a key of `role` in the state `name`; what it costs is what was answered."""
        state = STATES[name]
        metadata = state.metadata(self.keys[role, state.key].key, self.keys[role, "second"].key)
        books, passes = self.server.books(), self.passes
        answered = []
        for listener, channel in self.channels.items():
            for rpc, (_, method) in METHODS.items():
                wanted, got = expected(listener, rpc, role, state), outcome(channel, rpc, method, metadata)
                if wanted[2] is None:
                    got = (*got[:2], None)
                assert got == wanted, f"{rpc} at the {listener} for {role}, key {name}"
                answered += [rpc.rpartition("/")[2]] if got == ANSWERED else []
        after, asked = self.server.books(), answered.count("Predict") + answered.count("ModelInfer")
        assert self.passes - passes == asked
        assert after.logged - books.logged == 2 * asked
        assert after.lines - books.lines == asked + answered.count("Download")


FORWARD = """
import oracle_server.models.neural as neural
logits = neural.NeuralModel.logits
def told(self, requests):
    print("a forward pass", flush=True)
    return logits(self, requests)
neural.NeuralModel.logits = told
"""


@pytest.fixture(scope="module")
def place(forker: Forker, models: Path) -> Iterator[Place]:
    with contextlib.closing(Server(forker, new_root(models, "linear", "other"), "--reflection", before=FORWARD)) as s:
        yield Place(s)


def test_every_call_has_a_row() -> None:
    assert set(METHODS) <= set(TABLE), "a new RPC: say who may call it"
    assert set(TABLE) - set(METHODS) <= {"/grpc.health.v1.Health/List"}


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("role", ROLES)
def test_every_call(place: Place, role: str, name: str) -> None:
    place.check(role, name)


LOOSE = {
    "labels for the model": "import oracle_server.threat_model as t\n"
    "t.POLICY['/mirage.v1.Oracle/Download'] = t.Rule(t.Caller.KEY)\n",
    "an unknown key for a known one": "import hmac; hmac.compare_digest = lambda a, b: True\n",
    "the last of two keys": "import oracle_server.guard as g\n"
    "ask = g.Guard._authenticate\n"
    "class Last:\n"
    "    def __init__(self, context): self.sent = context.invocation_metadata()\n"
    "    def invocation_metadata(self): return list(dict(self.sent).items())\n"
    "g.Guard._authenticate = lambda self, context: ask(self, Last(context))\n",
}


@pytest.mark.parametrize(
    ("name", "role", "state"),
    [
        ("labels for the model", "attacker", "in order"),
        ("an unknown key for a known one", "benign", "another's secret"),
        ("the last of two keys", "benign", "a bad key before the good one"),
    ],
)
def test_a_loose_guard_is_noticed(start: Start, name: str, role: str, state: str) -> None:
    place = Place(start("linear", "other", options=("--reflection",), before=FORWARD + LOOSE[name]))
    place.check(role, "none")
    with pytest.raises(AssertionError, match=f" for {role}, key {state}"):
        place.check(role, state)
