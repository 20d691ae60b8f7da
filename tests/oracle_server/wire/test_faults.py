"""Models that fail, clocks that jump, clients that vanish: who is told what, what is charged, who is served still."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from protos.codec import decode
from protos.mirage.v1 import oracle_pb2 as pb
from protos.mirage.v1.oracle_pb2_grpc import OracleStub
from tests.fixtures import Start
from tests.serving import Forker, Server, assert_refused, inputs, new_root, refused

FAILED = "the model failed on this input: tell the operator"
# What the model `other` does beside answering; the first pixel of a row says what is asked of it.
FAULTY = """
import numpy as np
import torch
from oracle_server.models.neural import NeuralModel

logits = NeuralModel.logits

def faulty(self, requests):
    if self.card.name == "other":
        first = {float(request[0, 0, 0, 0]) for request in requests}
        if 0.25 in first:
            raise RuntimeError("a secret of the model")
        if 0.5 in first:
            return [np.full((len(request), 100), np.nan) for request in requests]
        if 0.75 in first and sum(map(len, requests)) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if 0.875 in first:
            raise SystemExit(3)
    return logits(self, requests)

NeuralModel.logits = faulty
"""
# The wall clock stands as far off as a file says.
CLOCK = """
import os, time
true = time.time
def moved():
    try:
        with open({path!r}) as file:
            return true() + float(file.read())
    except (OSError, ValueError):
        return true()
time.time = moved
"""
WIDE = (1, 64, 64)


def wide(rows: int, first: float) -> np.ndarray:
    x = inputs(rows, shape=WIDE)
    x[0, 0, 0, 0] = first
    return x


@pytest.fixture(scope="module")
def faulty(forker: Forker, models: Path) -> Iterator[Server]:
    root = new_root(models, "linear", "other")
    with contextlib.closing(Server(forker, root, "--batch", "16", before=FAULTY)) as server:
        yield server


@pytest.mark.parametrize("first", [0.25, 0.5, 0.875], ids=["raises", "no number", "wants to exit"])
def test_a_model_that_fails(faulty: Server, first: float) -> None:
    """The caller is told so and how many rows that cost; its neighbours in the pass and other models are answered."""
    caller, neighbour, other = faulty.new_key(model="other"), faulty.new_key(model="other"), faulty.new_key()
    beside = neighbour.stub.Predict.future(neighbour.request(wide(4, 0.0)), metadata=neighbour.metadata, timeout=30)
    with pytest.raises(grpc.RpcError) as caught:
        caller.predict(wide(3, first))
    told = refused(caught.value)
    assert (told.code, told.reason, told.sentence, told.rows_charged) == ("INTERNAL", "MODEL_FAILED", FAILED, 3)
    assert beside.result().receipt.spent == 4
    assert other.predict(inputs(2)).receipt.spent == 2
    assert caller.predict(wide(1, 0.0)).receipt.spent == 4
    books = faulty.books()
    assert [books.rows[key.key_id] for key in (caller, neighbour, other)] == [4, 4, 2]


def test_a_batch_that_exhausts_the_memory(faulty: Server) -> None:
    """It is answered all the same, in smaller passes, as it would have been in one."""
    caller, other = faulty.new_key(model="other"), faulty.new_key()
    x = wide(16, 0.75)
    answer = caller.predict(x)
    assert answer.receipt.spent == 16
    one_by_one = [decode(caller.predict(row[None]).scores)[0] for row in x]
    assert np.allclose(decode(answer.scores), one_by_one, atol=1e-5)
    assert other.predict(inputs(2)).receipt.spent == 2
    assert "out of memory" in faulty.process.log


# Clocks


@pytest.fixture
def clock(start: Start, tmp_path: Path) -> tuple[Server, Callable[[float], None]]:
    """A server, and what moves its clock by so many seconds from the true time."""
    path = tmp_path / "offset"

    def move(seconds: float) -> None:
        new = path.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(path)

    return start("linear", before=CLOCK.format(path=str(path))), move


DAY = 86_400.0
EXPIRED = ("UNAUTHENTICATED", "KEY_EXPIRED", "the API key has expired: ask the operator for another")


def test_a_clock_that_jumps_forward(clock: tuple[Server, Callable[[float], None]]) -> None:
    server, move = clock
    short, long = server.new_key(expires=time.time() + DAY), server.new_key(rate=1e6)
    assert short.predict(inputs(1)).receipt.spent == long.predict(inputs(1)).receipt.spent == 1
    move(2 * DAY)
    assert_refused(server, lambda: short.predict(inputs(1)), *EXPIRED)
    assert [long.predict(inputs(2)).receipt.spent for _ in range(3)] == [3, 5, 7]
    move(0)
    assert short.predict(inputs(1)).receipt.spent == 2, "its time has not come in truth"
    assert server.books().rows == {short.key_id: 2, long.key_id: 7}


def test_a_clock_that_jumps_back(clock: tuple[Server, Callable[[float], None]]) -> None:
    """An expired key stays so; rates, order in the log and books are not the clock's."""
    server, move = clock
    short, long = server.new_key(expires=time.time() + 1.0), server.new_key(rate=5.0)
    first = long.predict(inputs(6))
    time.sleep(1.1)
    assert_refused(server, lambda: short.predict(inputs(1)), *EXPIRED)
    move(-DAY)
    assert_refused(server, lambda: short.predict(inputs(1)), *EXPIRED)
    waits = 0
    while True:  # the bucket's debt is paid in true seconds
        try:
            second = long.predict(inputs(6))
            break
        except grpc.RpcError as error:
            told = refused(error)
            assert (told.reason, waits < 20) == ("SLOW_DOWN", True)
            assert 0 < (told.retry_after or 0) < 5
            waits += 1
            time.sleep(told.retry_after or 0)
    assert second.receipt.sequence > first.receipt.sequence
    books = server.books()
    assert books.rows == {long.key_id: 12}
    assert (books.lines, books.logged) == (2, 12)


