"""The disk full, the ledger not writable, archives damaged: who is told what, what is charged, who is served still."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from oracle_server.ledger import SqliteLedger
from oracle_server.operator import ledger_path
from tests.fixtures import Start
from tests.hosted import plant
from tests.serving import Caller, Forker, Server, assert_refused, inputs, new_root, refused

NOT_WRITTEN = "the ledger could not be written, nothing was charged: tell the operator"
Fill = Callable[[bool], None]


def damaged(model: str) -> str:
    return f"the files of the model {model} are damaged on the server: tell the operator"


@pytest.fixture(params=["disk", "limit"])
def full(
    request: pytest.FixtureRequest, forker: Forker, models: Path
) -> Iterator[tuple[Server, Callable[[bool], None]]]:
    """A server, and what makes its disk full, or not full any more. `disk`: a file system of 8 MiB with a large file in
    it. `limit`: no file of the process may grow, which needs no rights.
    """
    with contextlib.ExitStack() as stack:
        root = new_root(models, "linear", "other")
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        if request.param == "disk":
            small = Path(tempfile.mkdtemp(prefix="mr"))
            stack.callback(small.rmdir)
            words = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(small)]
            if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
                pytest.skip("a small file system cannot be mounted here: that takes root, and a mount command")
            stack.callback(subprocess.run, ["umount", str(small)], check=True)
            shutil.copytree(root, small, dirs_exist_ok=True)
            root = small
        server = Server(forker, root)
        stack.callback(server.kill)

        def fill(whether: bool) -> None:
            if request.param == "limit":
                log = ledger_path(root).with_name("ledger.db-wal")
                most = log.stat().st_size if whether else resource.RLIM_INFINITY
                resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
            elif whether:
                with contextlib.suppress(OSError), (root / "large").open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))
            else:
                (root / "large").unlink()

        yield server, fill


def told_not_written(caller: Caller) -> bool:
    """Whether a call is refused for the ledger's sake, which costs nothing; otherwise it is answered and charged."""
    try:
        caller.predict(inputs(1))
    except grpc.RpcError as error:
        told = refused(error)
        assert (told.code, told.reason, told.sentence, told.rows_charged) == (
            "INTERNAL",
            "LEDGER_FAILED",
            NOT_WRITTEN,
            0,
        )
        return True
    return False


def test_full_disk(full: tuple[Server, Fill]) -> None:
    """What does not fit into the ledger is not answered; reading goes on; there is nothing to do but to make room."""
    server, fill = full
    caller, other = server.new_key(budget=100_000), server.new_key("weights", model="other")
    caller.predict(inputs(1))
    fill(True)
    answered = 1
    while not told_not_written(caller):
        answered += 1  # into what was left of the file
        assert answered < 20_000, "the disk is not full"
    for _ in range(3):
        assert told_not_written(caller)
    with pytest.raises(grpc.RpcError) as caught:
        list(other.download())
    assert refused(caught.value).reason == "LEDGER_FAILED"
    for key in (caller, other):
        assert key.describe().card.name in ("linear", "other")
        assert key.usage().spent == (answered if key is caller else 0)
    assert server.books().logged == answered
    assert server.process.poll() is None
    fill(False)
    assert caller.predict(inputs(2)).receipt.spent == answered + 2, "failed charges hold rows back"
    assert list(other.download())
    assert (server.books().logged, server.books().downloads) == (answered + 2, {other.key_id: 1})


def test_ledger_that_turns_read_only_while_it_is_served(start: Start) -> None:
    """Not a byte can be written any more, as on a file system that was remounted after an error."""
    server = start("linear", "other")
    caller, other = server.new_key(), server.new_key(model="other")
    wide = inputs(3, shape=(1, 64, 64))
    caller.predict(inputs(3))
    other.predict(wide)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    for call in (lambda: caller.predict(inputs(3)), lambda: other.predict(wide)):
        assert_refused(server, call, "INTERNAL", "LEDGER_FAILED", NOT_WRITTEN)
    assert (caller.usage().spent, other.usage().spent) == (3, 3)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert caller.predict(inputs(3)).receipt.spent == other.predict(wide).receipt.spent == 6


