"""`files`: TLS files of a server. `metered`: a server with metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.metered import METERED
from tests.serving import Forker, Server, new_root
from tests.tls import Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """An authority of its own and a server's pair, in a folder of their own."""
    folder = tmp_path / "tls"
    folder.mkdir()
    return Files(folder)


@pytest.fixture(scope="module")
def metered(forker: Forker, models: Path) -> Iterator[Server]:
    """Hosts three models; 64 rows a request, 16 in a forward pass; see `tests.metered`."""
    root = new_root(models, "linear", "fails", "slow")
    with contextlib.closing(Server(forker, root, *METERED)) as server:
        yield server
