"""The ledger's file: who may open it, what it keeps, what a retry is, what happens when it cannot be written."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from oracle_server.errors import Reason, Refusal
from oracle_server.ledger import Charge, Flag, Key, LedgerError, LedgerLocked, SqliteLedger, Usage
from oracle_server.ledger import keys as keys_module
from oracle_server.ledger.sqlite import SCHEMA
from oracle_server.ledger.verify import verify

MakeKey = Callable[..., Key]


def charge(
    ledger: SqliteLedger, key: Key, request_id: bytes, rows: int = 1, digest: bytes = b"d", rpc: str = "Predict"
) -> Charge:
    return ledger.charge(ledger.reserve(key, request_id, rows), rpc, digest).result(timeout=60)


def refusal(call: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call()
    return caught.value


def test_a_retry_is_free_and_other_bytes_are_refused(ledger: SqliteLedger, make_key: MakeKey) -> None:
    key = make_key(budget=10)
    ledger.add_key(key)
    first = charge(ledger, key, b"one", 3)
    assert (first.rows, first.spent) == (3, 3)
    second = charge(ledger, key, b"two", 2)
    assert (second.spent, second.sequence) == (5, first.sequence + 1)
    assert charge(ledger, key, b"one", 3) == Charge(0, 5, first.sequence, first.head)
    assert refusal(lambda: charge(ledger, key, b"one", 3, b"other bytes")).reason is Reason.ID_REUSED
    assert refusal(lambda: charge(ledger, replace(key, model="m/2"), b"one", 3)).reason is Reason.ID_REUSED
    entry = ledger.known("k", b"one")
    assert entry is not None
    assert (entry.rows, entry.model, entry.digest, entry.rpc) == (3, "m/1", b"d", "Predict")
    assert ledger.known("k", b"three") is None
    assert ledger.usage("k") == Usage(spent=5, downloads=0)
    assert charge(ledger, key, b"rest", 5).spent == 10, "neither retries nor refusals hold rows back"


def test_an_id_belongs_to_its_key(ledger: SqliteLedger, make_key: MakeKey) -> None:
    for name in "ab":
        ledger.add_key(make_key(name))
        assert charge(ledger, make_key(name), b"one", 2).rows == 2
    assert [(entry.key_id, entry.rows) for entry in ledger.entries()] == [("a", 2), ("b", 2)]


def test_two_callers_with_one_id_are_charged_once(ledger: SqliteLedger, make_key: MakeKey) -> None:
    key = make_key(budget=100)
    ledger.add_key(key)
    reservations = [ledger.reserve(key, b"one", 5) for _ in range(20)]
    futures = [ledger.charge(reservation, "Predict", b"d") for reservation in reservations]
    assert sorted(future.result(timeout=60).rows for future in futures) == [0] * 19 + [5]
    assert charge(ledger, key, b"two", 95).spent == 100


def test_downloads_are_counted_apart(ledger: SqliteLedger, make_key: MakeKey) -> None:
    ledger.add_key(make_key(access="weights", budget=0))
    charge(ledger, make_key(access="weights", budget=0), b"one", 0, rpc="Download")
    assert ledger.usage("k") == Usage(spent=0, downloads=1)
    with pytest.raises(KeyError):
        ledger.usage("nobody")


def test_keys_survive_a_restart(tmp_path: Path, make_key: MakeKey) -> None:
    defences = (("gaussian_noise", (("sigma", 0.1),)),)
    scores = make_key("b", top_k=3, round_to=0.1, defences=defences, budget=7, rate=2.5, expires=1e9)
    keys = [replace(scores, label="Ada", secret_sha256=b"h" * 32, created=2.0), replace(make_key("a"), created=5.0)]
    with closing(SqliteLedger(tmp_path / "l.db")) as ledger:
        for key in reversed(keys):
            ledger.add_key(key)
        assert ledger.revoke("a", 10.0)
        assert ledger.revoke("a", 20.0), "and keeps the first time"
        assert not ledger.revoke("nobody", 10.0)
        charge(ledger, scores, b"one", 4)
        secret = ledger.server_secret
    with closing(SqliteLedger(tmp_path / "l.db")) as ledger:
        assert ledger.all_keys() == [keys[0], replace(keys[1], revoked=10.0)], "by age"
        assert ledger.key("b") == keys[0]
        assert ledger.key("nobody") is None
        assert ledger.server_secret == secret
        assert len(secret) == 32
        assert refusal(lambda: ledger.reserve(scores, b"two", 4)).figures["left"] == 3
        entry = ledger.known("b", b"one")
        assert entry is not None, "so that its retry needs no budget"
        assert (entry.rows, entry.digest) == (4, b"d")
    with closing(SqliteLedger(tmp_path / "other.db")) as ledger:
        assert ledger.server_secret != secret


def test_the_log_is_read_in_pages(ledger: SqliteLedger, make_key: MakeKey) -> None:
    ledger.add_key(make_key())
    for n in range(5):
        charge(ledger, make_key(), b"%d" % n)
    assert [entry.sequence for entry in ledger.entries(limit=2)] == [1, 2]
    assert [entry.sequence for entry in ledger.entries(after=2, limit=10)] == [3, 4, 5]
    assert list(ledger.entries(after=5)) == []


def test_only_the_owner_may_read_it_and_a_charge_is_flushed(tmp_path: Path, make_key: MakeKey) -> None:
    with closing(SqliteLedger(tmp_path / "deep" / "l.db")) as ledger:
        ledger.add_key(make_key())
        charge(ledger, make_key(), b"one")
        for path in (tmp_path / "deep").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path.name
        assert stat.S_IMODE((tmp_path / "deep" / "l.db").stat().st_mode) == 0o600
        full = 2  # the write-ahead log reaches the disk with every commit
        assert ledger._writer.execute("PRAGMA synchronous").fetchone() == (full,)


def test_a_second_opener_is_refused(tmp_path: Path, make_key: MakeKey) -> None:
    """In this process; `test_ledger_charges.py` tries it from another."""
    with closing(SqliteLedger(tmp_path / "l.db")) as ledger:
        ledger.add_key(make_key())
        with pytest.raises(LedgerLocked, match="in use by another server: stop that one, or choose another --root"):
            SqliteLedger(tmp_path / "l.db")
        assert charge(ledger, make_key(), b"one").rows == 1
    SqliteLedger(tmp_path / "l.db").close()


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    SqliteLedger(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
        connection.execute("ALTER TABLE keys RENAME TO keyring")
        connection.commit()
    sentence = f"has schema {SCHEMA + 1} and this version reads up to {SCHEMA}: install the mirage-range that wrote it"
    for _ in range(2):  # the refused opener holds no lock
        with pytest.raises(LedgerError, match=sentence) as caught:
            SqliteLedger(path)
        assert type(caught.value) is LedgerError
    with closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert "keyring" in tables
    assert "keys" not in tables


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _file_as_folder(path: Path) -> Path:
    path.touch()
    return path / "l.db"


def _no_database(path: Path) -> Path:
    path.write_bytes(b"no database " * 100)
    return path


@pytest.mark.parametrize("make", [_folder, _file_as_folder, _no_database])
def test_a_ledger_that_cannot_be_opened_says_what_to_do(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path / "l")
    for _ in range(2):
        with pytest.raises(
            LedgerError, match=r"cannot use the ledger .*: .*; check the disk and the file's permissions"
        ):
            SqliteLedger(path)


READ_ONLY = ("PRAGMA query_only = ON", "PRAGMA query_only = OFF")
DISK_FULL = ("PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1000000")


@pytest.mark.parametrize(("fail", "repair"), [READ_ONLY, DISK_FULL])
def test_a_ledger_that_cannot_be_written_charges_nothing(
    fail: str, repair: str, tmp_path: Path, make_key: MakeKey, caplog: pytest.LogCaptureFixture
) -> None:
    key, large = make_key(budget=10), b"x" * 100_000  # more than the pages that are there
    with closing(SqliteLedger(tmp_path / "l.db")) as ledger:
        ledger.add_key(key)
        charge(ledger, key, b"one", 4)
        ledger._writer.execute(fail)
        for _ in range(3):
            refused = refusal(lambda: charge(ledger, key, large, 6))
            assert (refused.reason, refused.charged) == (Reason.LEDGER_FAILED, 0)
            assert refused.sentence == "the ledger could not be written, nothing was charged: tell the operator"
        assert "could not be written" in caplog.text
        assert ledger.usage("k").spent == 4
        assert len(list(ledger.entries())) == 1
        ledger._writer.execute(repair)
        assert charge(ledger, key, large, 6).spent == 10, "the failed charges hold nothing back"
    verdict = verify(tmp_path / "l.db", tmp_path / "audit.key")
    assert (verdict.lines, verdict.findings) == (2, ()), "nor do they leave a mark on the chain"


@pytest.mark.parametrize("change", ["add_key", "revoke", "set_budget", "rotate", "reinstate"])
def test_a_change_that_cannot_be_written_changes_nothing(
    change: str, ledger: SqliteLedger, make_key: MakeKey, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.add_key(make_key(budget=10))
    ledger.flag(Flag("k", "distances", "suspend", 1, 0.0))
    before = (ledger.all_keys(), ledger.flags("k"))
    words = {
        "add_key": (make_key("other"),), "revoke": ("k", 1.0), "set_budget": ("k", 20),
        "rotate": ("k", bytes(32), 1e12), "reinstate": ("k", 1.0),
    }  # fmt: skip
    ledger._reader.execute("PRAGMA query_only = ON")
    refused = refusal(lambda: getattr(ledger, change)(*words[change]))
    ledger._reader.execute("PRAGMA query_only = OFF")
    assert refused.reason is Reason.LEDGER_FAILED
    assert (
        refused.sentence == "the ledger could not be written, nothing was changed: check the disk and the server's log"
    )
    assert "readonly" in caplog.text
    assert (ledger.all_keys(), ledger.flags("k")) == before
    assert ledger.reserve(make_key(), b"one", 10).rows == 10
    getattr(ledger, change)(*words[change])
    assert (ledger.all_keys(), ledger.flags("k")) != before


def test_closing_finishes_what_was_queued(tmp_path: Path, make_key: MakeKey) -> None:
    ledger = SqliteLedger(tmp_path / "l.db")
    ledger.add_key(make_key())
    futures = [ledger.charge(ledger.reserve(make_key(), b"%d" % n, 1), "Predict", b"d") for n in range(300)]
    ledger.close()
    assert [future.result(timeout=0).spent for future in futures] == list(range(1, 301))
    ledger.close()


def test_keys_are_remembered_up_to_a_number_and_as_they_are(
    ledger: SqliteLedger, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "_MOST_KEYS", 3)
    for n in range(5):
        ledger.add_key(replace(make_key(), key_id=f"k{n}"))
    for _ in range(2):
        assert [key.key_id for n in range(5) if (key := ledger.key(f"k{n}"))] == [f"k{n}" for n in range(5)]
        assert len(ledger._known_keys) == 3
    assert ledger.key("k4") is ledger.key("k4")
    assert ledger.revoke("k4", 7.0)
    assert (key := ledger.key("k4")) is not None
    assert key.revoked == 7.0
