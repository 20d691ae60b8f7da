"""A client that need not be a gRPC client: HTTP/2 frames written by hand, so that any of them can be wrong."""

from __future__ import annotations

import contextlib
import enum
import re
import socket
import time
from dataclasses import dataclass

__all__ = ["OPENING", "Answer", "Frame", "call", "frame", "header_block", "literal", "message", "send"]


class Frame(enum.IntEnum):
    """Types of frames, by their numbers in RFC 9113."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RESET = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW = 8
    CONTINUATION = 9


END_STREAM, END_HEADERS = 0x1, 0x4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_STATUS = re.compile(rb"grpc-status.([0-9]{1,2})", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """What came back: the number of the first gRPC status in it, None where there is none; whether the server closed
    the connection; all of its bytes.
    """

    status: int | None
    closed: bool
    data: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame; `length` is what its header claims, the truth when left out."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


OPENING = PREFACE + frame(Frame.SETTINGS, 0, 0)


def header_block(path: str, *more: tuple[bytes, bytes], without: str = "", **changed: bytes) -> bytes:
    """The headers of a gRPC call as HPACK literals; `without` names one to leave out, `changed` others by their name
    in capitals and underscores, such as `CONTENT_TYPE`.
    """
    usual = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path.encode(errors="surrogateescape"),
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    usual.pop(without.encode(), None)
    for name, value in changed.items():
        usual[(b":" if name == "METHOD" else b"") + name.lower().replace("_", "-").encode()] = value
    return b"".join(literal(name, value) for name, value in (*usual.items(), *more))


def literal(name: bytes, value: bytes, *, indexed: bool = False) -> bytes:
    """A header field, `indexed` for later use or without indexing, and without Huffman's code."""
    return (b"\x40" if indexed else b"\x00") + _length(len(name)) + name + _length(len(value)) + value


def _length(number: int) -> bytes:
    if number < 127:
        return bytes((number,))
    number -= 127
    coded = bytearray((127,))
    while number > 127:
        coded.append(number & 127 | 128)
        number >>= 7
    coded.append(number)
    return bytes(coded)


def message(data: bytes, *, compressed: bool = False, length: int | None = None) -> bytes:
    """gRPC's frame around one message; `length` is what its prefix claims."""
    return bytes((compressed,)) + (len(data) if length is None else length).to_bytes(4, "big") + data


def call(headers: bytes, body: bytes = b"", *, end: bool = True) -> bytes:
    """A whole connection of one call: opening, headers, and the body in frames of at most 16384 bytes."""
    parts = [body[first : first + 16384] for first in range(0, len(body), 16384)] or [b""]
    ends = [END_STREAM if end and number == len(parts) else 0 for number in range(1, len(parts) + 1)]
    frames = [frame(Frame.DATA, flag, 1, part) for part, flag in zip(parts, ends, strict=True)]
    return OPENING + frame(Frame.HEADERS, END_HEADERS, 1, headers) + b"".join(frames)


def send(port: int, data: bytes, patience: float = 0.3) -> Answer:
    """Send bytes to a port on loopback, then read until a status, the end, or `patience` seconds without a byte."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        closed = False
        with contextlib.suppress(ConnectionError):  # it closed while we were sending: what it said is read below
            if data.startswith(OPENING):  # so that the server believes its own settings, and takes more than 64 kB
                connection.sendall(OPENING)
                received = connection.recv(65536)
                connection.sendall(frame(Frame.SETTINGS, 1, 0))
            connection.sendall(data.removeprefix(OPENING))
        connection.settimeout(patience)
        deadline = time.monotonic() + 10
        try:
            while time.monotonic() < deadline and not _STATUS.search(received):
                part = connection.recv(65536)
                if not part:
                    closed = True
                    break
                received += part
        except TimeoutError:
            pass
        except ConnectionError:
            closed = True
    found = _STATUS.search(received)
    return Answer(int(found[1]) if found else None, closed, received)
