"""Ledgers with a past: as many keys and lines of the log as years of use leave, written in a minute."""

from __future__ import annotations

import contextlib
import secrets
import time
from concurrent.futures import Future
from pathlib import Path

from oracle_server.guard import new_token
from oracle_server.ledger import Charge, Key, SqliteLedger
from oracle_server.threat_model import Access, Contract

__all__ = ["fill"]

_AT_ONCE = 50_000  # lines in one commit


def fill(path: Path, model: str, keys: int = 100, lines: int = 0) -> list[str]:
    """Make a ledger with `keys` for full scores of a model, `name/version`, and charge one row `lines` times, a share
    to each key; the tokens of the keys.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(SqliteLedger(path)) as ledger:
        tokens, made = [], []
        ledger._reader.execute("BEGIN IMMEDIATE")  # one commit for all, where the operator makes one for each
        for _ in range(keys):
            token, key_id, secret_sha256 = new_token()
            tokens.append(token)
            made.append(Key(key_id, "", model, Contract(Access.SCORES), secret_sha256, time.time()))
            ledger.add_key(made[-1])
        ledger._reader.execute("COMMIT")
        for first in range(0, lines, _AT_ONCE):
            batch = [
                (ledger.reserve(made[n % keys], secrets.token_bytes(16), 1), "Predict", bytes(32), Future[Charge]())
                for n in range(first, min(first + _AT_ONCE, lines))
            ]
            ledger._commit(batch)  # as the writer thread does, which takes fewer at once
    return tokens
