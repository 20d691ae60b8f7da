"""The chain over the log: whatever happens to a line is found, and a log that its key does not fit is not continued."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from oracle_server.errors import Reason, Refusal
from oracle_server.ledger import Key, LedgerError, LedgerLocked, SqliteLedger, audit_key_path
from oracle_server.ledger.verify import Verdict, verify

MakeKey = Callable[..., Key]
LINES = 40


@pytest.fixture
def path(tmp_path: Path, make_key: MakeKey) -> Path:
    """A closed ledger with forty lines of two keys, and its audit key."""
    (tmp_path / "kept").mkdir()
    return written(tmp_path / "kept" / "l.db", make_key)


def written(path: Path, make_key: MakeKey, lines: int = LINES) -> Path:
    keys = [make_key("a"), make_key("b")]
    with closing(SqliteLedger(path)) as ledger:
        for key in keys:
            ledger.add_key(key)
        for n in range(lines):
            charge(ledger, keys[n % 2], n)
    return path


def charge(ledger: SqliteLedger, key: Key, n: int) -> tuple[int, bytes]:
    made = ledger.charge(ledger.reserve(key, b"id%d" % n, 1 + n % 3), "Predict", b"digest%d" % n).result(timeout=60)
    return made.sequence, made.head


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def judged(path: Path, *heads: tuple[int, bytes]) -> Verdict:
    return verify(path, audit_key_path(path), heads)


def test_a_whole_log_is_whole_and_its_head_is_the_last_receipts(path: Path, make_key: MakeKey) -> None:
    assert (judged(path).lines, judged(path).findings) == (LINES, ())
    with closing(SqliteLedger(path)) as ledger:
        heads = [charge(ledger, make_key("a"), n) for n in range(LINES, LINES + 3)]
        assert charge(ledger, make_key("a"), LINES) == heads[0], "the receipt of a retry has the head of its line"
        assert judged(path, *heads) == Verdict(LINES + 3, heads[-1], ()), "beside the open ledger too"
    assert len({head for _, head in heads}) == 3


FIELDS = {
    "time": "time + 1e-3", "key_id": "'c'", "rpc": "'Download'", "model": "model || ''''", "request_id": "x'00'",
    "digest": "digest || x'00'", "rows": "rows + 1", "link": "zeroblob(32)", "nothing": "link",
}  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_an_edited_line_is_found(path: Path, field: str) -> None:
    change(path, f"UPDATE log SET {field if field != 'nothing' else 'link'} = {FIELDS[field]} WHERE sequence = 7")
    found = [finding for finding in judged(path).findings if not finding.startswith("key ")]
    expected = ["line 7 is not what was written there: edited, or moved from elsewhere"]
    if field == "link":
        expected.append(expected[0].replace("line 7", "line 8"))
    assert found == ([] if field == "nothing" else expected)


def test_a_letter_that_goes_from_one_field_to_the_next_is_found(path: Path) -> None:
    change(path, "UPDATE log SET model = 'tm/1', rpc = 'Predic' WHERE sequence = 7")
    assert judged(path).findings == ("line 7 is not what was written there: edited, or moved from elsewhere",)


def test_a_head_that_was_never_given_out_is_found(path: Path) -> None:
    """Of another log, or of this one before somebody with the key wrote it anew."""
    assert judged(path, (3, bytes(32))).findings == ("line 3 is not the one whose head was given out",)


def test_removed_and_cut_lines_are_found(path: Path) -> None:
    change(path, "DELETE FROM log WHERE sequence IN (1, 5, 6)")
    assert judged(path).findings[:2] == ("line 1 is missing", "lines 5 to 6 are missing")
    change(path, "DELETE FROM log WHERE sequence > 38")
    assert "lines 39 to 40 are cut off at the end" in judged(path).findings


def test_a_cut_that_hides_well_is_found_by_the_head_or_by_a_receipt(path: Path) -> None:
    """Accounts and counter are made to fit the shorter log; then the head beside the key is taken away, too."""
    receipt = judged(path).head
    cut = ["DELETE FROM log WHERE sequence = 40", "UPDATE sqlite_sequence SET seq = 39 WHERE name = 'log'"]
    change(path, *cut, "UPDATE keys SET spent = (SELECT sum(rows) FROM log WHERE log.key_id = keys.key_id)")
    assert judged(path).findings == ("line 40 is cut off at the end",)
    audit_key_path(path).with_suffix(".head").unlink()
    assert judged(path).findings == (), "nothing is left that could tell"
    assert judged(path, receipt).findings == ("line 40 is cut off at the end",)


def test_lines_that_changed_places_are_found(path: Path) -> None:
    for lines in ((3, 4), (10, 30)):
        one, two = lines
        change(
            path,
            f"UPDATE log SET sequence = 1000 WHERE sequence = {one}",
            f"UPDATE log SET sequence = {one} WHERE sequence = {two}",
            f"UPDATE log SET sequence = {two} WHERE sequence = 1000",
        )
        assert all(any(f.startswith(f"line {n} is not") for f in judged(path).findings) for n in lines)


def test_a_line_more_and_rows_given_back_are_found(path: Path) -> None:
    change(
        path, "INSERT INTO log SELECT 41, time, key_id, rpc, model, x'ff', digest, 0, link FROM log WHERE sequence=40"
    )
    assert judged(path).findings == ("line 41 is not what was written there: edited, or moved from elsewhere",)
    change(path, "DELETE FROM log WHERE sequence = 41", "UPDATE keys SET spent = spent - 1 WHERE key_id = 'a'")
    (finding,) = judged(path).findings
    assert finding.startswith("key a has ")


def test_any_damage_to_a_line_is_found(path: Path, tmp_path: Path) -> None:
    generator = random.Random(0)
    columns = [name for name in FIELDS if name != "nothing"]
    for n in range(30):
        copy = tmp_path / f"{n}" / "l.db"
        shutil.copytree(path.parent, copy.parent)
        column, line = generator.choice(columns), generator.randint(1, LINES)
        change(copy, f"UPDATE log SET {column} = {FIELDS[column]} WHERE sequence = {line}")
        assert judged(copy).findings, (column, line)


def test_a_log_that_was_cut_is_not_continued(path: Path, make_key: MakeKey, caplog: pytest.LogCaptureFixture) -> None:
    change(path, "DELETE FROM log WHERE sequence > 30")
    sentence = r"the log has lost or changed its line 40: see oracle-server audit --verify; serve --adopt-ledger takes"
    with closing(SqliteLedger(path)) as ledger:
        with pytest.raises(LedgerError, match=sentence):
            ledger.open_chain()
        with pytest.raises(Refusal) as refused:
            charge(ledger, make_key("a"), 99)
        assert refused.value.reason is Reason.LEDGER_FAILED
        assert len(list(ledger.entries())) == 30
    with closing(SqliteLedger(path, adopt=True)) as ledger:
        ledger.open_chain()
        assert "adopted the ledger all the same: the log has lost or changed its line 40" in caplog.text
        charge(ledger, make_key("a"), 99)
    assert all(finding.startswith("key ") for finding in judged(path).findings), "what is missing stays missing"
    with closing(SqliteLedger(path)) as ledger:
        ledger.open_chain()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda key: key.unlink(), r"the audit key .* of this ledger is missing: put it back; serve --adopt-ledger"),
        (lambda key: key.write_text("00" * 32), r"the audit key .* is not this ledger's: put the right file back"),
        (lambda key: key.write_text("00" * 31), r"the audit key .* is not 64 hexadecimal digits: put the right file"),
        (lambda key: key.write_text("none"), r"cannot read the audit key .*; put the right file back"),
    ],
)
def test_the_key_must_fit(path: Path, spoil: Callable[[Path], None], sentence: str) -> None:
    key = audit_key_path(path)
    kept = key.read_text()
    spoil(key)
    with closing(SqliteLedger(path)) as ledger, pytest.raises(LedgerError, match=sentence):
        ledger.open_chain()
    key.write_text(kept)
    with closing(SqliteLedger(path)) as ledger:
        ledger.open_chain()


def test_a_ledger_begun_anew_beside_an_old_head_says_so(path: Path, make_key: MakeKey) -> None:
    """Who deletes the ledger does not get fresh budgets without anybody's notice."""
    for name in ("l.db", "l.db-wal", "l.db-shm"):
        path.with_name(name).unlink(missing_ok=True)
    with closing(SqliteLedger(path)) as ledger, pytest.raises(LedgerError, match="belongs to another ledger"):
        ledger.open_chain()
    with closing(SqliteLedger(path, adopt=True)) as ledger:
        ledger.add_key(make_key("a"))
        charge(ledger, make_key("a"), 0)
    assert judged(path).findings == ()


