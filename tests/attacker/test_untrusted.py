"""Servers that an attacker must not trust: no range's, with a download that was cut or changed, with planted code."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from attacker.oracle import Oracle, OracleError
from protos import RANGE_MARKER, archive
from protos.mirage.v1 import oracle_pb2 as pb
from protos.mirage.v1.oracle_pb2_grpc import OracleServicer, add_OracleServicer_to_server
from tests.hosted import plant

RUN = {"method": "a test"}


class Fake(OracleServicer):
    """Describes itself as it is told, hands out these chunks, and counts what it is asked."""

    def __init__(self, marker: str, data: bytes = b"", chunks: Sequence[pb.DownloadChunk] = ()) -> None:
        self.marker, self.data, self.chunks = marker, data, chunks
        self.predicts = self.downloads = 0

    def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.DescribeResponse:  # noqa: N802
        card = pb.ModelCard(name="fake", version="1", input_shape=[1, 8, 6], input_dtype=1, high=1, classes=5)
        card.archive_sha256 = hashlib.sha256(self.data).digest()
        contract = pb.Contract(access=pb.Contract.ACCESS_WEIGHTS)
        return pb.DescribeResponse(range_marker=self.marker, card=card, contract=contract, max_rows=64)

    def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:  # noqa: N802
        self.predicts += 1
        return pb.PredictResponse()

    def Download(self, request: pb.DownloadRequest, context: Any) -> Iterator[pb.DownloadChunk]:  # noqa: N802
        self.downloads += 1
        yield from self.chunks


@contextlib.contextmanager
def serving(fake: Fake | None) -> Iterator[str]:
    """The address of a fake, or of a gRPC server that serves nothing at all."""
    server = grpc.server(ThreadPoolExecutor(4))
    if fake is not None:
        add_OracleServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize("marker", ["", "mirage-range/0", "MIRAGE-RANGE/1", RANGE_MARKER + " "])
def test_nothing_without_the_range_marker_is_queried(marker: str) -> None:
    fake = Fake(marker)
    with serving(fake) as address, pytest.raises(OracleError) as caught:
        Oracle(address, "k")
    assert str(caught.value) == f"{address} is no oracle of a range ({RANGE_MARKER}): nothing else is ever queried"
    assert (fake.predicts, fake.downloads) == (0, 0)


def test_a_server_of_something_else() -> None:
    with serving(None) as address, pytest.raises(OracleError, match="is oracle-server running at"):
        Oracle(address, "k")


def chunked(data: bytes, *, promise: bytes | None = None) -> list[pb.DownloadChunk]:
    parts = [pb.DownloadChunk(data=data[first : first + 1000], offset=first) for first in range(0, len(data), 1000)]
    return [*parts, pb.DownloadChunk(offset=len(data), sha256=promise or hashlib.sha256(data).digest())]


STREAMS: dict[str, Callable[[bytes], list[pb.DownloadChunk]]] = {
    "nothing": lambda data: [],
    "no last chunk": lambda data: chunked(data)[:-1],
    "no first chunk": lambda data: chunked(data)[1:],
    "a chunk missing": lambda data: chunked(data)[:2] + chunked(data)[3:],
    "a chunk twice": lambda data: chunked(data)[:2] + chunked(data)[1:],
    "chunks in another order": lambda data: [*chunked(data)[1:-1], chunked(data)[0], chunked(data)[-1]],
    "cut short, with a hash that fits": lambda data: chunked(data[:-1]),
    "longer, with a hash that fits": lambda data: chunked(data + b"x"),
    "whole, with another hash": lambda data: chunked(data, promise=bytes(32)),
}


@pytest.mark.parametrize("name", STREAMS)
def test_truncated_or_changed_downloads(models: Path, tmp_path: Path, name: str) -> None:
    data = (models / "models" / "linear" / "1" / "model.pt2").read_bytes()
    with serving(Fake(RANGE_MARKER, data, STREAMS[name](data))) as address:
        oracle = Oracle(address, "k")
        oracle.begin(tmp_path, RUN)
        with pytest.raises(OracleError, match="the download is truncated or was changed on its way"):
            oracle.model()
        oracle.close()
    assert [path.name for path in tmp_path.iterdir()] == ["journal.bin"]


def test_an_archive_that_would_run_code(models: Path, tmp_path: Path) -> None:
    """Whole, with the hash that was promised, and yet it never reaches torch."""
    crafted = tmp_path / "crafted.pt2"
    shutil.copy(models / "models" / "linear" / "1" / "model.pt2", crafted)
    plant(crafted, tmp_path / "ran")
    data = crafted.read_bytes()
    with serving(Fake(RANGE_MARKER, data, chunked(data))) as address:
        oracle = Oracle(address, "k")
        oracle.begin(tmp_path, RUN)
        with pytest.raises(archive.UnsafeArchive, match="is a pickle, which can run code"):
            oracle.model()
        oracle.close()
    assert not (tmp_path / "ran").exists()
