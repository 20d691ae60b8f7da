"""The weights as a stream of chunks: whole, in order, counted; and nothing but the hosted archive."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from protos.mirage.v1 import oracle_pb2 as pb
from tests.serving import Server


@pytest.mark.parametrize("model", ["linear", "other"])
def test_chunks_are_the_archive(server: Server, models: Path, model: str) -> None:
    caller = server.new_key("weights", model=model)
    *chunks, last = caller.download()
    data = (models / "models" / model / "1" / "model.pt2").read_bytes()
    assert b"".join(chunk.data for chunk in chunks) == data
    assert [chunk.offset for chunk in chunks] == list(range(0, len(data), 1 << 20))
    assert not any(chunk.sha256 for chunk in chunks)
    assert (last.data, last.offset, last.sha256) == (b"", len(data), hashlib.sha256(data).digest())
    card = caller.describe().card
    assert (card.archive_sha256, card.archive_bytes) == (last.sha256, len(data))


def test_downloads_are_counted_and_cost_no_rows(server: Server) -> None:
    caller = server.new_key("weights", budget=0)
    before = caller.usage()
    for _ in range(2):
        assert list(caller.download())
    after = caller.usage()
    assert (before.downloads, after.downloads, after.spent) == (0, 2, 0)
    # Whoever has the weights has been told the whole archive, and no more by a second copy.
    assert after.capacity_bits - before.capacity_bits == 8 * caller.describe().card.archive_bytes


def test_a_download_that_nobody_finishes_is_counted(server: Server) -> None:
    caller = server.new_key("weights", model="other")
    stream = caller.stub.Download(pb.DownloadRequest(), metadata=caller.metadata)
    assert next(iter(stream)).data
    stream.cancel()
    assert caller.usage().downloads == 1
