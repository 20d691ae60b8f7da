"""Detections in contracts, flags in the ledger, and rows that are looked at beside the model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from defenses.detection import DETECTIONS, Fingerprints
from oracle_server.cli_detections import named_detection
from oracle_server.contracts import contract_from_message, contract_message, contract_words
from oracle_server.detections import Watch
from oracle_server.ledger import Flag, Key, SqliteLedger
from oracle_server.server import _AdminService
from oracle_server.threat_model import Access, Contract
from protos.codec import encode
from protos.contracts import contract_values
from protos.mirage.v1 import admin_pb2
from protos.mirage.v1 import oracle_pb2 as pb
from tests.world import request_id, world

BOTH = (("distances", "log", (("width", 0.1),)), ("fingerprints", "throttle", (("alike", 9.0), ("rate", 2.0))))
WATCHED = Contract(Access.LABEL, detections=BOTH)


def test_a_contract_with_detections_is_the_same_in_every_form() -> None:
    assert Contract.from_dict(json.loads(json.dumps(WATCHED.as_dict()))) == WATCHED
    message = pb.Contract.FromString(contract_message(WATCHED).SerializeToString())
    assert contract_from_message(message) == WATCHED
    assert contract_values(message)["detections"] == BOTH
    assert contract_words(WATCHED) == "label, distances -> log (width=0.1), fingerprints -> throttle (alike=9, rate=2)"


def test_contracts_without_detections_are_what_they_were() -> None:
    """Finished cells are found by this JSON, and results by this digest."""
    plain = Contract(Access.SCORES, top_k=1, budget=5000)
    assert "detections" not in plain.as_dict()
    assert plain.digest == "713b5145e69401c3fc21ecff7282fd6ad95a0881f0609673cbae889949c6dabf"
    assert Contract.from_dict({**plain.as_dict(), "detections": []}) == plain
    assert Contract(Access.SCORES, top_k=1, budget=5000, detections=BOTH).digest != plain.digest


@pytest.mark.parametrize(
    ("detections", "sentence"),
    [
        ([("prayer", "log", {})], "no detection 'prayer'; there is distances, fingerprints"),
        ([("distances", "hang", {})], "distances: verdict='hang' must be one of ['log', 'throttle', 'suspend']"),
        ([("distances", "", {})], "distances: verdict='' must be one of"),
        ([("distances", "log", {"hope": 1})], "distances with verdict=log has no parameter 'hope'; there is delta"),
        ([("distances", "suspend", {"rate": 1})], "distances with verdict=suspend has no parameter 'rate'"),
        ([("distances", "throttle", {"rate": 0})], "distances: rate=0.0 must be positive and finite"),
        ([("distances", "throttle", {"rate": float("nan")})], "distances: rate=nan must be positive and finite"),
        ([("fingerprints", "log", {"alike": 0})], "alike=0.0 must be a whole number from 1 to 100000"),
        ([("distances", "log", {})] * 2, "the detection distances is named twice: name it once"),
    ],
)
def test_detections_that_cannot_be_kept_are_refused(detections: list[Any], sentence: str) -> None:
    message = pb.Contract(
        access=pb.Contract.ACCESS_SCORES,
        detections=[pb.Detection(name=n, verdict=v, parameters=values) for n, v, values in detections],
    )
    with pytest.raises(ValueError, match=re.escape(sentence)):
        contract_from_message(message)


def test_words_of_the_command() -> None:
    assert named_detection("fingerprints:threshold=25,verdict=suspend") == (
        "fingerprints",
        "suspend",
        (("threshold", 25.0),),
    )
    assert named_detection("distances") == ("distances", "log", ())


# Flags in the ledger


def test_a_flag_stands_until_it_is_lifted(ledger: SqliteLedger, make_key: Callable[..., Key]) -> None:
    ledger.add_key(make_key())
    ledger.add_key(make_key("other"))
    first, again = Flag("k", "distances", "suspend", 7, 1.0), Flag("k", "distances", "suspend", 9, 2.0)
    assert ledger.flag(first)
    assert not ledger.flag(again)
    assert ledger.flag(Flag("k", "fingerprints", "log", 8, 1.5))
    assert ledger.flag(Flag("other", "distances", "log", 7, 1.5))
    assert [flag.row for flag in ledger.flags("k")] == [7, 8]
    assert ledger.reinstate("k", 3.0)
    assert [flag.lifted for flag in ledger.flags("k")] == [3.0, 3.0]
    assert ledger.flags("other")[0].lifted is None
    assert ledger.flag(again)
    assert ledger.reinstate("k", 4.0)
    assert [flag.lifted for flag in ledger.flags("k")] == [3.0, 3.0, 4.0]
    assert not ledger.reinstate("nobody", 3.0)


# Beside the model


class _Stream:
    """Keeps what it was shown; flags every row that starts above a half."""

    def __init__(self, seen: list[np.ndarray], go: threading.Event) -> None:
        self._seen, self._go = seen, go

    def observe(self, rows: np.ndarray) -> np.ndarray:
        assert self._go.wait(10)
        assert threading.current_thread().name.startswith("detection")
        self._seen.append(rows)
        return np.asarray(rows[:, 0] > 0.5)


class _Toy(Fingerprints):
    seen: list[np.ndarray]
    go: threading.Event

    def start(self, input_shape: tuple[int, ...], secret: bytes) -> Any:
        assert input_shape == (3,)
        return _Stream(self.seen, self.go)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> type[_Toy]:
    _Toy.seen, _Toy.go = [], threading.Event()
    _Toy.go.set()
    monkeypatch.setitem(DETECTIONS, "fingerprints", _Toy)
    return _Toy


def asked(n: int, *firsts: float) -> pb.PredictRequest:
    rows = np.full((len(firsts), 3), 0.1, np.float32)
    rows[:, 0] = firsts
    return pb.PredictRequest(request_id=request_id(n), inputs=encode(rows))


SUSPEND = Contract(Access.LABEL, detections=(("fingerprints", "suspend", ()),))


def test_no_answer_waits_for_a_detector_and_the_next_request_does(toy: type[_Toy]) -> None:
    async def story() -> None:
        async with world(SUSPEND) as w:
            toy.go.clear()
            assert isinstance(await asyncio.wait_for(w.send(asked(0, 0.1, 0.9)), 5), pb.PredictResponse)
            passes = w.model.passes
            waiting = asyncio.create_task(w.send(asked(1, 0.1)))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            toy.go.set()
            assert await waiting is w.refusals[0][2]
            assert w.refusals[0][2].reason.name == "KEY_SUSPENDED"
            assert w.model.passes == passes
            assert w.ledger.usage("k").spent == 2
            assert [(flag.detector, flag.row) for flag in w.ledger.flags("k")] == [("fingerprints", 2)]

    asyncio.run(story())


def test_rows_are_looked_at_once_and_in_order(toy: type[_Toy]) -> None:
    async def story() -> None:
        async with world(SUSPEND) as w:
            for n in range(5):
                await w.send(asked(n, 0.1 * n))
                await w.send(asked(n, 0.1 * n))
            await asyncio.gather(*(w.send(asked(9, 0.5)) for _ in range(6)))
            assert w.ledger.usage("k").spent == 6

    asyncio.run(story())
    np.testing.assert_allclose(np.concatenate(toy.seen)[:, 0], [0, 0.1, 0.2, 0.3, 0.4, 0.5], atol=1e-6)


def test_a_key_without_detections_is_not_looked_at(toy: type[_Toy]) -> None:
    async def story() -> None:
        async with world(Contract(Access.LABEL)) as w:
            await w.send(asked(0, 0.9))

    asyncio.run(story())
    assert toy.seen == []


def test_a_detector_that_fails_costs_nobody_an_answer(toy: type[_Toy], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: _Stream, rows: np.ndarray) -> np.ndarray:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(_Stream, "observe", fail)

    async def story() -> None:
        async with world(SUSPEND) as w:
            for n in range(3):
                assert isinstance(await w.send(asked(n, 0.9)), pb.PredictResponse)
            assert w.ledger.flags("k") == []

    asyncio.run(story())


def test_the_list_of_keys_waits_for_what_is_still_looked_at(tmp_path: Any) -> None:
    """Or it would lack the flags of the last answers."""
    told: list[str] = []
    operator: Any = SimpleNamespace(list_keys=lambda request: told.append("listed"))

    async def slow() -> None:
        await asyncio.sleep(0.05)
        told.append("looked at")

    async def list_at_once() -> None:
        with contextlib.closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
            watch = Watch(ledger)
            watch._looking["key"] = {asyncio.create_task(slow())}
            await _AdminService(operator, watch.settle).list_keys(admin_pb2.ListKeysRequest(), None)
            watch._looking.clear()
            await watch.drain()

    asyncio.run(list_at_once())
    assert told == ["looked at", "listed"]
