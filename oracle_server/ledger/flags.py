"""What detectors found in the queries of keys, in the ledger's file: it survives restarts, and so do its consequences.

A detector's flag is kept once, and again only after the operator has reinstated the key: what was found first is what
counts, and a key that is only logged would otherwise fill the disk.
"""

from __future__ import annotations

from oracle_server.ledger.interface import Flag
from oracle_server.ledger.table import Table

__all__ = ["FLAG_TABLE", "FlagTable"]

FLAG_TABLE = """
CREATE TABLE IF NOT EXISTS flags (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key_id TEXT NOT NULL REFERENCES keys, detector TEXT NOT NULL,
    verdict TEXT NOT NULL, row INTEGER NOT NULL CHECK (row > 0), time REAL NOT NULL, lifted REAL
);
CREATE UNIQUE INDEX IF NOT EXISTS standing_flags ON flags (key_id, detector) WHERE lifted IS NULL;
CREATE INDEX IF NOT EXISTS flags_of_keys ON flags (key_id);
"""


class FlagTable(Table):
    """The flags of a ledger that has a connection and a lock for it."""

    def flag(self, flag: Flag) -> bool:
        """Keep a flag; durable on return. False when one of the same detector stands, which is left as it is."""
        with self._lock:
            found = self._reader.execute(
                "INSERT INTO flags (key_id, detector, verdict, row, time, lifted) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                (flag.key_id, flag.detector, flag.verdict, flag.row, flag.time, flag.lifted),
            )
            return found.rowcount == 1

    def flags(self, key_id: str) -> list[Flag]:
        """All flags of a key, lifted ones too, in the order in which they were kept."""
        with self._lock:
            rows = self._reader.execute(
                "SELECT key_id, detector, verdict, row, time, lifted FROM flags WHERE key_id = ? ORDER BY number",
                (key_id,),
            ).fetchall()
        return [Flag(*row) for row in rows]

    def reinstate(self, key_id: str, at: float) -> bool:
        """Lift all flags of a key; False when there is no such key."""
        with self._changing():
            self._reader.execute("UPDATE flags SET lifted = ? WHERE key_id = ? AND lifted IS NULL", (at, key_id))
            return self._reader.execute("SELECT 1 FROM keys WHERE key_id = ?", (key_id,)).fetchone() is not None
