"""The log of a real server that writes a line for each call: what is in it, and what never is."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from protos.codec import decode
from protos.mirage.v1 import admin_pb2
from protos.mirage.v1 import oracle_pb2 as pb
from tests.fixtures import Start
from tests.serving import Caller, Forker, Server, inputs, new_root

ORACLE = "/mirage.v1.Oracle"
PREDICT = f"{ORACLE}/Predict"
JSON = ("--log-format", "json", "--log-requests")
Line = dict[str, Any]


@pytest.fixture(scope="module")
def logging(forker: Forker, models: Path) -> Iterator[Server]:
    root = new_root(models, "linear", "fails")
    with contextlib.closing(Server(forker, root, "--max-rows", "64", *JSON)) as server:
        yield server


def lines(server: Server) -> list[Line]:
    """The log, every line of which is JSON but for the addresses, which are no part of it."""
    printed = server.process.log.splitlines()
    return [json.loads(line) for line in printed if not re.match(r"(serving|metrics) on ", line)]


def said(server: Server, calls: Callable[[], object]) -> list[Line]:
    """The lines that calls have left."""
    before = len(lines(server))
    calls()
    return lines(server)[before:]


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(grpc.RpcError):
        call()


def told(line: Line) -> Line:
    """What a line says, without its times."""
    return {name: value for name, value in line.items() if name != "time" and not name.endswith("_ms")}


def test_every_call_has_its_line(logging: Server) -> None:
    caller, weights = logging.new_key("label"), logging.new_key("weights")
    request = caller.request(inputs(3), bytes(range(32)))
    changed = caller.request(inputs(3) / 2, bytes(range(32)))
    stranger = Caller(logging, caller.key[:-4] + "0000", caller.key_id)

    def calls() -> None:
        caller.send(request)
        caller.send(request)
        refused(lambda: caller.send(changed))
        refused(lambda: caller.predict(inputs(65)))
        refused(lambda: caller.raw(PREDICT, b"\xff"))
        refused(lambda: list(caller.download()))
        list(weights.download())
        refused(stranger.usage)
        logging.admin.RevokeKey(admin_pb2.RevokeKeyRequest(key_id=caller.key_id))
        refused(caller.describe)

    found = said(logging, calls)
    for line in found:
        assert (line.pop("level"), line.pop("event")) == ("INFO", "request")
        assert datetime.fromisoformat(line["time"]).utcoffset() is not None
        assert line["total_ms"] > 0
    own = [line for line in found if line["request_id"] != bytes(range(32)).hex()]
    assert len({line.pop("request_id") for line in own}) == len(own) == 7
    key = {"model": "linear/1", "key_id": caller.key_id}
    other = {"model": "linear/1", "key_id": weights.key_id}
    asked = key | {"rpc": PREDICT, "request_id": bytes(range(32)).hex(), "rows": 3}
    many, unread = {"status": "INVALID_ARGUMENT", "reason": "TOO_MANY_ROWS"}, {"reason": "MALFORMED"}
    assert [told(line) for line in found] == [
        asked | {"status": "OK"},
        asked | {"status": "OK"},
        asked | {"status": "ALREADY_EXISTS", "reason": "ID_REUSED"},
        key | {"rpc": PREDICT} | many,
        {"rpc": PREDICT, "status": "INVALID_ARGUMENT"} | unread,  # before anybody looked whose it is
        key | {"rpc": f"{ORACLE}/Download", "status": "PERMISSION_DENIED", "reason": "NOT_IN_CONTRACT"},
        other | {"rpc": f"{ORACLE}/Download", "status": "OK"},
        {"rpc": f"{ORACLE}/Usage", "status": "UNAUTHENTICATED", "reason": "BAD_KEY"},  # whose id it had is not told
        {"rpc": "/mirage.v1.Admin/RevokeKey", "status": "OK"},
        key | {"rpc": f"{ORACLE}/Describe", "status": "UNAUTHENTICATED", "reason": "KEY_REVOKED"},
    ]
    for line in found:
        timed = line["rpc"] == PREDICT and line["status"] == "OK"
        assert ("queue_ms" in line, "compute_ms" in line) == (timed, timed)
        assert not timed or line["queue_ms"] + line["compute_ms"] <= line["total_ms"]


def test_a_failure_is_one_line_too(start: Start) -> None:
    server = start(
        options=JSON,
        before="""
