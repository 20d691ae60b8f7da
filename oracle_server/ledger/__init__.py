"""What was asked and charged."""

from oracle_server.ledger.interface import Charge, Entry, Flag, Key, Ledger, Reservation, Usage
from oracle_server.ledger.sqlite import LedgerError, LedgerLocked, SqliteLedger

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
