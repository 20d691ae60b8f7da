"""What was asked and charged."""

from oracle_server.ledger.chain import audit_key_path
from oracle_server.ledger.interface import (
    Charge,
    Digest,
    Entry,
    Flag,
    Key,
    Ledger,
    LedgerError,
    LedgerLocked,
    Reservation,
    Usage,
)
from oracle_server.ledger.sqlite import SqliteLedger

__all__ = [
    "Charge",
    "Digest",
    "Entry",
    "Flag",
    "Key",
    "Ledger",
    "LedgerError",
    "LedgerLocked",
    "Reservation",
    "SqliteLedger",
    "Usage",
    "audit_key_path",
]
