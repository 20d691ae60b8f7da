"""Secrets of keys that were rotated, in the ledger's file: the one before the present one is accepted for a while.

A key has two secrets at most: a rotation drops whatever an earlier one had left.
"""

from __future__ import annotations

from oracle_server.ledger.table import Table

__all__ = ["SECRET_TABLE", "SecretTable"]

SECRET_TABLE = """
CREATE TABLE IF NOT EXISTS former_secrets (
    key_id TEXT PRIMARY KEY REFERENCES keys, former_sha256 BLOB NOT NULL, former_until REAL NOT NULL
) WITHOUT ROWID;
"""


class SecretTable(Table):
    """The former secrets of a ledger that has a connection and a lock for it."""

    def rotate(self, key_id: str, secret_sha256: bytes, until: float) -> bool:
        """Give a key a new secret; the present one is accepted before `until`, in Unix time. Durable on return, both or
        neither. False when there is no such key.
        """
        with self._changing(), self._reader:
            self._reader.execute("BEGIN IMMEDIATE")
            self._reader.execute(
                "INSERT OR REPLACE INTO former_secrets SELECT key_id, secret_sha256, ? FROM keys WHERE key_id = ?",
                (until, key_id),
            )
            found = self._reader.execute("UPDATE keys SET secret_sha256 = ? WHERE key_id = ?", (secret_sha256, key_id))
            return found.rowcount == 1
