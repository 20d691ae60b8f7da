"""Fixtures with real servers: one for each module, and more of them when a test asks."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosted import host_models
from tests.serving import Caller, Forker, Server, new_root

__all__ = ["Command", "Start", "caller", "command", "forker", "models", "root", "server", "start"]

Start = Callable[..., Server]
Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `models/` in it; see `tests.hosted`."""
    root = tmp_path_factory.mktemp("models")
    host_models(root)
    return root


@pytest.fixture(scope="session")
def forker(models: Path) -> Iterator[Forker]:
    with contextlib.closing(Forker(models / "models" / "linear" / "1" / "model.pt2")) as forker:
        yield forker


@pytest.fixture(scope="module")
def server(forker: Forker, models: Path) -> Iterator[Server]:
    """Hosts three models; 64 rows a request, 16 in a forward pass."""
    root = new_root(models, "linear", "other", "fails")
    with contextlib.closing(Server(forker, root, "--max-rows", "64", "--batch", "16")) as server:
        yield server


@pytest.fixture
def start(forker: Forker, models: Path) -> Iterator[Start]:
    """`start(*models, options=(...))`: a server of the test's own."""
    with contextlib.ExitStack() as stack:

        def start(*names: str, options: tuple[str, ...] = (), before: str = "") -> Server:
            root = new_root(models, *(names or ("linear",)))
            return stack.enter_context(contextlib.closing(Server(forker, root, *options, before=before)))

        yield start


@pytest.fixture
def root(models: Path) -> Iterator[Path]:
    """A server's folder that hosts `linear`."""
    root = new_root(models, "linear")
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def caller(server: Server) -> Caller:
    """A fresh key for full scores of `linear`."""
    return server.new_key()


@pytest.fixture
def command(forker: Forker, tmp_path: Path) -> Command:
    """`command(*words)`: exit status of `oracle-server WORDS`, a process of its own, and all that it printed."""
    number = itertools.count()

    def run(*words: object) -> tuple[int, str]:
        log = tmp_path / f"command-{next(number)}.log"
        environment = {"COLUMNS": "300", "MIRAGE_CACHE": str(tmp_path / "cache")}
        process = forker.start("oracle_server", words, log=log, folder=tmp_path, environment=environment)
        return process.wait(120), process.log

    return run
