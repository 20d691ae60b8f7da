"""What the file of a ledger says, to a reader who is not the ledger."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ["written"]


def written(path: Path) -> dict[bytes, int]:
    """Rows of each request id, as a stranger to the ledger reads them: what is there would survive a crash."""
    with closing(sqlite3.connect(path)) as stranger:
        return dict(stranger.execute("SELECT request_id, rows FROM log"))
