"""Laws 5 and 6 on the way of a request: any interleaving keeps the accounts, and a retry is free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from defenses.response import defend
from oracle_server import answering as answering_module
from oracle_server import charging as charging_module
from oracle_server.errors import Reason, Refusal
from oracle_server.ledger import Charge, Reservation, SqliteLedger
from oracle_server.threat_model import Access, Contract, Defend
from protos.codec import encode
from protos.mirage.v1 import oracle_pb2 as pb
from tests.world import FAILS, SlowLedger, World, inputs, request_id, world

NOISE = (("gaussian_noise", (("sigma", 0.2),)),)
KEYED = (("keyed_noise", (("sigma", 0.2),)),)

# A plan is a list of calls at once: (id, payload, leaves after so many turns of the loop, or stays).
Plan = list[tuple[int, int, int | None]]
Spoil = Callable[[World], object]


async def check_accounts(
    contract: Contract, plan: Plan, ledger: type[SqliteLedger] = SlowLedger, spoil: Spoil = lambda w: None
) -> None:
    """answered <= charged <= budget; one id is one charge and one answer; what was not charged is there to be used."""
    async with world(contract, ledger=ledger) as w:
        spoil(w)
        tasks = []
        for n, payload, leaves in plan:
            task = asyncio.create_task(w.ask(request_id(n), payload, 1 + payload % 3))
            tasks.append(task)
            if leaves is not None:
                for _ in range(leaves):
                    await asyncio.sleep(0)
                task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, Refusal):
                raise outcome
        await w.answering.drain()
        log = {entry.request_id: entry.rows for entry in w.ledger.entries()}
        spent = w.ledger.usage("k").spent
        answered = {used: 1 + payload % 3 for used, payload, _ in w.answers}
        assert answered.items() <= log.items()
        assert spent == sum(log.values())
        assert contract.budget is None or spent <= contract.budget
        for answered_id in answered:
            own = [(payload, response) for used, payload, response in w.answers if used == answered_id]
            assert len({payload for payload, _ in own}) == 1, "one id, other bytes, two answers"
            assert len({response.WhichOneof("answer") for _, response in own}) == 1
            assert len({response.scores.data + response.labels.data for _, response in own}) == 1, "a fresh draw"
            assert len({response.receipt.sequence for _, response in own}) == 1
            assert sorted(response.receipt.rows_charged for _, response in own)[:-1] == [0] * (len(own) - 1)
        for refused_id, payload, refusal in w.refusals:
            assert refusal.charged == 0
            if refusal.reason is Reason.BUDGET_SPENT:
                most = {n: max(1 + payload % 3 for m, payload, _ in plan if m == n) for n, _, _ in plan}
                assert contract.budget is not None
                assert contract.budget < sum(most.values()), "a budget that fits, retries aside"
            else:
                assert refusal.reason is Reason.ID_REUSED
                assert refused_id in log
                assert not any((refused_id, payload) == (used, other) for used, other, _ in w.answers)
        for n in range(spent, contract.budget or 0):  # nothing is held for calls that are over
            response = await w.ask(request_id(1000 + n), 3)
            assert isinstance(response, pb.PredictResponse)
            assert response.receipt.spent == n + 1


CALLS = st.tuples(st.integers(0, 4), st.sampled_from([3, 4, 5]), st.none() | st.integers(0, 6))


@settings(max_examples=20)
@given(
    st.none() | st.integers(0, 12), st.sampled_from([(), NOISE, KEYED]), st.sampled_from(["scores", "label"]),
    st.lists(CALLS, max_size=10),
)  # fmt: skip
@example(2, (), "scores", [(0, 3, 2)])  # left, and let go, while its charge is on its way
@example(1, (), "scores", [(0, 3, 2), (0, 3, None)])  # and asked again meanwhile, with all of the budget in that charge
@example(1, (), "scores", [(0, 3, 3), (0, 3, None)])
@example(None, (), "scores", [(0, 5, None), (1, 5, None), (2, 5, None), (2, 5, None)])  # more than a pass takes
def test_any_interleaving_keeps_the_accounts(budget: int | None, defences: Any, access: str, plan: Plan) -> None:
    asyncio.run(check_accounts(Contract(Access(access), budget=budget, defences=defences), plan))


class NothingInFlight(dict[Any, Any]):
    def __setitem__(self, key: object, value: object) -> None:
        pass


class NeverGivesBack(SlowLedger):
    def cancel(self, reservation: Reservation) -> None:
        pass


class KnowsNothing(SlowLedger):
    def known(self, key_id: str, request_id: bytes) -> None:
        return None


async def _charges_later(charging: Any) -> Charge:
    return Charge(1, 1, 1)


async def _charges_a_retry(charging: Any) -> None:
    charging._question = question = replace(charging._question, request_id=np.random.default_rng().bytes(16))
    charging._reservation = charging._ledger.reserve(question.key, question.request_id, len(question.inputs))


def _draws_afresh(defences: Any, seed: tuple[bytes, ...], *keyed: Any) -> Defend:
    return defend(defences, (*seed, np.random.default_rng().bytes(8)), *keyed)


TWICE: Plan = [(1, 3, None), (1, 3, None)]
LATER: Plan = [(1, 3, None), (2, 3, 1)]
BROKEN: dict[str, tuple[type[SqliteLedger], Plan, Callable[[pytest.MonkeyPatch], Spoil]]] = {
    "answers before the charge": (
        SlowLedger,
        TWICE,
        lambda patch: lambda w: patch.setattr(charging_module.Charging, "done", _charges_later),
    ),
    "charges a retry": (
        SlowLedger,
        TWICE,
        lambda patch: lambda w: patch.setattr(charging_module.Charging, "begin", _charges_a_retry),
    ),
    "draws afresh": (
        SlowLedger,
        TWICE,
        lambda patch: lambda w: patch.setattr(answering_module, "defend", _draws_afresh),
    ),
    "does not see what is in flight": (
        SlowLedger,
        TWICE,
        lambda patch: lambda w: patch.setattr(w.answering, "_in_flight", NothingInFlight()),
    ),
    "does not know a retry": (KnowsNothing, TWICE, lambda patch: lambda w: None),
    "keeps what was cancelled": (NeverGivesBack, LATER, lambda patch: lambda w: None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_accounts_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, plan, spoil = BROKEN[name]
    contract = Contract(Access.SCORES, budget=2 if plan is LATER else 1, defences=NOISE)
    asyncio.run(check_accounts(contract, plan))
    with pytest.raises(AssertionError):
        asyncio.run(check_accounts(contract, plan, ledger, spoil(monkeypatch)))


def response_of(outcome: object) -> pb.PredictResponse:
    assert isinstance(outcome, pb.PredictResponse), outcome
    return outcome


def refusal_of(outcome: object) -> Refusal:
    assert isinstance(outcome, Refusal), outcome
    return outcome


def test_a_retry_gives_the_same_answer_after_a_restart_and_no_fresh_draw(tmp_path: Path) -> None:
    contract = Contract(Access.SCORES, budget=4, defences=NOISE)
    first: list[pb.PredictResponse] = []

    async def ask() -> list[pb.PredictResponse]:
        async with world(contract, folder=tmp_path) as w:
            return [response_of(await w.ask(request_id(n), payload=7, rows=2)) for n in (1, 2, 1)]

    for restarted in (False, True):
        one, two, again = asyncio.run(ask())
        first = first or [one, two]
        assert [one.scores, two.scores, again.scores] == [first[0].scores, first[1].scores, first[0].scores]
        assert one.scores != two.scores, "another id is another draw, and another charge"
        charged = [0, 0, 0] if restarted else [2, 2, 0]
        assert [response.receipt.rows_charged for response in (one, two, again)] == charged
        assert [response.receipt.sequence for response in (one, two, again)] == [1, 2, 1]
        assert again.receipt.spent == 4
        assert again.receipt.budget_left == 0


def test_an_id_with_other_bytes_is_refused_whatever_differs() -> None:
    async def scenario() -> None:
        async with world(Contract(Access.SCORES)) as w:
            response_of(await w.ask(request_id(1), payload=7, rows=2))
            for payload, rows in ((8, 2), (7, 1)):
                refusal = refusal_of(await w.ask(request_id(1), payload, rows))
                assert refusal.reason is Reason.ID_REUSED
            assert w.ledger.usage("k").spent == 2

    asyncio.run(scenario())


def test_a_model_that_fails_says_what_was_charged_and_a_retry_is_free_there_too() -> None:
    async def scenario() -> None:
        async with world(Contract(Access.SCORES, budget=10)) as w:
            rows = inputs(1, 3)
            rows[1, 0] = FAILS
            request = pb.PredictRequest(request_id=request_id(1), inputs=encode(rows))
            for charged in (3, 0):
                refusal = refusal_of(await w.send(request))
                assert (refusal.reason, refusal.charged) == (Reason.MODEL_FAILED, charged)
            assert w.ledger.usage("k").spent == 3

    asyncio.run(scenario())


def test_a_ledger_that_cannot_be_written_withholds_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with world(Contract(Access.SCORES, budget=10)) as w:
            w.ledger._writer.execute("PRAGMA query_only = ON")
            refusal = refusal_of(await w.ask(request_id(1), payload=1, rows=10 // 2))
            assert (refusal.reason, refusal.charged) == (Reason.LEDGER_FAILED, 0)
            assert w.model.passes == 1, "the forward pass ran beside the charge, and its result stays here"
            w.ledger._writer.execute("PRAGMA query_only = OFF")
            assert response_of(await w.ask(request_id(1), payload=1, rows=5)).receipt.budget_left == 5

    asyncio.run(scenario())
    assert "the ledger could not be written" in caplog.text