def test_ledger_that_is_read_only_at_the_start(forker: Forker, root: Path) -> None:
    SqliteLedger(ledger_path(root)).close()
    root.chmod(0o755)
    for path in (root / "ledger.lock", root / "audit.head", root / "audit.key"):
        path.touch()
    ledger_path(root).chmod(0o444)
    nobody = "import os; os.setuid(65534)" if os.geteuid() == 0 else ""  # root writes whatever the mode says
    words = ["serve", "--root", root, "--port", "0", "--device", "cpu"]
    process = forker.start("oracle_server", words, log=root / "server.log", before=nobody)
    assert process.wait() == 1
    assert process.log.startswith("Error: cannot use the ledger ")
    assert process.log.endswith("; check the disk and the file's permissions\n")
    assert "ermission denied" in process.log
    assert not (root / "server.json").exists()


def _another(folder: Path, models: Path) -> None:
    shutil.copy(models / "models" / "fails" / "1" / "model.pt2", folder)


def _cut(folder: Path, models: Path) -> None:
    os.truncate(folder / "model.pt2", 1000)


def _gone(folder: Path, models: Path) -> None:
    (folder / "model.pt2").unlink()


def _card(folder: Path, models: Path) -> None:
    os.truncate(folder / "card.json", 100)


def _vouched(folder: Path, archive: bytes) -> None:
    card = (folder / "card.json").read_text()
    before = hashlib.sha256((folder / "model.pt2").read_bytes()).hexdigest()
    (folder / "model.pt2").write_bytes(archive)
    (folder / "card.json").write_text(card.replace(before, hashlib.sha256(archive).hexdigest()))


def _crafted(folder: Path, models: Path) -> None:
    """An archive that would run code when torch loads it."""
    crafted = Path(shutil.copy(folder / "model.pt2", folder / "crafted"))
    plant(crafted, folder / "ran")
    _vouched(folder, crafted.read_bytes())


def _other_shape(folder: Path, models: Path) -> None:
    """An archive that is whole, of a model that cannot be run on the card's rows."""
    _vouched(folder, (models / "models" / "other" / "1" / "model.pt2").read_bytes())


@pytest.mark.parametrize("damage", [_another, _cut, _gone, _card, _crafted, _other_shape])
def test_a_damaged_model_takes_no_other_with_it(
    damage: Callable[[Path, Path], None], start: Start, models: Path
) -> None:
    server = start("linear", "other")
    caller, other = server.new_key(), server.new_key(model="other")
    caller.predict(inputs(2))
    server.kill()
    damage(server.root / "models" / "linear" / "1", models)
    server.start()
    for call in (caller.describe, caller.usage, lambda: caller.predict(inputs(1))):
        sentence = "the model linear/1 cannot be served at present: tell the operator"
        assert_refused(server, call, "FAILED_PRECONDITION", "MODEL_UNAVAILABLE", sentence)
    assert other.predict(inputs(1, shape=(1, 64, 64))).receipt.spent == 1
    said = [line for line in server.process.log.splitlines() if "not serving linear/1: " in line]
    assert len(said) == 1
    assert server.books().logged == 3
    assert not (server.root / "models" / "linear" / "1" / "ran").exists()


def test_an_archive_that_is_damaged_while_it_is_served(start: Start) -> None:
    """The model answers on, from memory; a download of other bytes does not end as one that is whole."""
    server = start("linear")
    caller = server.new_key("weights")
    archive = server.root / "models" / "linear" / "1" / "model.pt2"
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    chunks = []
    with pytest.raises(grpc.RpcError) as caught:
        chunks.extend(caller.download())
    told = refused(caught.value)
    assert (told.code, told.reason, told.sentence) == ("FAILED_PRECONDITION", "MODEL_UNAVAILABLE", damaged("linear/1"))
    assert not any(chunk.sha256 for chunk in chunks)
    archive.unlink()
    assert_refused(
        server, lambda: list(caller.download()), "FAILED_PRECONDITION", "MODEL_UNAVAILABLE", damaged("linear/1")
    )
    assert caller.predict(inputs(1)).receipt.spent == 1
