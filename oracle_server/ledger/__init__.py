"""What was asked and charged."""

from oracle_server.ledger.interface import (
    Charge,
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
    "Entry",
    "Flag",
    "Key",
    "Ledger",
    "LedgerError",
    "LedgerLocked",
    "Reservation",
    "SqliteLedger",
    "Usage",
]
