"""Another user of the same machine: no way to the operator's socket, and nothing to read in the server's folder.

The user who runs the server, and root, can always: see SECURITY.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures import Start
from tests.serving import Server, inputs

NOBODY = 65534
# What the server itself writes for everybody to see: where it listens.
PUBLIC = {"server.json"}
CONNECT = """
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except OSError as error:
    sys.exit(type(error).__name__)
"""
READ = """
for folder, folders, files in os.walk(sys.argv[1]):
    for name in files:
        path = os.path.join(folder, name)
        for mode in ("rb", "ab"):
            try:
                open(path, mode).close()
            except OSError:
                continue
            print(mode, os.path.relpath(path, sys.argv[1]))
for name in ("", "models"):
    if os.access(os.path.join(sys.argv[1], name), os.W_OK):
        print("w", name)
"""


def as_another_user(source: str, argument: Path) -> subprocess.CompletedProcess[str]:
    """Run Python source in a process that has become the user nobody for good before the source's first line."""
    become = f"import os, sys, socket; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})"
    command = [sys.executable, "-I", "-S", "-c", f"{become}\n{source}", str(argument)]
    return subprocess.run(command, cwd="/", text=True, capture_output=True, check=False)


@pytest.fixture
def open_server(start: Start) -> Server:
    """A running server, used once, in a folder that everybody may enter, as `--root ./oracle` makes one."""
    server = start("linear", "other")
    server.new_key("weights").predict(inputs(2))
    server.root.chmod(0o755)
    return server


root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")


def test_modes(open_server: Server) -> None:
    root = open_server.root
    assert (root / "admin.sock").stat().st_mode & 0o777 == 0o600
    for path in root.glob("ledger.*"):
        assert path.stat().st_mode & 0o077 == 0, path
    for path in (root / "models").glob("*/*"):
        assert path.stat().st_mode & 0o077 == 0, path


@root_only
def test_the_operators_socket_refuses_another_user(open_server: Server) -> None:
    socket = open_server.root / "admin.sock"
    assert as_another_user(CONNECT, socket).stderr.strip() == "PermissionError"
    socket.chmod(0o666)  # what the mode keeps out
    assert as_another_user(CONNECT, socket).returncode == 0


@root_only
def test_another_user_reads_and_changes_nothing(open_server: Server) -> None:
    root = open_server.root
    seen = as_another_user(READ, root)
    assert seen.returncode == 0, seen.stderr
    assert {line.partition(" ")[2] for line in seen.stdout.splitlines()} <= PUBLIC
    assert not any(line.startswith(("ab", "w")) for line in seen.stdout.splitlines())
    (root / "ledger.db").chmod(0o644)
    (root / "models/linear/1").chmod(0o755)
    assert {"rb ledger.db", "rb models/linear/1/model.pt2"} <= set(as_another_user(READ, root).stdout.splitlines())
