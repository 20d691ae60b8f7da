"""The journal: what was written before a crash is there after it, and nothing else passes for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attacker.journal import Journal, JournalError

RUN: dict[str, Any] = {"method": "numeric", "seed": 0, "targets": (0, 1), "contract": {"access": "scores", "x": ()}}
ANSWERS = {0: b"first", 1: b"", 2: bytes(range(256)), 3: b"last"}


def digest(sequence: int) -> bytes:
    return bytes([sequence]) * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with four answers, and a fifth request that was on its way when its process died."""
    path = tmp_path / "journal.bin"
    journal = Journal(path, RUN)
    for sequence, answer in ANSWERS.items():
        journal.intend(sequence, digest(sequence))
        journal.record(sequence, answer)
    journal.intend(4, digest(4))
    journal.close()
    return path


def reopened(path: Path, run: dict[str, Any] = RUN) -> tuple[str, dict[int, bytes | None]]:
    """Nonce and answers of a journal that is opened and closed again."""
    journal = Journal(path, run)
    try:
        return journal.nonce, {sequence: journal.answer(sequence) for sequence in range(6)}
    finally:
        journal.close()


def assert_refused(path: Path, sentence: str, run: dict[str, Any] = RUN) -> None:
    """The file is refused with this sentence and left as it is."""
    before = path.read_bytes()
    with pytest.raises(JournalError) as caught:
        Journal(path, run)
    assert str(caught.value) == sentence.format(path=path)
    assert path.read_bytes() == before


def test_what_was_written_is_there(path: Path) -> None:
    nonce, answers = reopened(path)
    assert answers == {**ANSWERS, 4: None, 5: None}
    assert reopened(path) == (nonce, answers)


def test_it_goes_on_where_it_stopped(path: Path) -> None:
    journal = Journal(path, RUN)
    for sequence in range(5):
        journal.intend(sequence, digest(sequence))  # the method begins at its first line again
    journal.record(4, b"fifth")
    journal.close()
    assert reopened(path)[1] == {**ANSWERS, 4: b"fifth", 5: None}


def test_two_runs_never_share_ids(tmp_path: Path) -> None:
    nonces = {reopened(tmp_path / f"{n}.bin")[0] for n in range(20)}
    assert len(nonces) == 20


def test_cut_short_anywhere(path: Path, tmp_path: Path) -> None:
    """A process may die at any byte: the last record is dropped, those before it stay, the file is good again."""
    data = path.read_bytes()
    nonce, answers = reopened(path)
    lost = []
    for size in range(len(data)):
        torn = tmp_path / "torn.bin"
        torn.write_bytes(data[:size])
        kept_nonce, kept = reopened(torn)
        known = {sequence: answer for sequence, answer in kept.items() if answer is not None}
        assert known.items() <= answers.items()
        assert list(known) == list(range(len(known)))
        lost.append(len(ANSWERS) - len(known))
        assert kept_nonce == nonce or not known
        journal = Journal(torn, RUN)
        journal.intend(5, digest(5))
        journal.record(5, b"new")
        journal.close()
        assert reopened(torn) == (kept_nonce, {**kept, 5: b"new"})
    assert sorted(lost, reverse=True) == lost
    assert lost[-1] == 0  # the torn intent alone costs no answer


def test_any_changed_byte_is_noticed(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    for place in range(len(data)):
        for flip in (0x01, 0x80):
            changed = bytearray(data)
            changed[place] ^= flip
            other = tmp_path / "changed.bin"
            other.write_bytes(changed)
            with pytest.raises(JournalError, match=r"is corrupt at byte|is no journal of this version"):
                Journal(other, RUN)
            assert other.read_bytes() == changed


def test_corrupt_journal_says_what_to_do(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    where = len(data) - 32 - 21  # the last record: a header of 21 bytes and a digest
    assert_refused(
        path,
        f"{{path}} is corrupt at byte {where}: restore it from a copy, or delete it and start again"
        " (what was answered since will be charged again)",
    )


def test_a_file_of_another_kind(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    assert_refused(path, "{path} is no journal of this version: choose another --out")


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "seed": (lambda run: run.update(seed=1), "seed"),
    "method and targets": (lambda run: run.update(method="mi_face", targets=[1, 0]), "method, targets"),
    "contract": (lambda run: run.update(contract={"access": "label"}), "contract"),
    "a new parameter": (lambda run: run.update(parameters={}), "parameters"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_runs_journal(path: Path, name: str) -> None:
    change, differ = CHANGES[name]
    run = dict(RUN)
    change(run)
    sentence = f"{{path}} belongs to another run ({differ} differ): choose another --out, or delete it"
    assert_refused(path, sentence, run)


def test_changed_inputs(path: Path) -> None:
    """The method asks something else than it did the first time: its answers would not be those of this run."""
    journal = Journal(path, RUN)
    journal.intend(0, digest(0))
    with pytest.raises(JournalError) as caught:
        journal.intend(1, digest(2))
    journal.close()
    assert str(caught.value) == (
        f"request 1 differs from the one in {path}: the method, its data or the library changed; choose another --out"
    )


def test_a_journal_in_use(path: Path) -> None:
    journal = Journal(path, RUN)
    assert_refused(path, "{path} is in use by another process: wait for it, or choose another --out")
    journal.record(4, b"mine")
    journal.close()
    assert reopened(path)[1][4] == b"mine"
