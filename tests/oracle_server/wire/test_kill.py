"""The server killed with SIGKILL under load from eight keys; the long series is in `benchmarks.faults`."""

from __future__ import annotations

import pytest

from tests.fixtures import Start
from tests.kills import MODELS, kill_series

KILLS = 12
# An answer leaves before its charge is on disk.
EARLY = """
import threading
from concurrent.futures import Future
from oracle_server.ledger import Charge, SqliteLedger

durable = SqliteLedger.charge

def charge(self, reservation, rpc, digest):
    threading.Timer(0.05, lambda: durable(self, reservation, rpc, digest)).start()
    early = Future()
    early.set_result(Charge(reservation.rows, reservation.rows, 1))
    return early

SqliteLedger.charge = charge
"""


@pytest.mark.slow
def test_kills_under_load(start: Start) -> None:
    outcome = kill_series(start(*MODELS), KILLS)
    assert not outcome.violations
    assert outcome.recovered > 0, "no kill came between a charge and its answer"
    assert min(outcome.answered, outcome.asked_again, outcome.budget_refusals, outcome.downloads) > 0


def test_answers_that_leave_before_their_charge_are_caught(start: Start) -> None:
    outcome = kill_series(start(*MODELS, before=EARLY), 2, before=EARLY)
    assert any("an acknowledged answer is not in the ledger" in sentence for sentence in outcome.violations)
