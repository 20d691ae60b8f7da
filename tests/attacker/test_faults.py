"""Faults on the attacker's side: a full disk, files that cannot be written or are damaged, SIGTERM. Each ends the run
in one sentence or leaves it as a kill does, and the same command goes on to the same result.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest

from tests.attacker.conftest import Make
from tests.attacker.kills import Range
from tests.serving import Forker

_LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"  # as of a full disk
_HALF_RECORDS = """
from attacker.journal import Journal
Journal._write = lambda self, data: self._file.write(data)
"""


@pytest.fixture(scope="module")
def place(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Range]:
    with contextlib.closing(Range(forker, tmp_path_factory.mktemp("range"))) as place:
        yield place


@pytest.mark.parametrize("size", [300, 20_100])
def test_a_disk_that_is_full_while_the_journal_is_written(attack: Make, size: int) -> None:
    """In its first record, or half-way through a later one; then there is room again."""
    undisturbed, disturbed = attack("random_draws", name="one"), attack("random_draws", name="two")
    assert undisturbed.finish()[0] == 0
    for _ in range(2):  # a second time on what the first has left
        status, said = disturbed.finish(before=_LIMIT.format(size=size))
        assert status == 1
        journal = disturbed.out / "journal.bin"
        assert (
            said
            == f"Error: {journal} cannot be written (File too large): free space; the same command resumes the run\n"
        )
    status, said = disturbed.finish()
    assert status == 0, said
    assert disturbed.result == undisturbed.result
    assert disturbed.rows == disturbed.caller.usage().spent == undisturbed.rows


def test_a_write_that_nobody_checks_leaves_half_a_record(attack: Make) -> None:
    """The control. Were there room again before the next one, that would follow the half, and the file be corrupt."""
    broken = attack("random_draws")
    before = _LIMIT.format(size=20_050) + _HALF_RECORDS + "resource.setrlimit = None"
    assert broken.finish(before=before)[0] == 1
    size = broken.journaled
    assert size == 20_050  # half a record; whole ones end elsewhere


@pytest.mark.parametrize(
    ("method", "file"), [("inversion_network", "training.pt"), ("adversarial", "reconstructions.npz")]
)
def test_a_disk_that_is_full_while_something_else_is_written(place: Range, method: str, file: str) -> None:
    undisturbed, disturbed = place.attack(method, f"{file}-1"), place.attack(method, f"{file}-2")
    assert undisturbed.finish()[0] == 0
    size = (undisturbed.out / file).stat().st_size - 1
    status, said = disturbed.finish(before=_LIMIT.format(size=size))
    assert status == 1
    assert said == "Error: [Errno 27] File too large: free space; the same command resumes\n"
    assert disturbed.finish()[0] == 0
    assert disturbed.result == undisturbed.result
    assert disturbed.said == undisturbed.said


def test_a_journal_that_cannot_be_opened(attack: Make) -> None:
    run = attack("random_draws")
    (run.out / "journal.bin").mkdir(parents=True)
    status, said = run.finish()
    assert status == 1
    place = run.out / "journal.bin"
    assert said == f"Error: {place} cannot be opened to write (Is a directory): change that, or choose another --out\n"
    assert run.caller.usage().spent == 0


def test_a_checkpoint_that_somebody_damaged(place: Range) -> None:
    """A kill never leaves one, since it is replaced whole; so it is not silently trained again."""
    undisturbed, damaged = (place.attack("inversion_network", name) for name in ("whole", "damaged"))
    for run in (undisturbed, damaged):
        assert run.finish()[0] == 0
    (damaged.out / "run.json").unlink()
    checkpoint = damaged.out / "training.pt"
    whole = checkpoint.read_bytes()
    for data in (b"", whole[: len(whole) // 2]):
        checkpoint.write_bytes(data)
        status, said = damaged.finish()
        assert status == 1
        sentence = "is damaged: restore it from a copy, or delete it, and the training starts again"
        assert said == f"Error: {checkpoint} {sentence}\n"
    checkpoint.unlink()
    assert damaged.finish()[0] == 0
    assert damaged.result == undisturbed.result
    assert damaged.rows == damaged.caller.usage().spent == undisturbed.rows


def test_sigterm_ends_it_like_a_kill(attack: Make) -> None:
    ended = attack("random_draws", rate=1500.0)
    assert ended.kill_at(30_000, signal.SIGTERM).status == -signal.SIGTERM
    assert ended.finish()[0] == 0
    assert ended.rows == ended.caller.usage().spent == 3000
