"""`python -m benchmarks.callers`: callers at once in a process of their own, the load of a measure.

The measuring process takes no part in the load: both would wait for one interpreter lock, and what is measured in
process would be measured beside the leftovers of a client. A `Callers` is such a process, for one `Load`: the protocol
is a function of `PROTOCOLS` that connects the callers of a load, so that one load asks this server or another one.

    with Callers(Load("mirage", address, (1, 64, 64), callers=32, keys=keys)) as callers:
        callers.run(1.0).rows_a_second

Between its runs the process waits for a line and does nothing. Requests are serialised before a run, apart from the
request id, which is fresh each time. Each caller has a connection of its own unless a
load says otherwise, and asks again as soon as it is answered.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import numpy as np

from benchmarks.worker import Run, Worker
from protos.codec import serialize
from protos.inference.open_inference_pb2 import ModelInferRequest
from protos.mirage.v1 import oracle_pb2

__all__ = ["PROTOCOLS", "Ask", "Callers", "Load", "noise", "requests"]

Ask = Callable[[], Awaitable[object]]  # one request and its answer; an error ends the run
_PREDICT = "/mirage.v1.Oracle/Predict"
_MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Load:
    """Who asks whom for what.

    protocol  one of `PROTOCOLS`; `address` is host:port
    shape     of one row; `rows` of them, of `dtype`, are in a request
    keys      API keys, dealt out among the callers, each of whom takes turns with its own; nobody needs one where the
              protocol has none
    model     the name of the model where no key says which, or the path of an HTTP address
    connections  of gRPC that the callers share; 0 is one for each
    """

    protocol: str
    address: str
    shape: tuple[int, ...]
    callers: int = 1
    rows: int = 1
    dtype: str = "float32"
    keys: tuple[str, ...] = ()
    model: str = ""
    connections: int = 0


class Callers(Worker):
    """A process with a load that is connected and waits for its runs."""

    def __init__(self, load: Load) -> None:
        super().__init__("benchmarks.callers", asdict(load))
        self._rows = load.rows

    def run(self, seconds: float) -> Run:
        """About so many seconds of load, after a first request of each caller; none is cut short."""
        return Run(**self._tell(seconds), rows=self._rows)

    def __enter__(self) -> Callers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def noise(shape: Sequence[int], dtype: str = "float32") -> np.ndarray:
    """Rows in [0, 1), or in 0 ... 255 where they are bytes; the same each time."""
    rows = np.random.default_rng(0).random(tuple(shape), dtype=np.float32)
    return (rows * 256).astype(np.uint8) if dtype == "uint8" else rows.astype(dtype)


def _mirage(load: Load, stack: AsyncExitStack) -> list[Ask]:
    """This server's own service; a fresh id for each request, since the same one again would be a free retry."""
    request_id, count = secrets.token_bytes(16), iter(range(1 << 62))
    images = noise((load.callers, load.rows, *load.shape), load.dtype)
    message = oracle_pb2.PredictRequest(request_id=request_id)

    def caller(number: int) -> Ask:
        before, _, after = serialize(message, "inputs", images[number]).partition(request_id)
        predict = _method(load, _PREDICT, number, stack)
        keys = itertools.cycle(load.keys[number % len(load.keys) :: load.callers])

        async def ask() -> object:
            fresh = request_id[:8] + next(count).to_bytes(8, "little")
            metadata = (("authorization", f"Bearer {next(keys)}"),)
            return await predict(b"".join((before, fresh, after)), metadata=metadata)

        return ask

    return [caller(number) for number in range(load.callers)]


def _open_inference(load: Load, stack: AsyncExitStack) -> list[Ask]:
    """KServe V2 over gRPC, with raw contents."""
    images = noise((load.callers, load.rows, *load.shape), load.dtype)

    def caller(number: int) -> Ask:
        rows = ModelInferRequest.InferInputTensor(name="rows", datatype="FP32", shape=images[number].shape)
        message = ModelInferRequest(
            model_name=load.model, inputs=[rows], raw_input_contents=[images[number].tobytes()]
        ).SerializeToString()
        infer = _method(load, _MODEL_INFER, number, stack)
        return lambda: infer(message)

    return [caller(number) for number in range(load.callers)]


