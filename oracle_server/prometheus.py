"""Metrics for Prometheus, on a port of their own: `GET /metrics`, without a key, on loopback unless the operator says
otherwise.

What a scraper may do to the server is bounded: few connections, short requests, little time, one answer each.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from oracle_server.metrics import Metrics, Passes
from oracle_server.transport import ServerError
from protos.transport import is_loopback

__all__ = ["Prometheus", "metrics_listener"]

_LOG = logging.getLogger(__name__)
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = tuple(2**n for n in range(11))
_HEAD = 8192  # bytes of a scraper's request
_CONNECTIONS = 16  # at a time: each is an open file that a caller could have had
_TIMEOUT = 10.0  # seconds that a connection has in all


def metrics_listener(host: str, port: int, beyond_loopback: bool = False) -> socket.socket:
    """A socket on which scrapers are awaited; port 0 picks a free one. `ServerError` when it cannot be had."""
    name = host.removeprefix("[").removesuffix("]")
    if not is_loopback(name):
        if not beyond_loopback:
            raise ServerError(
                f"{host} is not a loopback address: metrics are for whoever can reach them, without a key; give"
                " --metrics-beyond-loopback if that is meant"
            )
        _LOG.warning("metrics are served on %s: whoever can reach it reads them, without a key", host)
    try:
        return socket.create_server((name, port), family=socket.AF_INET6 if ":" in name else socket.AF_INET)
    except OSError as error:
        raise ServerError(
            f"cannot listen on {host}:{port} for metrics: is the port in use? choose another --metrics-port"
        ) from error


class _Children(dict[str, Counter]):
    """The counters of one metric by their last label: to look one up in the library takes longer than to count."""

    def __init__(self, metric: Counter, *labels: str) -> None:
        self._metric, self._labels = metric, labels

    def __missing__(self, label: str) -> Counter:
        child = self[label] = self._metric.labels(*self._labels, label)
        return child


class _CountedPasses(Passes):
    def __init__(self, queue: Histogram, forward: Histogram, batch: Histogram) -> None:
        self._queue, self._forward, self._batch = queue, forward, batch

    def waited(self, seconds: float) -> None:
        self._queue.observe(seconds)

    def computed(self, rows: int, seconds: float) -> None:
        self._forward.observe(seconds)
        self._batch.observe(rows)


class Prometheus(Metrics):
    """Counts in a registry of its own, and shows it on `listener`, which `stop` closes."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        host, port = listener.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}  # the oldest is first
        disable_created_metrics()  # type: ignore[no-untyped-call] # for each counter, a second series that says little
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # processor time, memory, open files
        self._calls = self._counter("requests", "Calls that ended, by gRPC status.", "rpc", "status")
        self._refusals = self._counter("refusals", "Calls that were refused, by reason.", "rpc", "reason")
        self._charged = _Children(self._counter("charged_rows", "Rows that were charged.", "model"))
        self._retries = _Children(self._counter("retries", "Requests that were answered again, for free.", "model"))
        self._queue = self._histogram(
            "queue_seconds", "From the admission of a request until its first row is in a forward pass.", "model"
        )
        self._forward = self._histogram(
            "forward_seconds", "Forward passes; after one that failed its requests are tried one by one.", "model"
        )
        self._batch = self._histogram("batch_rows", "Rows of a forward pass.", "model", buckets=_ROWS)
        self._waiting = Gauge(
            "mirage_waiting_rows", "Rows that wait for a forward pass.", ["model"], registry=self._registry
        )
        self._commits = self._histogram("ledger_commit_seconds", "Transactions of charges, until they are on disk.")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"mirage_{name}", meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(f"mirage_{name}", meaning, labels, registry=self._registry, buckets=buckets)

    def calls(self, rpc: str) -> Callable[[str, str | None], None]:
        statuses, reasons = _Children(self._calls, rpc), _Children(self._refusals, rpc)
        statuses["OK"].inc(0)  # so that a rate begins at nought

        def ended(status: str, reason: str | None) -> None:
            statuses[status].inc()
            if reason is not None:
                reasons[reason].inc()

        return ended

    def passes(self, model: str, waiting: Callable[[], int]) -> Passes:
        self._charged[model].inc(0)
        self._retries[model].inc(0)
        self._waiting.labels(model).set_function(waiting)
        return _CountedPasses(*(histogram.labels(model) for histogram in (self._queue, self._forward, self._batch)))

    def charged(self, model: str, rows: int) -> None:
        self._charged[model].inc(rows)

    def retried(self, model: str) -> None:
        self._retries[model].inc()

    def committed(self, seconds: float) -> None:
        self._commits.observe(seconds)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, sock=self._listener, limit=_HEAD)

    async def stop(self) -> None:
        self._server.close()
        for writer in self._connections.values():
            writer.transport.abort()  # to cancel the task would be an error in asyncio's eyes
        if self._connections:
            await asyncio.wait(self._connections)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and one answer; nothing for whoever takes too long, says too much, or leaves. One connection too
        many ends the oldest: who says nothing keeps no scraper out.
        """
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        if len(self._connections) > _CONNECTIONS:
            self._connections.pop(next(iter(self._connections))).transport.abort()
        try:
            async with asyncio.timeout(_TIMEOUT):
                writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.transport.abort()
            self._connections.pop(task, None)

    def _answer(self, request: bytes) -> bytes:
        """The HTTP answer to a request's head."""
        method, _, rest = request.partition(b"\r\n")[0].partition(b" ")
        path, _, version = rest.rpartition(b" ")
        if not version.startswith(b"HTTP/1."):
            return _http("400 Bad Request", b"this is not HTTP/1\n")
        if method != b"GET":
            return _http("405 Method Not Allowed", b"only GET is answered\n", "Allow: GET\r\n")
        if path.partition(b"?")[0] != b"/metrics":
            return _http("404 Not Found", b"metrics are at /metrics\n")
        return _http("200 OK", generate_latest(self._registry), f"Content-Type: {CONTENT_TYPE_PLAIN_0_0_4}\r\n")


def _http(status: str, body: bytes, header: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{header}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
