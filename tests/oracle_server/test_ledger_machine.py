"""The ledger and the guard under any sequence of what happens to them; the long run is in `benchmarks.faults`."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from oracle_server.ledger import SqliteLedger
from tests.broken_ledgers import BROKEN, is_caught
from tests.ledger_machine import SETTINGS, LedgerMachine


def test_the_ledger_agrees_with_its_reference() -> None:
    run_state_machine_as_test(LedgerMachine, settings=settings(SETTINGS, max_examples=60))


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_ledger_is_caught(broken: type[SqliteLedger]) -> None:
    assert is_caught(broken)