def _http(load: Load, stack: AsyncExitStack) -> list[Ask]:
    """A POST of the rows' bytes to the path `model`, answered with bytes whose length is in the header."""
    images = noise((load.callers, load.rows, *load.shape), load.dtype)
    host, port = load.address.rsplit(":", 1)

    def caller(number: int) -> Ask:
        body, connection = images[number].tobytes(), None
        head = f"POST {load.model} HTTP/1.1\r\nHost: {load.address}\r\nContent-Type: application/octet-stream\r\n"
        message = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

        async def ask() -> bytes:
            nonlocal connection
            if connection is None:
                connection = await asyncio.open_connection(host, int(port))
                stack.callback(connection[1].close)
            reader, writer = connection
            writer.write(message)
            header = (await reader.readuntil(b"\r\n\r\n")).lower()
            if header.split(maxsplit=2)[1] != b"200":
                raise RuntimeError(f"{load.address}{load.model} answered {header.decode()}")
            length = header.partition(b"content-length:")[2].partition(b"\r\n")[0]
            return await reader.readexactly(int(length))

        return ask

    return [caller(number) for number in range(load.callers)]


def _method(load: Load, rpc: str, number: int, stack: AsyncExitStack) -> Callable[..., Awaitable[bytes]]:
    """A method on a connection of its own: channels with equal arguments would share one. Who is alone waits for each
    answer as a plain client does, without the two changes of thread that asyncio makes of it.
    """
    options = [("grpc.max_receive_message_length", -1), ("mirage.caller", number % (load.connections or load.callers))]
    if load.callers > 1:
        channel = grpc.aio.insecure_channel(load.address, options=options)
        stack.push_async_callback(channel.close)
        return channel.unary_unary(rpc)
    blocking = stack.enter_context(grpc.insecure_channel(load.address, options)).unary_unary(rpc)

    async def alone(message: bytes, **how: Any) -> bytes:
        return blocking(message, **how)

    return alone


# A function connects all callers of a load and returns a request of each; what has to be closed goes on the stack.
PROTOCOLS: dict[str, Callable[[Load, AsyncExitStack], list[Ask]]] = {
    "mirage": _mirage,
    "open_inference": _open_inference,
    "http": _http,
}


async def _run(asks: Sequence[Ask], seconds: float) -> dict[str, Any]:
    """All callers ask until `seconds` after the last of them had its first answer."""
    spans: list[tuple[float, float]] = []
    begin, waiting = math.inf, len(asks)

    async def call(ask: Ask) -> None:
        nonlocal begin, waiting
        await ask()
        end = time.perf_counter()
        waiting -= 1
        if not waiting:
            begin = end
        while end < begin + seconds:
            start = end
            await ask()
            end = time.perf_counter()
            spans.append((start, end))

    async with asyncio.TaskGroup() as group:
        for ask in asks:
            group.create_task(call(ask))
    answered = [1000 * (end - start) for start, end in spans if end > begin]
    return {"requests": requests(spans, begin, begin + seconds), "seconds": seconds, "milliseconds": answered}


def requests(spans: Iterable[tuple[float, float]], begin: float, end: float) -> float:
    """How many requests, each from its start to its answer, there were from `begin` to `end`. One that lies partly in
    that time counts by its part: answers come in bursts, and a whole burst may end just before or after.

    >>> requests([(0, 2), (2, 4), (4, 8)], 1, 5)
    1.75
    """
    return sum(max(0.0, min(last, end) - max(first, begin)) / (last - first) for first, last in spans)


async def _serve(load: Load) -> None:
    """Connect, then answer each line of the standard input, which is a number of seconds, with what came of them."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        asks = PROTOCOLS[load.protocol](load, stack)
        print("null", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(await _run(asks, json.loads(line))), flush=True)


if __name__ == "__main__":
    fields = json.loads(sys.stdin.readline())
    asyncio.run(_serve(Load(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})))
