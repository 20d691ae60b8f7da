"""Detections of attacks on real servers: each verdict, what is durable, and who is left alone."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from oracle_server.ledger import SqliteLedger
from oracle_server.operator import ledger_path
from protos.mirage.v1 import admin_pb2
from protos.mirage.v1 import oracle_pb2 as pb
from tests.fixtures import Command, Start
from tests.serving import Caller, Server, assert_refused, inputs, refused

SMALL = (("alike", 5.0), ("past", 50.0))  # the sixth copy of a row is flagged
SUSPENDED = ("PERMISSION_DENIED", "KEY_SUSPENDED", "the API key is suspended: ask the operator to reinstate it")


def fingerprints(verdict: str, **parameters: float) -> dict[str, object]:
    """A contract with fingerprints."""
    return {"detections": (("fingerprints", verdict, tuple(sorted((*SMALL, *parameters.items())))),)}


def copies(rows: int, seed: int = 0) -> np.ndarray:
    return np.repeat(inputs(1, seed), rows, 0)


def info(server: Server, caller: Caller) -> admin_pb2.KeyInfo:
    (found,) = [key for key in server.admin.ListKeys(admin_pb2.ListKeysRequest()).keys if key.key_id == caller.key_id]
    return found


def flags(server: Server, caller: Caller) -> list[tuple[str, str, int]]:
    """Detector, verdict and row of each flag, at once: the list waits for what detectors still look at."""
    return [(flag.detector, flag.verdict, flag.row) for flag in info(server, caller).flags]


def test_log_is_seen_by_the_operator_and_nobody_else(server: Server) -> None:
    watched, other = server.new_key(**fingerprints("log")), server.new_key()
    for caller in (watched, other):
        caller.predict(inputs(3, seed=1))
        answers = [caller.predict(copies(4), bytes([n]) * 16) for n in range(5)]
        assert [answer.receipt.spent for answer in answers] == [7, 11, 15, 19, 23]
    assert watched.predict(copies(4), bytes(16)).receipt.rows_charged == 0
    assert flags(server, watched) == [("fingerprints", "log", 9)]  # once, however often it is found again
    assert flags(server, other) == []


def test_suspended_after_the_answer_that_was_flagged(server: Server) -> None:
    caller, other = server.new_key("label", **fingerprints("suspend")), server.new_key(**fingerprints("suspend"))
    assert caller.predict(copies(5)).receipt.spent == 5
    assert caller.predict(copies(10)).receipt.spent == 15  # charged, so answered
    calls = (lambda: caller.predict(copies(1)), lambda: caller.predict(inputs(1)), caller.describe, caller.usage)
    for call in calls:
        told = assert_refused(server, call, *SUSPENDED)
        assert (told.rows_charged, told.figures, told.retry_after) == (0, {}, None)
    assert flags(server, caller) == [("fingerprints", "suspend", 6)]
    other.predict(copies(5))
    assert other.predict(inputs(60, seed=1)).receipt.spent == 65
    assert flags(server, other) == []


def test_the_bytes_of_the_wrong_secret_do_not_tell_a_suspended_key(server: Server) -> None:
    caller = server.new_key(**fingerprints("suspend"))
    caller.predict(copies(6))
    flags(server, caller)
    impostor = Caller(server, caller.key[:-4] + "0000", caller.key_id)
    with pytest.raises(grpc.RpcError) as caught:
        impostor.describe()
    assert refused(caught.value).reason == "BAD_KEY"


def test_a_retry_is_not_looked_at_again(server: Server) -> None:
    """Control: the same rows under new ids are flagged."""
    caller = server.new_key(**fingerprints("suspend"))
    request = caller.request(copies(5))
    for _ in range(5):
        caller.send(request)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(caller.send, [request] * 8))
    caller.predict(inputs(2, seed=1))
    assert flags(server, caller) == []
    caller.predict(copies(1))
    assert_refused(server, lambda: caller.send(request), *SUSPENDED)
    assert flags(server, caller) == [("fingerprints", "suspend", 8)]


def test_what_is_refused_is_not_looked_at(server: Server) -> None:
    caller = server.new_key(budget=5, **fingerprints("suspend"))
    caller.predict(copies(5))
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as caught:
            caller.predict(copies(1))
        assert refused(caught.value).reason == "BUDGET_SPENT"
    assert flags(server, caller) == []


def test_throttled_to_the_stated_rate(server: Server) -> None:
    caller = server.new_key(**fingerprints("throttle", rate=20.0))
    caller.predict(copies(6))
    caller.predict(inputs(23, seed=1))  # a second's worth and three rows more, which are paid for by waiting
    told = None
    with pytest.raises(grpc.RpcError) as caught:
        caller.predict(inputs(1, seed=2))
    told = refused(caught.value)
    assert (told.code, told.reason, told.rows_charged) == ("RESOURCE_EXHAUSTED", "SLOW_DOWN", 0)
    assert told.sentence.startswith("this key may ask for 20 rows a second: wait ")
    assert told.retry_after is not None
    time.sleep(told.retry_after)
    caller.predict(inputs(1, seed=2))
    assert caller.usage().spent == 30
    assert flags(server, caller) == [("fingerprints", "throttle", 6)]
    server.admin.ReinstateKey(admin_pb2.ReinstateKeyRequest(key_id=caller.key_id))
    for seed in range(3, 6):
        caller.predict(inputs(60, seed))


def test_a_suspension_survives_a_restart(start: Start) -> None:
    server = start()
    caller, quick = server.new_key(**fingerprints("suspend")), server.new_key(**fingerprints("throttle"))
    caller.predict(inputs(10, seed=1))
    for one in (caller, quick):
        one.predict(copies(6))
        assert flags(server, one)
    server.kill()
    server.start()
    assert_refused(server, lambda: caller.predict(inputs(1)), *SUSPENDED)
    assert flags(server, caller) == [("fingerprints", "suspend", 16)]
    quick.predict(inputs(5))
    with pytest.raises(grpc.RpcError) as caught:
        quick.predict(inputs(5))
    assert refused(caught.value).reason == "SLOW_DOWN"


def test_rows_are_counted_over_restarts(start: Start) -> None:
    """What a detector remembers is gone; the number of a row is its place among all that were charged."""
    server = start()
    caller = server.new_key(**fingerprints("suspend"))
    caller.predict(copies(5))
    server.kill()
    server.start()
    caller.predict(copies(5))
    assert flags(server, caller) == []
    caller.predict(copies(1))
    assert flags(server, caller) == [("fingerprints", "suspend", 11)]


def test_reinstated_with_a_clean_slate(server: Server, command: Command) -> None:
    caller = server.new_key(**fingerprints("suspend"))
    caller.predict(copies(9))
    assert_refused(server, lambda: caller.predict(copies(1)), *SUSPENDED)
    assert command("keys", "reinstate", "--root", server.root, caller.key_id) == (0, f"reinstated {caller.key_id}\n")
    assert caller.predict(copies(5)).receipt.spent == 14
    assert caller.predict(copies(1)).receipt.spent == 15  # the sixth since then
    assert_refused(server, lambda: caller.predict(copies(1)), *SUSPENDED)
    assert flags(server, caller) == [("fingerprints", "suspend", 6), ("fingerprints", "suspend", 15)]
    assert [flag.HasField("lifted") for flag in info(server, caller).flags] == [True, False]
    status, said = command("keys", "reinstate", "--root", server.root, "nobody")
    assert (status, said) == (1, "Error: there is no key 'nobody': see oracle-server keys list\n")


def test_the_command_line(start: Start, command: Command) -> None:
    server = start()
    words = ("keys", "create", "--root", server.root, "--model", "linear", "--access", "label")
    detect = ("--detect", "fingerprints:verdict=suspend,alike=5,past=50", "--detect", "distances")
    status, said = command(*words, *detect)
    assert status == 0, said
    caller = Caller(server, said.strip(), said.split("_")[1])
    assert caller.describe().contract.detections[0] == pb.Detection(
        name="fingerprints", verdict="suspend", parameters=dict(SMALL)
    )
    caller.predict(copies(6))
    for listing in (("keys", "list"), ("usage", caller.key_id)):
        flags(server, caller)
        status, table = command(*listing, "--root", server.root)
        assert status == 0
        for text in (
            "label, fingerprints -> suspend (alike=5, past=50), distances -> log",
            "suspended",
            "flagged by fingerprints at row 6 (suspend)",
        ):
            assert text in " ".join(table.split()), table
    for bad, sentence in {
        "prayer": "Error: no detection 'prayer'; there is distances, fingerprints",
        "distances:verdict=hang": "Error: distances: verdict='hang' must be one of ['log', 'throttle', 'suspend']",
        "distances:verdict=log,rate=2": "Error: distances with verdict=log has no parameter 'rate'; there is delta",
        "distances:delta=x": "--detect distances:delta=x: write name:verdict=suspend,parameter=value",
    }.items():
        status, said = command(*words, "--detect", bad)
        assert status != 0
        assert sentence in said


def test_a_ledger_from_before_there_were_flags(start: Start) -> None:
    """Opened, and given the table."""
    server = start()
    caller = server.new_key(**fingerprints("suspend"))
    caller.predict(copies(3))
    server.kill()
    ledger = SqliteLedger(ledger_path(server.root))
    ledger._reader.execute("DROP TABLE flags")
    ledger.close()
    server.start()
    assert flags(server, caller) == []
    caller.predict(copies(6))
    assert_refused(server, lambda: caller.predict(inputs(1)), *SUSPENDED)


def test_weights_cannot_be_watched(server: Server) -> None:
    with pytest.raises(ValueError, match="detections has no meaning with access=weights"):
        server.new_key("weights", **fingerprints("log"))
