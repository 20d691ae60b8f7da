"""How a server ends: at once for new calls, in order for those in flight, within its grace for those that never end."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from attacker.oracle import Oracle
from protos.mirage.v1 import oracle_pb2 as pb
from protos.mirage.v1.oracle_pb2_grpc import OracleStub
from tests.fixtures import Start
from tests.serving import Caller, Forker, Server, inputs, refused

# gRPC cancels a call that reaches a connection which is being closed.
DROPPED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
SLOW_ROWS = 6  # of a model that takes a tenth of a second for each
SLOW_START = """
import pathlib, time
from oracle_server.models.neural import NeuralModel
def warm_up(self):
    pathlib.Path({root!r}, "starting").touch()
    time.sleep(0.3)
NeuralModel.warm_up = warm_up
"""


def slow_call(pool: ThreadPoolExecutor, server: Server, caller: Caller) -> grpc.Future:
    """A call that has been charged and is being answered."""
    future = pool.submit(caller.predict, inputs(SLOW_ROWS), b"the slow call---")
    while not server.books().logged:
        time.sleep(0.002)
    return future


def health_turns(server: Server) -> None:
    """Wait until health says NOT_SERVING, after one SIGTERM."""
    watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    server.process.send(signal.SIGTERM)
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()


def listener_closes(server: Server) -> None:
    """Wait until the listener takes no call any more, a moment after health has turned."""
    stub = health_pb2_grpc.HealthStub(server.channel)
    with contextlib.suppress(grpc.RpcError):
        while True:
            stub.Check(health_pb2.HealthCheckRequest())


def test_new_calls_are_refused_while_those_in_flight_end(start: Start) -> None:
    server = start("slow", options=("--batch", "1"))
    caller = server.new_key(model="slow")
    with ThreadPoolExecutor(1) as pool:
        future = slow_call(pool, server, caller)
        health_turns(server)
        listener_closes(server)
        with grpc.insecure_channel(server.address) as late:
            for channel in (server.channel, late):
                server.channel = channel
                with pytest.raises(grpc.RpcError) as caught:
                    caller.predict(inputs(1))
                assert caught.value.code() in DROPPED
        assert not future.done(), "too fast for this test"
        assert future.result().receipt.rows_charged == SLOW_ROWS
    assert server.process.wait() == 0
    assert not (server.root / "ledger.db-wal").exists(), "the ledger was not flushed"
    server.start()
    assert server.books().logged == SLOW_ROWS


def test_the_attackers_client_gets_over_restarts(start: Start, tmp_path: Path) -> None:
    server = start(options=("--batch", "8"))
    caller = server.new_key()
    asking = threading.Event()

    def ask() -> int:
        with closing(Oracle(server.address, caller.key)) as oracle:
            oracle.begin(tmp_path / "client", {"what": "restarts"})
            for _ in oracle.stream((inputs(8, number), None) for number in range(300)):
                asking.set()
            return oracle.spent

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(ask)
        assert asking.wait(60)
        for _ in range(2):
            port = server.port
            server.process.send(signal.SIGTERM)
            assert server.process.wait() == 0
            server.kill()
            server.start(port)
        assert future.result() == 300 * 8 == server.books().logged


def test_more_signals_change_nothing(start: Start) -> None:
    """They come until the process is gone: while calls end, while the ledger closes, while Python ends."""
    server = start("slow", options=("--batch", "1"))
    caller = server.new_key(model="slow")
    with ThreadPoolExecutor(1) as pool:
        future = slow_call(pool, server, caller)
        while server.process.poll() is None:
            server.process.send(signal.SIGTERM)
            server.process.send(signal.SIGINT)
            time.sleep(0.001)
        assert future.result().receipt.rows_charged == SLOW_ROWS
    assert server.process.status == 0
    assert not (server.root / "server.json").exists()


def test_calls_that_outlast_the_grace_are_cut_off(start: Start) -> None:
    """A download that nobody reads, and rows enough for minutes: the end does not wait for them. What was charged is,
    and its answer is there for who asks again."""
    server = start("slow", "other", options=("--batch", "1", "--grace", "0.3", "--max-rows", "600"))
    reader, asker = server.new_key("weights", model="other"), server.new_key(model="slow")
    narrow = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 16 << 10)]  # buffers that soon are full
    with grpc.insecure_channel(server.address, options=narrow) as channel, ThreadPoolExecutor(1) as pool:
        stream = OracleStub(channel).Download(pb.DownloadRequest(), metadata=reader.metadata)
        assert next(iter(stream)).data
        future = pool.submit(asker.predict, inputs(600), b"the long call---")
        while not server.books().logged:
            time.sleep(0.002)
        server.process.send(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            future.result()
        assert refused(caught.value).reason is None, "no answer of the range's"
        assert server.process.wait() == 0
        with pytest.raises(grpc.RpcError):
            list(stream)
    server.start()
    assert server.books().rows == {asker.key_id: 600}
    assert server.books().downloads == {reader.key_id: 1}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_starts(forker: Forker, root: Path, number: signal.Signals) -> None:
    words = ["serve", "--root", root, "--port", "0", "--device", "cpu"]
    before = SLOW_START.format(root=str(root))
    process = forker.start("oracle_server", words, log=root / "server.log", before=before)
    while not (root / "starting").exists():
        time.sleep(0.002)
    process.send(number)
    assert process.wait() == 0
    assert not (root / "server.json").exists()
    assert not (root / "admin.sock").exists()
