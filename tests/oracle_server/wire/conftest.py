"""`files`: TLS files of a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tls import Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """An authority of its own and a server's pair, in a folder of their own."""
    folder = tmp_path / "tls"
    folder.mkdir()
    return Files(folder)
