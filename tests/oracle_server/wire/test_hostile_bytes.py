"""Bytes that no client of ours sends, against the real server: nothing crashes, nothing is charged, memory stays
bounded, statuses are the documented ones, and the next honest call is answered.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import random
import re
import zlib
from collections.abc import Callable

import grpc
import pytest

from oracle_server import errors
from protos.mirage.v1 import oracle_pb2 as pb
from tests.fixtures import Start
from tests.raw_http2 import OPENING, Frame, call, frame, header_block, literal, message, send
from tests.serving import Caller, Server, assert_refused, inputs
from tests.unharmed import unharmed

PREDICT = "/mirage.v1.Oracle/Predict"
BY_GRPC = set(re.findall(r"^    ([A-Z_]+)  ", errors.__doc__ or "", re.MULTILINE))
DOCUMENTED = {"OK"} | BY_GRPC | {reason.code.name for reason in errors.Reason}
NUMBERS = {code.value[0]: code.name for code in grpc.StatusCode}
ID = b"0123456789abcdef"
GZIP_BITS = 16 + zlib.MAX_WBITS  # zlib's name of the format
NOISE = random.Random(0)


# Not HTTP/2, or HTTP/2 that breaks its rules: connections as they are sent.
CONNECTIONS: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda headers: bytes(4096),
    "noise": lambda headers: NOISE.randbytes(5000),
    "HTTP/1.1": lambda headers: b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a TLS hello": lambda headers: bytes.fromhex("16030100c8010000c40303") + NOISE.randbytes(193),
    "half a preface": lambda headers: OPENING[:12],
    "noise after the preface": lambda headers: OPENING + NOISE.randbytes(5000),
    "half a frame": lambda headers: OPENING + frame(Frame.HEADERS, 4, 1, headers)[:-10],
    "a frame of 16 MB": lambda headers: OPENING + frame(Frame.HEADERS, 4, 1, headers, length=2**24 - 1),
    "a frame of no known type": lambda headers: OPENING + frame(0xEE, 0xFF, 1, b"hello"),  # type: ignore[arg-type]
    "data before headers": lambda headers: OPENING + frame(Frame.DATA, 1, 1, message(b"")),
    "data of no stream": lambda headers: OPENING + frame(Frame.DATA, 1, 0, message(b"")),
    "a stream of the server's": lambda headers: OPENING + frame(Frame.HEADERS, 4, 2, headers),
    "more padding than frame": lambda headers: OPENING + frame(Frame.HEADERS, 4 | 8, 1, b"\xff" + headers),
    "an index of no header": lambda headers: OPENING + frame(Frame.HEADERS, 5, 1, b"\xff\xff\xff\xff\x0f"),
    "a number without end": lambda headers: OPENING + frame(Frame.HEADERS, 5, 1, b"\x7f" + b"\xff" * 20),
    "one header, ten thousand times": lambda headers: (
        OPENING
        + frame(Frame.HEADERS, 4, 1, headers + literal(b"a", b"b" * 3900, indexed=True) + b"\xbe" * 10_000)
        + frame(Frame.DATA, 1, 1, message(b""))
    ),
    "headers without end": lambda headers: (
        OPENING
        + frame(Frame.HEADERS, 0, 1, headers)
        + frame(Frame.CONTINUATION, 0, 1, literal(b"x", b"y" * 10_000)) * 400
    ),
    "empty headers without end": lambda headers: (
        OPENING + frame(Frame.HEADERS, 0, 1, headers) + frame(Frame.CONTINUATION, 0, 1) * 5000
    ),
    "a continuation of another": lambda headers: (
        OPENING + frame(Frame.HEADERS, 0, 1, headers) + frame(Frame.CONTINUATION, 4, 3)
    ),
    "pings": lambda headers: OPENING + frame(Frame.PING, 0, 0, bytes(8)) * 2000,
    "settings": lambda headers: OPENING + frame(Frame.SETTINGS, 0, 0) * 2000,
    "settings of five bytes": lambda headers: OPENING + frame(Frame.SETTINGS, 0, 0, bytes(5)),
    "a window of nothing": lambda headers: OPENING + frame(Frame.WINDOW, 0, 0, bytes(4)),
    "a window beyond any": lambda headers: OPENING + frame(Frame.WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 3,
    "a stream that waits for itself": lambda headers: OPENING + frame(Frame.PRIORITY, 0, 1, b"\0\0\0\1\0"),
    "goodbye at once": lambda headers: OPENING + frame(Frame.GOAWAY, 0, 0, bytes(8)),
    "calls that are taken back": lambda headers: (
        OPENING
        + b"".join(
            frame(Frame.HEADERS, 4, stream, headers) + frame(Frame.RESET, 0, stream, bytes(4))
            for stream in range(1, 1001, 2)
        )
    ),
}


@pytest.mark.parametrize("name", CONNECTIONS)
def test_connections(server: Server, caller: Caller, name: str) -> None:
    with unharmed(server):
        answer = send(server.port, CONNECTIONS[name](header_block(PREDICT, authorization(caller))))
        assert answer.status is None or NUMBERS[answer.status] in DOCUMENTED - {"OK"}


def authorization(caller: Caller) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {caller.key}".encode()


# A call in proper frames, of which one thing is wrong: (headers, body, what follows, or may in
# different versions of gRPC). The message is one that is refused as BAD_INPUT where it arrives at all.
BODY = pb.PredictRequest(request_id=ID).SerializeToString()
ARRIVED, LARGE, UNREADABLE, NO_METHOD = "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL", "UNIMPLEMENTED"
Status = str | None  # of nothing that came back within a moment
Call = tuple[Callable[..., bytes], bytes, Status | tuple[Status, ...]]


def predict(*more: tuple[bytes, bytes], **changed: bytes) -> Callable[..., bytes]:
    return lambda key: header_block(PREDICT, key, *more, **changed)


def at(path: str) -> Callable[..., bytes]:
    return lambda key: header_block(path, key)


def with_key(value: bytes) -> Callable[..., bytes]:
    return lambda key: header_block(PREDICT, (b"authorization", value))


@functools.cache
def packed(megabytes: int, wbits: int = GZIP_BITS) -> bytes:
    """Zeros, packed to a thousandth of their size."""
    packer = zlib.compressobj(wbits=wbits)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


GZIP, DEFLATE = (b"grpc-encoding", b"gzip"), (b"grpc-encoding", b"deflate")
CALLS: dict[str, Call] = {
    "as it should be": (predict(), message(BODY), ARRIVED),
    "no message": (predict(), b"", None),
    "a hundred messages": (predict(), message(BODY) * 100, ARRIVED),
    "a message cut short": (predict(), message(BODY)[:-3], None),
    "a prefix cut short": (predict(), message(BODY)[:3], None),
    "a prefix that claims 4 GB": (predict(), message(BODY, length=2**32 - 1), LARGE),
    "a prefix of no known kind": (predict(), b"\x07" + message(BODY)[1:], ARRIVED),
    "packed in nothing": (predict(), message(BODY, compressed=True), (UNREADABLE, ARRIVED)),
    "packed in something unknown": (predict((b"grpc-encoding", b"snap")), message(BODY, compressed=True), UNREADABLE),
    "noise for gzip": (predict(GZIP), message(NOISE.randbytes(99), compressed=True), UNREADABLE),
    "gzip cut short": (predict(GZIP), message(gzip.compress(BODY)[:-9], compressed=True), UNREADABLE),
    "gzip": (predict(GZIP), message(gzip.compress(BODY), compressed=True), ARRIVED),
    "a gzip that fits": (predict(GZIP), message(packed(60), compressed=True), ARRIVED),
    "a gzip bomb": (predict(GZIP), message(packed(400), compressed=True), LARGE),
    "a deflate bomb": (predict(DEFLATE), message(packed(400, zlib.MAX_WBITS), compressed=True), LARGE),
    "a page of a browser": (predict(CONTENT_TYPE=b"text/html"), message(BODY), ARRIVED),
    "JSON": (predict(CONTENT_TYPE=b"application/grpc+json"), b'{"requestId": "x"}', ARRIVED),
    "GET": (predict(METHOD=b"GET"), message(BODY), None),
    "no path": (lambda key: header_block(PREDICT, key, without=":path"), message(BODY), None),
    "no method": (at("/mirage.v1.Oracle/"), message(BODY), NO_METHOD),
    "small letters": (at("/mirage.v1.Oracle/predict"), message(BODY), NO_METHOD),
    "a way round": (at("/x/../mirage.v1.Oracle/Predict"), message(BODY), NO_METHOD),
    "a question mark": (at("/mirage.v1.Oracle/Predict?"), message(BODY), NO_METHOD),
    "a path of 10 kB": (at("/" + "a" * 10_000), message(BODY), (NO_METHOD, LARGE)),
    "a path of 100 kB": (at("/" + "a" * 100_000), message(BODY), (None, LARGE)),
    "a deadline in words": (predict((b"grpc-timeout", b"soon")), message(BODY), UNREADABLE),
    "a deadline of no time": (predict((b"grpc-timeout", b"0n")), message(BODY), "DEADLINE_EXCEEDED"),
    "a header in capitals": (predict((b"X-Y", b"z")), message(BODY), UNREADABLE),
    "a header without a name": (predict((b"", b"z")), message(BODY), UNREADABLE),
    "a binary header that is none": (predict((b"x-bin", b"!!!!")), message(BODY), UNREADABLE),
    "300 headers": (predict(*((b"x%d" % n, b"y") for n in range(300))), message(BODY), (ARRIVED, LARGE)),
    "a key of no text": (with_key(b"Bearer mirage_\xff\xfe_\x80"), message(BODY), "UNAUTHENTICATED"),
    "a key of foreign letters": (with_key("Bearer mirage_é_é".encode()), message(BODY), "UNAUTHENTICATED"),
    "a key with zeros": (with_key(b"Bearer mirage_\0_\0"), message(BODY), "UNAUTHENTICATED"),
    "a key of two lines": (with_key(b"Bearer x\r\ny: z"), message(BODY), "UNAUTHENTICATED"),
    "a key of 20 kB": (with_key(b"Bearer mirage_" + b"0" * 20_000), message(BODY), LARGE),
}


def test_a_method_whose_name_is_no_text(start: Start) -> None:
    """From 1.84 on, gRPC ended its listener at such a name, which takes no key."""
    server = start()
    answer = send(server.port, call(header_block("/mirage.v1.Oracle/Pr\udcffdict"), message(BODY)), 10)
    assert NUMBERS[answer.status or 0] == "UNKNOWN"
    assert server.new_key().predict(inputs(2)).receipt.rows_charged == 2


GIVEN_UP = """
import asyncio, grpc.aio._server as aio
async def gone(self, timeout=None):
    await asyncio.sleep(0.3)
    raise OSError("no more")
