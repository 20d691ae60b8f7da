"""The filter of used request ids forgets none, whoever adds to it and whatever becomes of the past."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oracle_server.ledger import Entry, Key, SqliteLedger, sqlite
from oracle_server.ledger.seen import Pair, Seen

KEYS = ("a", "b")


def pairs(number: int) -> list[Pair]:
    return [(KEYS[n % 2], secrets.token_bytes(16)) for n in range(number)]


@contextlib.contextmanager
def no_past() -> Iterator[Iterator[list[Pair]]]:
    yield iter([])


@contextlib.contextmanager
def opened(seen: Seen) -> Iterator[Seen]:
    """The filter, once it has read its past."""
    with contextlib.closing(seen):
        ("", b"") in seen  # noqa: B015 - the first question begins it
        assert seen._thread is not None
        seen._thread.join(60)
        yield seen


def share(seen: Seen, others: list[Pair]) -> float:
    """Of pairs that were never added, those that are said to be there."""
    return sum(pair in seen for pair in others) / len(others)


@pytest.mark.parametrize("bits", [4, 10, 20, 27])
def test_what_was_added_is_there(bits: int) -> None:
    added = pairs(3000)
    with opened(Seen(no_past, bits)) as seen:
        assert share(seen, added) == 0.0
        seen.add(added)
        assert all(pair in seen for pair in added)


def test_few_others_are_said_to_be_there() -> None:
    with opened(Seen(no_past, 20)) as seen:
        seen.add(pairs(10_000))
        assert share(seen, pairs(10_000)) < 0.005  # 0.0004 by the formula: (1 - exp(-2n / 2^bits))^2
    with opened(Seen(no_past, 10)) as full:
        full.add(pairs(10_000))
        assert share(full, pairs(1000)) > 0.9, "the negative control: a filter that is full says so of all"


def test_until_the_past_is_read_every_request_may_be_in_it() -> None:
    go, old, new = threading.Event(), pairs(10), pairs(10)

    @contextlib.contextmanager
    def slow() -> Iterator[Iterator[list[Pair]]]:
        go.wait(60)
        yield iter([old[:5], old[5:]])

    with contextlib.closing(Seen(slow)) as seen:
        assert all(pair in seen for pair in old + new)
        go.set()
        assert seen._thread is not None
        seen._thread.join(60)
        assert all(pair in seen for pair in old)
        assert share(seen, new) == 0.0


def test_a_past_that_cannot_be_read_leaves_the_disk_to_be_asked(caplog: pytest.LogCaptureFixture) -> None:
    def portions() -> Iterator[list[Pair]]:
        yield pairs(1)
        raise sqlite3.OperationalError("disk I/O error")

    broken = contextlib.contextmanager(lambda: iter([portions()]))
    with opened(Seen(broken)) as seen:
        assert all(pair in seen for pair in pairs(10))
    assert "could not be read" in caplog.text


def test_it_closes_in_the_middle_of_the_past() -> None:
    endless = contextlib.contextmanager(lambda: iter([iter(lambda: pairs(1), None)]))
    seen = Seen(endless)
    assert pairs(1)[0] in seen
    seen.close()
    assert seen._thread is not None
    assert not seen._thread.is_alive()


def charged(ledger: SqliteLedger, key: Key, number: int) -> list[bytes]:
    ids = [secrets.token_bytes(16) for _ in range(number)]
    for future in [ledger.charge(ledger.reserve(key, request_id, 1), "Predict", bytes(32)) for request_id in ids]:
        future.result(60)
    return ids


def test_a_ledger_knows_each_id_before_and_after_it_has_read_its_log(
    tmp_path: Path, make_key: Callable[..., Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    find = sqlite._find

    def counted(connection: sqlite3.Connection, key_id: str, request_id: bytes) -> Entry | None:
        asked.append(request_id)
        return find(connection, key_id, request_id)

    monkeypatch.setattr(sqlite, "_find", counted)
    monkeypatch.setattr(sqlite, "_IN_A_PORTION", 7)
    key = make_key()
    with contextlib.closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
        ledger.add_key(key)
        old = charged(ledger, key, 50)
    with contextlib.closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
        assert all(ledger.known(key.key_id, request_id) for request_id in old)
        new = charged(ledger, key, 50)
        while not ledger._seen._whole:
            time.sleep(0.001)
        for request_id in old + new:
            entry = ledger.known(key.key_id, request_id)
            assert entry is not None
            assert entry.request_id == request_id
            assert ledger.known("another key", request_id) is None
        asked.clear()
        assert all(ledger.known(key.key_id, secrets.token_bytes(16)) is None for _ in range(1000))
        assert len(asked) <= 1, "a new id does not ask the disk"
