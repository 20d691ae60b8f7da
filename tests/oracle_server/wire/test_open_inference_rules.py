"""What is kept of a key whichever protocol it speaks: id, retry, budget, rate, detection; and how the server ends."""

from __future__ import annotations

import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from protos.inference import open_inference_pb2 as v2
from protos.mirage.v1 import admin_pb2
from tests.fixtures import Start
from tests.open_inference import arrays, assert_same, infer, named, receipt, request, stub
from tests.serving import Caller, Server, assert_refused, inputs, refused

BAD = ("INVALID_ARGUMENT", "BAD_INPUT")
NOISE = (("gaussian_noise", (("sigma", 0.2),)),)
ONCE = "5f0d2b2e-93a1-4e0b-9a55-0d8f6a1c2b3d"
IDS = {
    "a UUID": (ONCE, ONCE, 1),
    "a UUID in capitals": (ONCE, ONCE.upper(), 1),
    "nothing": ("", "", 2),
    "a small number": ("1", "1", 2),
    "a trace's id": (ONCE.replace("-", ""), ONCE.replace("-", ""), 2),
    "a UUID in braces": (f"{{{ONCE}}}", f"{{{ONCE}}}", 2),
    "the UUID of zeros": (str(uuid.UUID(int=0)), str(uuid.UUID(int=0)), 2),
    "a UUID and a line's end": (f"{ONCE}\n", f"{ONCE}\n", 2),
    "letters of other scripts": ("٣" * 8 + ONCE[8:], "٣" * 8 + ONCE[8:], 2),
    "1024 letters": ("x" * 1024, "x" * 1024, 2),
}


@pytest.mark.parametrize("name", IDS)
def test_only_a_uuid_makes_a_retry(server: Server, caller: Caller, name: str) -> None:
    first, second, charges = IDS[name]
    answers = [infer(caller, request(inputs(2), said)) for said in (first, second)]
    assert [answer.id for answer in answers] == [first, second]
    assert [receipt(answer)["rows_charged"] for answer in answers] == [2, 2 * (charges - 1)]
    assert caller.usage().spent == 2 * charges
    assert_same(*map(named, answers))


def test_a_uuid_belongs_to_its_bytes(server: Server, caller: Caller) -> None:
    infer(caller, request(inputs(2), ONCE))
    reused = ("ALREADY_EXISTS", "ID_REUSED", "this request id was used for other bytes: take a new id")
    for rows in (inputs(3), inputs(2, seed=1), (inputs(2) * 255).astype(np.uint8)):
        assert_refused(server, lambda rows=rows: infer(caller, request(rows, ONCE)), *reused)
        assert_refused(server, lambda rows=rows: caller.predict(rows, uuid.UUID(ONCE).bytes), *reused)
    assert receipt(infer(caller, request(inputs(2), "1")))["rows_charged"] == 2


def test_a_long_id_is_refused(server: Server, caller: Caller) -> None:
    asked = request(inputs(2), "x" * 1025)
    assert_refused(server, lambda: infer(caller, asked), *BAD, "the id has 1025 letters: send at most 1024")


def test_one_uuid_from_many_threads_at_once(server: Server) -> None:
    caller = server.new_key(defences=NOISE)
    with ThreadPoolExecutor(12) as pool:
        for seed in range(5):
            asked, mine = request(inputs(5, seed), str(uuid.uuid4())), caller.request(inputs(5, seed))
            mine.request_id = uuid.UUID(asked.id).bytes
            calls = [lambda asked=asked: infer(caller, asked), lambda mine=mine: caller.send(mine)] * 6
            answers = list(pool.map(lambda call: call(), calls))
            first = named(answers[0])
            for answer in answers[1:]:
                assert_same(named(answer) if isinstance(answer, v2.ModelInferResponse) else arrays(answer), first)
    assert caller.usage().spent == 25


# Budget, rate, detection


