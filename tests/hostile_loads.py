"""`python -m tests.hostile_loads KIND PORT COUNT RATE`: one hostile client on loopback, in a process of its own at a
low priority, so that it takes no time that others want.

    idle_connections    COUNT connections that have opened HTTP/2, every fourth not even that, and say no more
    half_open_streams   COUNT calls whose headers came, and no body, 100 on a connection
    trickling_bodies    COUNT calls on as many connections whose body comes byte by byte, RATE bytes a second in all
    slow_readers        COUNT downloads, 10 on a connection, whose client reads nothing
    floods_above_the_rate  predictions of one row, RATE a second, by a key that may ask for far less
    bad_keys            the same with a key that nobody knows
    waiting_rows        COUNT rows always on their way, RATE in a request, by one key without a rate

It reads JSON with the key and a request's bytes from its first line of standard input; then `on` begins the load and
`off` ends it, each answered by a line of JSON with what was counted so far, once it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import numpy as np

from protos.codec import encode
from protos.mirage.v1 import oracle_pb2 as pb
from tests.raw_http2 import END_HEADERS, END_STREAM, OPENING, Frame, frame, header_block, message

__all__ = ["KINDS", "main"]

_PREDICT, _DOWNLOAD = "/mirage.v1.Oracle/Predict", "/mirage.v1.Oracle/Download"
_STREAMS = 100  # calls under way on one connection
_ON_A_CONNECTION = {"idle_connections": 1, "half_open_streams": 100, "trickling_bodies": 1, "slow_readers": 10}


class _Connection:
    """One connection of HTTP/2, its frames written by hand; `ended` counts calls that the server ended."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.window = 65_535  # bytes that the server takes on the connection before it says more
        self.under_way = self.ended = 0
        self._stream = 1

    async def open(self, opening: bytes = OPENING, *, reads: bool = True) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 16)
        self._writer.write(opening)
        await self._writer.drain()
        self._reading = asyncio.create_task(self._read()) if reads else None

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def call(self, headers: bytes, body: bytes = b"", *, end: bool = True) -> int:
        """Begin a call; its number."""
        stream, self._stream = self._stream, self._stream + 2
        self.write(frame(Frame.HEADERS, END_HEADERS, stream, headers))
        for first in range(0, len(body), 16_384):
            last = END_STREAM if end and first + 16_384 >= len(body) else 0
            self.write(frame(Frame.DATA, last, stream, body[first : first + 16_384]))
        self.window -= len(body)
        self.under_way += 1
        return stream

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
                if kind == Frame.SETTINGS and not flags & 1:
                    self.write(frame(Frame.SETTINGS, 1, 0))
                elif kind == Frame.PING and not flags & 1:
                    self.write(frame(Frame.PING, 1, 0, payload))
                elif kind == Frame.WINDOW and stream == 0:
                    self.window += int.from_bytes(payload, "big")
                elif (kind == Frame.HEADERS and flags & END_STREAM) or kind == Frame.RESET:
                    self.ended += 1
                    self.under_way -= 1

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._writer.transport.abort()


class _Load:
    """What one hostile client does between `on` and `off`."""

    def __init__(self, kind: str, port: int, count: int, rate: float, key: str, request: bytes) -> None:
        self._kind, self._port, self._count, self._rate = kind, port, count, rate
        authorization = (b"authorization", f"Bearer {key}".encode())
        self._key = key
        self._predict, self._download = header_block(_PREDICT, authorization), header_block(_DOWNLOAD, authorization)
        self._request = request
        self._connections: list[_Connection] = []
        self._work: list[asyncio.Task[None]] = []
        self.counted = {"sent": 0, "ended": 0}

    async def on(self) -> None:
        if self._kind in _ON_A_CONNECTION:
            on_each = _ON_A_CONNECTION[self._kind]
            for first in range(0, self._count, on_each):
                await self._occupy(first, on_each)
            if self._kind == "trickling_bodies":
                self._work.append(asyncio.create_task(self._trickle()))
        elif self._kind == "waiting_rows":
            self._work = [asyncio.create_task(self._wait()) for _ in range(max(1, self._count // int(self._rate)))]
            before = self.counted["ended"]
            while self.counted["ended"] == before:  # the first of them is through, the others wait
                await asyncio.sleep(0.01)
        else:
            self._work.append(asyncio.create_task(self._flood()))

    async def off(self) -> None:
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        for connection in self._connections:
            self.counted["ended"] += connection.ended
            await connection.close()
        self._work, self._connections = [], []

    async def _occupy(self, number: int, calls: int) -> None:
        """One connection more, and the calls on it."""
        connection = _Connection(self._port)
        idle, slow = self._kind == "idle_connections", self._kind == "slow_readers"
        await connection.open(b"" if idle and number % 4 == 3 else OPENING, reads=not slow)
        self._connections.append(connection)
        for _ in range(0 if idle else calls):
            connection.call(self._download if slow else self._predict, message(b"") if slow else b"", end=slow)
        self.counted["sent"] += calls

    async def _trickle(self) -> None:
        """The bodies of all connections, a byte of each in turn."""
        body = message(self._request)
        for byte in body:
            for connection in self._connections:
                connection.write(frame(Frame.DATA, 0, 1, bytes((byte,))))
                await asyncio.sleep(1 / self._rate)

    async def _flood(self) -> None:
        """A call every 1 / rate seconds, as many under way as a connection carries."""
        connection, body, loop = _Connection(self._port), message(self._request), asyncio.get_running_loop()
        await connection.open()
        self._connections.append(connection)
        begun, sent = loop.time(), 0
        while True:
            await asyncio.sleep(max(0.0, begun + sent / self._rate - loop.time()))
            if connection.under_way < _STREAMS and connection.window >= len(body):
                connection.call(self._predict, body)
                self.counted["sent"] += 1
            sent += 1

    async def _wait(self) -> None:
        """One request after the other; all of these together keep the rows waiting."""
        row = pb.PredictRequest.FromString(self._request).inputs
        asked = int(self._rate)
        shape = (asked, *row.shape[1:])
        rows = encode(np.zeros(shape, np.float32))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self._port}") as channel:
            predict = channel.unary_unary(_PREDICT, pb.PredictRequest.SerializeToString)
            while True:
                request = pb.PredictRequest(request_id=os.urandom(16), inputs=rows)
                call = predict(request, metadata=(("authorization", f"Bearer {self._key}"),))
                self.counted["sent"] += asked
                try:
                    await call
                    self.counted["ended"] += asked
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.1)


KINDS = (*_ON_A_CONNECTION, "floods_above_the_rate", "bad_keys", "waiting_rows")


async def main(kind: str, port: int, count: int, rate: float) -> None:
    """Take orders until standard input ends."""
    read: Callable[[], Coroutine[Any, Any, str]] = lambda: asyncio.to_thread(sys.stdin.readline)  # noqa: E731
    told = json.loads(await read())
    load = _Load(kind, port, count, rate, told["key"], bytes.fromhex(told["request"]))
    orders = {"on": load.on, "off": load.off}
    while (order := (await read()).strip()) in orders:
        await orders[order]()
        print(json.dumps(load.counted), flush=True)


if __name__ == "__main__":
    os.nice(10)
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
