"""Fields of protobuf by hand, for messages that no library would write."""

from __future__ import annotations

__all__ = ["field", "varint"]


def varint(number: int, width: int = 1) -> bytes:
    """A number in at least `width` bytes, which is more than it needs where its last ones are zeros."""
    made = bytearray()
    while number > 0x7F or len(made) + 1 < width:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*made, number))


def field(tag: int, data: bytes, width: int = 1, length_width: int = 1) -> bytes:
    """Text, bytes or a message: the tag, in at least `width` bytes, their length, and themselves."""
    return varint(tag, width) + varint(len(data), length_width) + data