def test_the_budget_is_one_for_both(server: Server) -> None:
    caller = server.new_key("label", budget=5)
    caller.predict(inputs(2))
    assert receipt(infer(caller, request(inputs(2))))["budget_left"] == 1
    with pytest.raises(grpc.RpcError) as caught:
        caller.predict(inputs(2))
    spent = refused(caught.value)
    told = assert_refused(
        server, lambda: infer(caller, request(inputs(2))), "RESOURCE_EXHAUSTED", "BUDGET_SPENT", spent.sentence
    )
    assert told.figures == spent.figures
    assert receipt(infer(caller, request(inputs(1))))["budget_left"] == 0


def test_the_rate_is_one_for_both(server: Server) -> None:
    caller = server.new_key("label", rate=0.5)
    reasons = []
    for call in (lambda: infer(caller, request(inputs(1))), lambda: caller.predict(inputs(1))) * 2:
        try:
            call()
            reasons.append("")
        except grpc.RpcError as error:
            told = refused(error)
            assert told.retry_after is not None
            reasons.append(str(told.reason))
    assert reasons[0] == ""
    assert set(reasons[1:]) == {"SLOW_DOWN"}


def test_detectors_look_at_both(server: Server) -> None:
    """Six copies of a row suspend the key, half of them by either protocol."""
    detection = ("fingerprints", "suspend", (("alike", 5.0), ("past", 50.0)))
    caller, row = server.new_key("label", detections=(detection,)), inputs(1)
    for _ in range(3):
        caller.predict(row)
        infer(caller, request(row))
    server.admin.ListKeys(admin_pb2.ListKeysRequest())  # waits for what detectors still look at
    suspended = ("PERMISSION_DENIED", "KEY_SUSPENDED", "the API key is suspended: ask the operator to reinstate it")
    asked = v2.ModelMetadataRequest(name="linear")
    for call in (
        lambda: infer(caller, request(row)),
        lambda: stub(caller).ModelMetadata(asked, metadata=caller.metadata, timeout=10),
        caller.usage,
    ):
        assert_refused(server, call, *suspended)
    assert stub(caller).ServerReady(v2.ServerReadyRequest(), metadata=caller.metadata, timeout=10).ready


# The server's end, and models that are not there

LINGER = """
import asyncio
from grpc_health.v1.health import aio
graceful = aio.HealthServicer.enter_graceful_shutdown
async def lingering(self):
    await asyncio.sleep(1.5)
    await graceful(self)
aio.HealthServicer.enter_graceful_shutdown = lingering
"""


def test_not_ready_from_the_signal_on(start: Start) -> None:
    server = start(before=LINGER)
    caller = server.new_key()
    calls, metadata = stub(caller), {"metadata": caller.metadata, "timeout": 10}
    assert calls.ServerReady(v2.ServerReadyRequest()).ready
    assert calls.ModelReady(v2.ModelReadyRequest(name="linear"), **metadata).ready
    server.process.send(signal.SIGTERM)
    while "stopping" not in server.process.log:
        time.sleep(0.002)
    assert not calls.ServerReady(v2.ServerReadyRequest()).ready
    assert not calls.ModelReady(v2.ModelReadyRequest(name="linear"), **metadata).ready
    assert calls.ServerLive(v2.ServerLiveRequest()).live
    assert server.process.wait() == 0


def test_a_damaged_model_is_not_ready(start: Start) -> None:
    server = start("linear", "other")
    caller, other = server.new_key(), server.new_key(model="other")
    server.kill()
    (server.root / "models" / "linear" / "1" / "model.pt2").write_bytes(b"no archive")
    server.start()
    for one, name, ready in ((caller, "linear", False), (other, "other", True)):
        found = stub(one).ModelReady(v2.ModelReadyRequest(name=name), metadata=one.metadata, timeout=10)
        assert found.ready == ready
    with pytest.raises(grpc.RpcError) as caught:
        infer(caller, request(inputs(1)))
    assert refused(caught.value).reason == "MODEL_UNAVAILABLE"
