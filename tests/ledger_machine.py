"""Any sequence of what happens to a ledger, against a reference of ten lines.

Keys with and without budgets and dates ask, retry, ask under used ids, leave, are revoked and get other budgets; calls
are in flight beside each other; the clock moves and jumps; the server is killed, also with charges on their way. The
guard stands before the ledger as it does in the server.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from oracle_server import guard
from oracle_server.errors import Reason, Refusal
from oracle_server.guard import Guard, new_token
from oracle_server.ledger import Charge, Key, Reservation, SqliteLedger
from oracle_server.threat_model import Access, Contract

__all__ = ["SETTINGS", "LedgerMachine", "Reference", "ledger_machine"]

SETTINGS = settings(stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
START = 1_000_000.0  # of the machine's clock, in Unix seconds
IDS = st.sampled_from([b"a", b"b", b"c"])
ROWS = st.integers(0, 4)
BYTES = st.sampled_from([b"x", b"x", b"y"])
BUDGETS = st.none() | st.integers(0, 9)


class Reference:
    """What a ledger is: rows held of each key, and what was charged under each id."""

    def __init__(self) -> None:
        self.budgets: dict[str, int | None] = {}
        self.held: Counter[str] = Counter()
        self.log: dict[tuple[str, bytes], tuple[int, bytes]] = {}

    def spent(self, key: str) -> int:
        return sum(rows for (owner, _), (rows, _) in self.log.items() if owner == key)

    def fits(self, key: str, rows: int) -> bool:
        budget = self.budgets[key]
        return budget is None or self.spent(key) + self.held[key] + rows <= budget

    def charge(self, key: str, request_id: bytes, rows: int, digest: bytes) -> int | Reason:
        """Rows that are charged now, of rows that were held."""
        self.held[key] -= rows
        if (before := self.log.get((key, request_id))) is not None:
            return 0 if before[1] == digest else Reason.ID_REUSED
        self.log[key, request_id] = rows, digest
        return rows


class LedgerMachine(RuleBasedStateMachine):
    """Rules and what must hold after each; `kind` is the ledger that is tested."""

    kind: ClassVar[type[SqliteLedger]] = SqliteLedger
    examples: ClassVar[int] = 0  # that ran to their end

    keys = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ml"))
        self.wall = self.monotonic = START
        times = SimpleNamespace(time=lambda: self.wall, monotonic=lambda: self.monotonic)
        self.patch = mock.patch.object(guard, "time", times)
        self.patch.start()
        self.reference = Reference()
        self.expires: dict[str, float | None] = {}
        self.revoked: set[str] = set()
        self.flight: list[tuple[Reservation, bytes]] = []
        self.sequences: dict[tuple[str, bytes], int] = {}  # as they were acknowledged
        self.open()

    def open(self) -> None:
        self.ledger = self.kind(self.folder / "l.db")
        self.guard = Guard(self.ledger)
        self.start = self.wall, self.monotonic

    def teardown(self) -> None:
        self.patch.stop()
        self.ledger.close()
        shutil.rmtree(self.folder)
        type(self).examples += 1

    # Keys

    @initialize(target=keys, budget=BUDGETS)
    def first_key(self, budget: int | None) -> tuple[str, str]:
        return self.add_key(budget, None)

    @rule(target=keys, budget=BUDGETS, life=st.none() | st.floats(1, 50))
    def new_key(self, budget: int | None, life: float | None) -> tuple[str, str]:
        return self.add_key(budget, life)

    def add_key(self, budget: int | None, life: float | None) -> tuple[str, str]:
        token, key_id, secret_sha256 = new_token()
        expires = None if life is None else self.wall + life
        contract = Contract(Access.SCORES, budget=budget, expires=expires)
        self.ledger.add_key(Key(key_id, "", "m/1", contract, secret_sha256, self.wall))
        self.reference.budgets[key_id], self.expires[key_id] = budget, expires
        return token, key_id

    @rule(key=keys)
    def revoke(self, key: tuple[str, str]) -> None:
        assert self.ledger.revoke(key[1], self.wall)
        self.revoked.add(key[1])

    @rule(key=keys, budget=BUDGETS)
    def change_budget(self, key: tuple[str, str], budget: int | None) -> None:
        taken = self.reference.spent(key[1]) + self.reference.held[key[1]]
        if budget is not None and budget < taken:
            assert _refused(lambda: self.ledger.set_budget(key[1], budget)) is Reason.BAD_CONTRACT
        else:
            assert self.ledger.set_budget(key[1], budget)
            self.reference.budgets[key[1]] = budget

    # Calls

    def enter(self, key: tuple[str, str]) -> Key | None:
        """The key as the guard lets it in, or None where it is refused, as it has to be."""
        wall, monotonic = self.start
        now, expires = max(self.wall, wall + self.monotonic - monotonic), self.expires[key[1]]
        expected = (
            Reason.KEY_REVOKED
            if key[1] in self.revoked
            else Reason.KEY_EXPIRED
            if expires is not None and now >= expires
            else None
        )
        metadata = (("authorization", f"Bearer {key[0]}"),)
        context: Any = SimpleNamespace(invocation_metadata=lambda: metadata)
        found: list[Key] = []
        assert _refused(lambda: found.append(self.guard._authenticate(context))) is expected
        return found[0] if found else None

    @rule(key=keys, request_id=IDS, rows=ROWS, data=BYTES)
    def begin(self, key: tuple[str, str], request_id: bytes, rows: int, data: bytes) -> None:
        """A call passes the guard and holds its rows; a retry that is known needs none."""
        admitted = self.enter(key)
        if admitted is None:
            return
        digest = b"%d" % rows + data  # rows are part of the bytes
        known = self.ledger.known(key[1], request_id)
        before = self.reference.log.get((key[1], request_id))
        assert (None if known is None else (known.rows, known.digest)) == before
        if not self.reference.fits(key[1], rows):
            assert _refused(lambda: self.ledger.reserve(admitted, request_id, rows)) is Reason.BUDGET_SPENT
            return
        self.flight.append((self._reserve(admitted, request_id, rows), digest))
        self.reference.held[key[1]] += rows

    @rule(key=keys, request_id=IDS, rows=ROWS, data=BYTES)
    def ask(self, key: tuple[str, str], request_id: bytes, rows: int, data: bytes) -> None:
        """A call from its beginning to its end."""
        before = len(self.flight)
        self.begin(key, request_id, rows, data)
        if len(self.flight) > before:
            self.land([self.flight.pop()])

    @rule(key=keys, ids=st.tuples(IDS, IDS), rows=st.tuples(ROWS, ROWS), data=st.tuples(BYTES, BYTES))
    def beside(
        self, key: tuple[str, str], ids: tuple[bytes, bytes], rows: tuple[int, int], data: tuple[bytes, bytes]
    ) -> None:
        """Two calls of one key beside each other, at times under one id."""
        for number in (0, 1):
            self.begin(key, ids[number], rows[number], data[number])

    @rule(backwards=st.booleans())
    def finish(self, backwards: bool) -> None:
        """All that is in flight is charged, in one commit or several."""
        flight, self.flight = self.flight[:: -1 if backwards else 1], []
        self.land(flight)

    @rule()
    def leave(self) -> None:
        """The caller that waited longest leaves."""
        for reservation, _ in self.flight[:1]:
            self.ledger.cancel(reservation)
            self.reference.held[reservation.key_id] -= reservation.rows
        del self.flight[:1]

    def land(self, flight: list[tuple[Reservation, bytes]]) -> None:
        futures = [(r, digest, self.ledger.charge(r, "Predict", digest)) for r, digest in flight]
        for reservation, digest, future in futures:
            self._acknowledged(reservation, digest, future)

    def _acknowledged(self, reservation: Reservation, digest: bytes, future: Future[Charge]) -> None:
        key, request_id = reservation.key_id, reservation.request_id
        expected = self.reference.charge(key, request_id, reservation.rows, digest)
        charges: list[Charge] = []
        reason = _refused(lambda: charges.append(future.result(timeout=60)))
        if isinstance(expected, Reason):
            assert reason is expected
            return
        assert reason is None
        assert (charges[0].rows, charges[0].spent) == (expected, self.reference.spent(key))
        assert self.sequences.setdefault((key, request_id), charges[0].sequence) == charges[0].sequence

    def _reserve(self, key: Key, request_id: bytes, rows: int) -> Reservation:
        found: list[Reservation] = []
        assert _refused(lambda: found.append(self.ledger.reserve(key, request_id, rows))) is None
        return found[0]

    # The world

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    @rule(seconds=st.floats(-100, 100))
    def clock_jumps(self, seconds: float) -> None:
        self.wall += seconds

    @rule()
    def restart(self) -> None:
        """An orderly one: what is in flight is charged before the end."""
        self.finish(backwards=False)
        self.ledger.close()
        self.open()

    @rule(landed=st.booleans())
    def crash(self, landed: bool) -> None:
        """Nothing is closed: the files are as they lie. What was in flight is on the disk already, or it is gone."""
        if landed:
            self.finish(backwards=False)
        self.flight.clear()
        self.reference.held.clear()
        left = {path: path.read_bytes() for path in self.folder.iterdir() if path.suffix not in (".lock", ".db-shm")}
        self.ledger.close()
        for path in self.folder.iterdir():
            if path not in left and path.suffix != ".lock":
                path.unlink()
        for path, data in left.items():
            path.write_bytes(data)  # in place: it is the same file still
        self.open()

    @invariant()
    def holds(self) -> None:
        log = list(self.ledger.entries())
        assert {(e.key_id, e.request_id): (e.rows, e.digest) for e in log} == self.reference.log
        assert len(log) == len(self.reference.log), "an id is charged twice"
        for entry in log:
            pair = entry.key_id, entry.request_id
            assert self.sequences.get(pair, entry.sequence) == entry.sequence, "a place in the log has changed"
        for key_id, budget in self.reference.budgets.items():
            spent = self.ledger.usage(key_id).spent
            assert spent == self.reference.spent(key_id), "the key's row and the log differ"
            assert budget is None or spent <= budget
            key = self.ledger.key(key_id)
            assert key is not None
            assert (key.contract.budget, key.revoked is not None) == (budget, key_id in self.revoked)


def ledger_machine(tested: type[SqliteLedger]) -> type[LedgerMachine]:
    """A machine for another ledger, with a count of its own."""
    return type(f"MachineOf{tested.__name__}", (LedgerMachine,), {"kind": tested, "examples": 0})


def _refused(call: Callable[[], object]) -> Reason | None:
    try:
        call()
    except Refusal as refusal:
        return refusal.reason
    return None
