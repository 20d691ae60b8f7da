"""The contract on the wire: messages, arrays, archives. The only package that every role imports."""

__all__ = ["RANGE_MARKER"]

RANGE_MARKER = "mirage-range/1"  # Describe carries it; an attacker of this range queries nobody who does not