aio.Server.wait_for_termination = gone
"""


def test_a_listener_that_was_given_up_ends_the_server(start: Start) -> None:
    server = start(before=GIVEN_UP)
    assert server.process.wait() == 1
    assert "gRPC has given up a listener: no more; start the server again" in server.process.log


@pytest.mark.parametrize("name", CALLS)
def test_calls(server: Server, caller: Caller, name: str) -> None:
    headers, body, expected = CALLS[name]
    allowed = expected if isinstance(expected, tuple) else (expected,)
    with unharmed(server):
        answer = send(server.port, call(headers(authorization(caller)), body), 0.2 if None in allowed else 10)
        assert (None if answer.status is None else NUMBERS[answer.status]) in allowed
    assert set(allowed) - {None} <= DOCUMENTED


# Whole messages, through an honest client's channel.
ROWS = pb.PredictRequest(request_id=ID, inputs=Caller.request(None, inputs(1)).inputs).SerializeToString()  # type: ignore[arg-type]
BAD, MALFORMED = "BAD_INPUT", "MALFORMED"
MESSAGES = {
    "nothing": (b"", BAD),
    "a number for the model": (b"\x08\x01", BAD),
    "a number for the id": (b"\x10\x01" + ROWS[18:], BAD),
    "a number for the rows": (ROWS[:18] + b"\x18\x01", BAD),
    "eight bytes for the rows": (ROWS[:18] + b"\x19" + bytes(8), BAD),
    "rows inside rows": (ROWS[:18] + b"\x1a\x04\x1a\x02\x1a\x00", BAD),
    "two lots of rows": (ROWS + ROWS[18:], BAD),  # protobuf joins them: the shape has eight numbers
    "field 0": (b"\x00\x01", MALFORMED),
    "a wire type of no meaning": (b"\x0f\x01", MALFORMED),
    "an end without a beginning": (b"\x0c", MALFORMED),
    "a number of eleven bytes": (b"\x08" + b"\xff" * 11, MALFORMED),
    "nested 5000 deep": (b"\x7b" * 5000 + b"\x7c" * 5000, MALFORMED),
    "rows nested 5000 deep": (b"\x1a\x90\x4e" + b"\x7b" * 5000 + b"\x7c" * 5000, MALFORMED),
    "a million empty fields": (b"\x7a\x00" * 10**6, BAD),
    "a million dimensions": (ROWS[:18] + b"\x1a\xc6\x84\x3d\x08\x01\x12\xc0\x84\x3d" + b"\x01" * 10**6, BAD),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(server: Server, caller: Caller, name: str) -> None:
    data, reason = MESSAGES[name]
    with unharmed(server), pytest.raises(grpc.RpcError) as caught:
        caller.raw(PREDICT, data)
    assert caught.value.code().name == "INVALID_ARGUMENT"
    assert caught.value.trailing_metadata()[0].value.count(reason.encode()) == 1


def test_many_messages_where_one_is_taken(server: Server, caller: Caller) -> None:
    """gRPC hands on the first and drops the others: one is charged."""
    stream = server.channel.stream_unary(PREDICT)
    requests = [caller.request(inputs(1)).SerializeToString() for _ in range(50)]
    with contextlib.suppress(grpc.RpcError):
        stream(iter(requests), metadata=caller.metadata, timeout=30)
    assert caller.usage().spent in (0, 1)


def test_fields_of_the_future_change_nothing(caller: Caller) -> None:
    """Unknown fields are no part of a request: the same id with them is a retry, free, with the same answer."""
    request = caller.request(inputs(3)).SerializeToString()
    first = pb.PredictResponse.FromString(caller.raw(PREDICT, request))
    again = pb.PredictResponse.FromString(caller.raw(PREDICT, request + b"\x7a\x05hello\x80\x7d\x01"))
    assert (first.receipt.rows_charged, again.receipt.rows_charged) == (3, 0)
    assert again.scores == first.scores
    assert caller.usage().spent == 3


# What a refused call brought along is let go at once.


def flood(server: Server) -> None:
    """Six large messages one after the other: of 48 MB with a key, and of 48 kB that unpack to as much without one."""
    bomb = call(header_block(PREDICT, GZIP), message(packed(48), compressed=True))
    caller, data = server.new_key(), bytes(48 << 20)
    for _ in range(3):
        with pytest.raises(grpc.RpcError):
            caller.raw(PREDICT, data)
        assert send(server.port, bomb, 10).status is not None


def test_large_messages_are_let_go(server: Server) -> None:
    with unharmed(server):
        flood(server)


KEPT = """
import oracle_server.guard as guard
kept, refuse = [], guard._Ending._refuse
def keep(self, error):
    kept.append(error.__traceback__)
    return refuse(self, error)
guard._Ending._refuse = keep
"""
TOLD = "import oracle_server.service as s\ns.decode_inputs = None\n"


def test_the_checker_notices(start: Start) -> None:
    """A server that keeps what it refused, one that fails in an unforeseen way, and a charge."""
    with pytest.raises(AssertionError, match="VmHWM"), unharmed(server := start(before=KEPT)):
        flood(server)
    server = start(before=TOLD)
    caller = server.new_key()
    with pytest.raises(AssertionError, match="Traceback"), unharmed(server):
        assert_refused(
            server, lambda: caller.predict(inputs(1)), UNREADABLE, None, "the server failed: tell the operator"
        )
    server = start()
    with pytest.raises(AssertionError, match="Books"), unharmed(server):
        server.new_key().predict(inputs(1))
