"""What every user of a machine can read of a process, its command line, never has an API key in it; nor has a log."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from attacker.cli import main as attacker
from oracle_server.cli import main as oracle_server
from referee.cli import main as referee
from referee.processes import run_attacker
from tests.serving import Server

_WORDS = ("key", "secret", "token", "password", "credential", "authorization")
_PUBLIC = {"key_id"}  # what may be typed: the half of a key that is no secret


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """A command and all that it has below it, with their full names."""
    yield name, command
    if isinstance(command, click.Group):
        for part, below in command.commands.items():
            yield from commands(below, f"{name} {part}")


def takes_a_secret(command: click.Command) -> list[str]:
    """Parameters whose name speaks of a secret and whose value is neither a file nor a flag."""
    found = []
    for parameter in command.params:
        names = " ".join((parameter.name or "", *parameter.opts)).lower()
        file = isinstance(parameter.type, click.Path | click.File)
        flag = isinstance(parameter, click.Option) and parameter.is_flag
        if any(word in names for word in _WORDS) and not (file or flag or parameter.name in _PUBLIC):
            found.append(parameter.name or "")
    return found


def test_no_command_takes_a_key_as_a_word() -> None:
    mains = {"oracle-server": oracle_server, "attacker": attacker, "referee": referee}
    found = [pair for name, main in mains.items() for pair in commands(main, name)]
    names = {name for name, _ in found}
    assert {"oracle-server keys rotate", "oracle-server serve", "attacker ask", "referee run"} <= names
    assert {name: taken for name, command in found if (taken := takes_a_secret(command))} == {}


@pytest.mark.parametrize("options", [("--api-key",), ("--token",), ("-k", "--secret")])
def test_a_command_that_does_would_be_found(options: tuple[str, ...]) -> None:
    @click.command()
    @click.option(*options)
    @click.option("--key-file", type=click.Path())
    def planted(**_: object) -> None: ...

    assert takes_a_secret(planted) == [options[-1].strip("-").replace("-", "_")]


def command_lines() -> set[bytes]:
    """The command line of every process that runs now."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found.add(path.read_bytes())
    return found


@contextlib.contextmanager
def watched() -> Iterator[set[bytes]]:
    """All command lines that are there while the block runs."""
    seen: set[bytes] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            seen.update(command_lines())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_referee_hands_a_key_over_where_nobody_reads_it(server: Server, tmp_path: Path) -> None:
    """Not on the command line of what it starts, and neither the attacker's files nor the server's have it."""
    caller = server.new_key()
    secret = caller.key.rpartition("_")[2].encode()
    words = ["random_draws", "--set", "draws=50", "--out", "out"]
    with watched() as seen:
        status, said = run_attacker(server.address, caller.key, words, folder=tmp_path / "attacker", denied=[])
    assert status == 0, said
    assert server.books().rows[caller.key_id] == 50
    assert any(b"attacker.cli" in line for line in seen)
    assert not any(secret in line for line in seen)
    files = [path for folder in (tmp_path, server.root) for path in folder.rglob("*") if path.is_file()]
    assert {"attacker.log", "journal.bin", "server.log", "ledger.db"} <= {path.name for path in files}
    assert not [path for path in files if secret in path.read_bytes()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_key_on_a_command_line_would_be_found() -> None:
    words = [sys.executable, "-c", "print(flush=True); input()", "the-secret"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert any(b"the-secret" in line for line in command_lines())
        process.communicate(b"\n")


def test_no_command_waits_for_libraries_that_few_of_them_need() -> None:
    slow = ("torchvision", "torch._dynamo", "scipy.stats", "mlxtend", "opacus", "matplotlib")
    look = f"import sys, attacker.cli, oracle_server.cli, referee.cli; print([n for n in {slow} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