from oracle_server.service import OracleService
async def usage(self, request, key):
    raise RuntimeError("two\\nlines")
OracleService.usage = usage
""",
    )
    caller = server.new_key("label")
    failed, line = said(server, lambda: refused(caller.usage))
    assert (failed["level"], failed["event"]) == ("ERROR", f"{ORACLE}/Usage failed")
    assert failed["exception"].endswith("RuntimeError: two\nlines")
    assert (line["status"], line.get("reason")) == ("INTERNAL", None)


# What is never in it


def hostile(caller: Caller) -> None:
    """Callers who want words of theirs in the log."""
    forged = '\n{"event": "request", "status": "OK"}\r\n'
    for request in (
        pb.PredictRequest(request_id=forged.encode() * 9, inputs=caller.request(inputs(1)).inputs),
        pb.PredictRequest(request_id=bytes(16), model=forged, inputs=caller.request(inputs(1)).inputs),
    ):
        refused(lambda sent=request: caller.send(sent))  # type: ignore[misc]
    stub = caller.server.channel.unary_unary(PREDICT)
    for key in (f"mirage_{caller.key_id}_forged", "mirage_forged_forged", "forged"):
        refused(lambda word=key: stub(b"", metadata=(("authorization", f"Bearer {word}"),), timeout=30))  # type: ignore[misc]


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_and_no_word_of_a_callers_is_in_it(start: Start, form: str) -> None:
    server = start(options=("--log-format", form, "--log-requests"))
    caller = server.new_key("scores")
    scores = caller.predict(inputs(4)).scores
    before = server.process.log
    hostile(caller)
    log = server.process.log
    assert len(log[len(before) :].splitlines()) == 5
    assert "forged" not in log
    assert caller.key not in log
    assert caller.key.rpartition("_")[2] not in log
    assert caller.key_id in log  # the control: what is there is found
    for value in np.concatenate([inputs(4).ravel(), decode(scores).ravel()]):
        assert f"{value:.4g}"[1:] not in re.sub(r"\d{4}-\d\d-\d\d\S*( [\d:,]+)?|\S+_ms\S*( \S+)?", "", log)


def of_content(server: Server, access: str) -> bool:
    """Whether lines say more than how many rows were asked."""
    caller = server.new_key(access)
    some = [inputs(5, seed) for seed in range(6)] + [np.zeros((5, 1, 8, 6), np.float32)]
    found = [said(server, lambda n=n: caller.predict(some[n], bytes(16) + bytes([n]))) for n in range(len(some))]  # type: ignore[misc]
    texts = []
    for n, (line,) in enumerate(found):
        assert line.pop("request_id") == bytes([*bytes(16), n]).hex()
        texts.append(told(line))
    return any(text != texts[0] for text in texts)


@pytest.mark.parametrize("access", ["label", "scores"])
def test_a_line_does_not_depend_on_the_answer(logging: Server, access: str) -> None:
    assert not of_content(logging, access)


def test_a_log_that_tells_is_noticed(start: Start) -> None:
    """The control: the label beside the number of rows."""
    source = """
import oracle_server.answering as answering
release = answering.release
def telling(logits, *more):
    call = answering.call_under_way()
    call.rows = f"{call.rows} {logits[0].argmax()}"
    return release(logits, *more)
answering.release = telling
"""
    assert of_content(start(options=JSON, before=source), "label")


# As it was before


def test_text_has_the_same_fields(start: Start) -> None:
    server = start(options=("--log-requests",))
    caller = server.new_key("label")
    caller.predict(inputs(2), bytes(16))
    time, milliseconds = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", r"\d+\.\d+"
    assert re.fullmatch(
        rf"{time} INFO request rpc={PREDICT} model=linear/1 key_id={caller.key_id} request_id={'00' * 16} rows=2"
        rf" status=OK queue_ms={milliseconds} compute_ms={milliseconds} total_ms={milliseconds}",
        server.process.log.splitlines()[-1],
    )


def test_no_line_for_a_call_unless_asked_for(server: Server) -> None:
    caller = server.new_key("label")
    before = server.process.log
    caller.predict(inputs(2))
    assert server.process.log == before