def test_one_key_serves_one_ledger_at_a_time(tmp_path: Path) -> None:
    key = tmp_path / "k" / "audit.key"
    with closing(SqliteLedger(tmp_path / "a.db", key)) as one, closing(SqliteLedger(tmp_path / "b.db", key)) as two:
        one.open_chain()
        with pytest.raises(LedgerLocked, match="in use by another server"):
            two.open_chain()
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.with_suffix(".head").stat().st_mode & 0o777 == 0o600


def test_a_ledger_from_before_there_was_a_chain_gets_one(path: Path, make_key: MakeKey) -> None:
    key = audit_key_path(path)
    change(
        path,
        "ALTER TABLE log DROP COLUMN link",
        "DELETE FROM meta WHERE name IN ('audit_check', 'identity', 'place')",
        "PRAGMA user_version = 1",
    )
    key.unlink()
    key.with_suffix(".head").unlink()
    with closing(SqliteLedger(path)) as ledger:
        assert {entry.link for entry in ledger.entries()} == {b""}
    key.write_text("00" * 32)
    with pytest.raises(LedgerError, match="has no chain yet: it gets one when it is served"):
        judged(path)
    key.unlink()
    with closing(SqliteLedger(path)) as ledger:
        charge(ledger, make_key("b"), 77)
    assert (judged(path).lines, judged(path).findings) == (LINES + 1, ())


