"""The port of a server's metrics: where it is, who reaches it, and what may come to it."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from oracle_server.prometheus import Prometheus, metrics_listener
from tests.fixtures import Start
from tests.metered import METERED, metrics_address, scrape, until
from tests.serving import Forker, Process, Server, inputs


def test_off_unless_asked_for(server: Server) -> None:
    assert set(json.loads((server.root / "server.json").read_text())) == {"address", "pid"}
    assert "metrics" not in server.process.log


def serve(forker: Forker, root: Path, *options: object) -> Process:
    words = ["serve", "--root", root, "--port", 0, "--device", "cpu", *options]
    return forker.start("oracle_server", words, log=root / "server.log")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_port_in_use(forker: Forker, root: Path, metered: Server, host: str) -> None:
    port = metrics_address(metered).rpartition(":")[2]
    process = serve(forker, root, "--metrics-port", port, "--metrics-host", host)
    assert process.wait() == 1
    sentence = f"cannot listen on {host}:{port} for metrics: is the port in use? choose another --metrics-port"
    assert process.log.splitlines() == [f"Error: {sentence}"]
    assert {path.name for path in root.iterdir()} == {"models", "server.log"}  # nothing else was begun


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "", "example.org"])
def test_beyond_loopback(forker: Forker, root: Path, host: str) -> None:
    process = serve(forker, root, "--metrics-port", 0, "--metrics-host", host)
    assert process.wait() == 1
    assert process.log.splitlines() == [
        f"Error: {host} is not a loopback address: metrics are for whoever can reach them, without a key; give"
        " --metrics-beyond-loopback if that is meant"
    ]
    assert {path.name for path in root.iterdir()} == {"models", "server.log"}


def test_beyond_loopback_when_that_is_meant(start: Start) -> None:
    server = start(options=(*METERED, "--metrics-host", "0.0.0.0", "--metrics-beyond-loopback"))
    assert metrics_address(server).startswith("0.0.0.0:")
    assert "mirage_requests_total" in scrape(server)
    assert " WARNING metrics are served on 0.0.0.0: whoever can reach it reads them" in server.process.log


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_the_other_loopback(host: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with metrics_listener(host, 0) as listener:
        assert Prometheus(listener).address == f"[::1]:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("path", "method", "code"),
    [("/", "GET", 404), ("/metrics/", "GET", 404), ("/metrics", "POST", 405), ("/metrics", "DELETE", 405)],
)
def test_only_metrics_are_there(metered: Server, path: str, method: str, code: int) -> None:
    request = urllib.request.Request(f"http://{metrics_address(metered)}{path}", method=method)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    with caught.value as answer:
        assert answer.code == code
        assert b"mirage_" not in answer.read()
    assert "mirage_requests_total" in scrape(metered, "/metrics?name=value")


def is_open(connection: socket.socket) -> bool:
    """Whether the other end has not closed a connection on which it says nothing."""
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


GARBAGE = [
    b"",
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /metrics\r\n\r\n",
    b"GET /metrics HTTP/2\r\n\r\n",
    b"\x00" * 300 + b"\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 5_000 + b"\r\n",
    b"x" * 100_000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n\r\n",
]


def test_garbage_and_silence_hurt_nobody(metered: Server) -> None:
    """Neither callers nor other scrapers, nor is there a word of it in the log."""
    host, _, port = metrics_address(metered).rpartition(":")
    caller = metered.new_key("label")
    before = len(metered.process.log)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection((host, int(port)), timeout=30)) for _ in range(60)]
        until(lambda: sum(map(is_open, silent)) == 16)  # as many as may be, for some seconds
        for data in GARBAGE:
            with socket.create_connection((host, int(port)), timeout=30) as connection, contextlib.suppress(OSError):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda c=connection: c.recv(1 << 16), b""))  # type: ignore[misc]
                assert b"mirage_" not in answer
                assert not answer or answer.startswith(b"HTTP/1.1 400 ")
        assert caller.predict(inputs(1)).receipt.rows_charged == 1
        assert "mirage_requests_total" in scrape(metered)
    assert metered.process.log[before:] == ""


def test_a_scraper_ends_with_the_server(start: Start) -> None:
    server = start(options=METERED)
    host, _, port = metrics_address(server).rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"GET /metrics")
        assert server.new_key("label").predict(inputs(1)).receipt.spent == 1
        server.process.send(signal.SIGTERM)
        assert server.process.wait() == 0
        assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=30)
    assert [line for line in server.process.log.splitlines() if " INFO " not in line] == [
        f"serving on {server.address}",
        f"metrics on http://{host}:{port}/metrics",
    ]
