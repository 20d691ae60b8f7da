"""Messages of protobuf taken apart by hand: bytes -> views of the fields that are large, and all other fields.

protobuf copies a field of bytes when it parses and again whenever it is read, and makes up to a hundred bytes of memory
of every two that come. What is split here is neither copied nor parsed.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError, Message

__all__ = ["Excess", "split", "tag"]

_FIELDS = 256  # of one message
_64_BITS = 2**64 - 1  # of a number; protobuf drops what ten bytes hold beyond them
_LEN = 2  # the wire type of text, bytes and messages


class Excess(Exception):
    """A message with more fields, or more beside the large ones, than anybody means to send."""


def tag(message: type[Message], field: str) -> int:
    """What stands before each value of a field of text, bytes or messages."""
    return message.DESCRIPTOR.fields_by_name[field].number << 3 | _LEN


def split(parts: Iterable[bytes | memoryview], apart: int, most: int) -> tuple[list[memoryview], bytes]:
    """The values of the fields with the tag `apart`, as views; all other fields as they came, for protobuf to parse.

    A message may come in several parts; protobuf, too, reads those one after the other.

    Raises `Excess` when there are more than 256 fields or `most` bytes of others, whatever comes after them, and
    `DecodeError` where a field has no end, or is a group: those are out of use, and have no bound.
    """
    values: list[memoryview] = []
    others: list[memoryview] = []
    room, left = most, _FIELDS
    for part in parts:
        whole, start, end = memoryview(part), 0, len(part)
        while start < end:
            found, place = _varint(part, start, 5)
            kind = found & 7
            if kind == _LEN:
                length, place = _varint(part, place, 10)
                following = place + length
            elif kind == 0:
                following = _varint(part, place, 10)[1]
            elif kind in (1, 5):
                following = place + (8 if kind == 1 else 4)
            else:
                raise DecodeError("a group, or no known kind of field")
            if following > end:
                raise DecodeError("cut short")
            if found == apart:
                values.append(whole[place:following])
            else:
                others.append(whole[start:following])
                room -= following - start
            left -= 1
            if room < 0 or left < 0:
                raise Excess
            start = following
    return values, b"".join(others)


def _varint(data: bytes | memoryview, place: int, most: int) -> tuple[int, int]:
    """The number at `place`, of at most `most` bytes, and where it ends."""
    number = shift = 0
    for byte in data[place : place + most]:
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & _64_BITS, place
        shift += 7
    raise DecodeError("a number without end")