# Copies


def test_a_copy_is_no_ledger_until_it_is_adopted(path: Path, tmp_path: Path, make_key: MakeKey) -> None:
    shutil.copytree(path.parent, tmp_path / "copy")
    copy = tmp_path / "copy" / "l.db"
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"is a copy, or was put back from one.*start once with serve --adopt"):
            SqliteLedger(copy)
    assert judged(copy).findings == (), "a copy can be verified"
    SqliteLedger(copy, adopt=True).close()
    SqliteLedger(copy).close()
    moved = path.parent.rename(tmp_path / "moved") / "l.db"
    with closing(SqliteLedger(moved)) as ledger:
        charge(ledger, make_key("a"), 50)


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_ledger_is_held_under_all_its_names(path: Path, tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "l.db"
    link(other, path)
    with closing(SqliteLedger(path)), pytest.raises(LedgerLocked, match="in use by another server"):
        SqliteLedger(other)


def test_who_puts_a_backup_back_is_noticed(path: Path, tmp_path: Path, make_key: MakeKey) -> None:
    """The same file with its old contents: place and lock agree, the head does not."""
    old = path.read_bytes()
    with closing(SqliteLedger(path)) as ledger:
        charge(ledger, make_key("a"), 60)
    with path.open("r+b") as file:
        file.write(old)
        file.truncate()
    for name in ("l.db-wal", "l.db-shm"):
        path.with_name(name).unlink(missing_ok=True)
    with closing(SqliteLedger(path)) as ledger, pytest.raises(LedgerError, match="lost or changed its line 41"):
        ledger.open_chain()