# Clients


@contextlib.contextmanager
def cut_after(server: Server, count: int) -> Iterator[str]:
    """An address that leads to the server, for one connection, which is torn after so many bytes of the server's."""

    def upstream(client: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                target.sendall(data)

    def relay() -> None:
        client, _ = listener.accept()
        with client, socket.create_connection(("127.0.0.1", server.port)) as target:
            threading.Thread(target=upstream, args=(client, target), daemon=True).start()
            left = count
            while left and (data := target.recv(min(left, 1 << 14))):
                client.sendall(data)
                left -= len(data)
            for side in (client, target):  # at once, with a reset, as a machine that is gone would leave it
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.shutdown(socket.SHUT_RDWR)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        done = pool.submit(relay)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        done.result()


def test_a_client_that_is_gone_in_mid_answer(start: Start) -> None:
    """It has paid once, and has the same answer when it comes back; nobody else notices, and nothing of it stays."""
    server = start("linear", "other", options=("--max-rows", "600", "--grace", "600"))
    caller, reader, other = server.new_key(model="other"), server.new_key("weights", model="other"), server.new_key()
    request = caller.request(inputs(600, shape=WIDE))
    for count in (100_000, 300_000):  # of an answer of 480,000 bytes
        with cut_after(server, count) as address, grpc.insecure_channel(address) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                OracleStub(channel).Predict(request, metadata=caller.metadata, timeout=30)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert other.predict(inputs(1)).receipt.rows_charged == 1
    answers = [caller.send(request) for _ in range(2)]
    assert [answer.receipt.rows_charged for answer in answers] == [0, 0]
    assert answers[0] == answers[1]
    chunks = []
    with cut_after(server, 1_200_000) as address, grpc.insecure_channel(address) as channel:
        with pytest.raises(grpc.RpcError):
            chunks.extend(OracleStub(channel).Download(pb.DownloadRequest(), metadata=reader.metadata, timeout=30))
        assert not any(chunk.sha256 for chunk in chunks)
    assert sum(len(chunk.data) for chunk in reader.download()) == reader.describe().card.archive_bytes
    books = server.books()
    assert (books.rows, books.downloads) == ({caller.key_id: 600, other.key_id: 2}, {reader.key_id: 2})
    server.process.send(signal.SIGTERM)
    assert server.process.wait() == 0, "a call that nobody waits for is in flight still"
