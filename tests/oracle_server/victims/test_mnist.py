"""MNIST's IDX files: read while compressed or not, in their order, and refused in one sentence when damaged."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from oracle_server.victims import digits as small
from oracle_server.victims import mnist
from oracle_server.victims.images import ImagesUnavailableError, resized


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny MNIST: 6 digits that train and 4 that test; digit i has grey 10 * i."""
    monkeypatch.setattr(mnist, "COUNTS", {"train": 6, "t10k": 4})
    folder = tmp_path / mnist.FOLDER
    folder.mkdir(parents=True)
    start = 0
    for part, count in mnist.COUNTS.items():
        labels = np.arange(start, start + count, dtype=np.uint8)
        images = np.broadcast_to(10 * labels[:, None, None], (count, 28, 28)).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))  # uncompressed
        start += count
    return tmp_path


def test_train_then_test_compressed_or_not(root: Path) -> None:
    assert mnist.available(root)
    digits = mnist.digits(root)
    assert (digits.images.shape, digits.images.dtype, digits.name) == ((10, 1, 32, 32), np.float32, "mnist")
    assert digits.labels.tolist() == list(range(10))
    np.testing.assert_allclose(digits.images.mean((1, 2, 3)) * 255, np.arange(10) * 10, atol=1e-4)


def test_a_missing_file_is_named(root: Path) -> None:
    (root / mnist.FOLDER / "t10k-labels-idx1-ubyte").unlink()
    assert not mnist.available(root)
    with pytest.raises(ImagesUnavailableError, match=r"put t10k-labels-idx1-ubyte\.gz into .*raw"):
        mnist.digits(root)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not compressed",
        gzip.compress(b""),
        gzip.compress(idx(np.zeros((6, 28, 28), np.uint8)))[:-20],
        gzip.compress(idx(np.zeros((6, 28, 28), np.uint8))[:-1]),
        gzip.compress(b"\0\0\x0d\x03" + idx(np.zeros((6, 28, 28), np.uint8))[4:]),
        gzip.compress(b"\0\0\x08\x03\0\0"),
    ],
    ids=["empty", "no-gzip", "empty-gzip", "cut-gzip", "one-byte-short", "floats", "cut-head"],
)
def test_damaged_files_are_refused(root: Path, content: bytes) -> None:
    (root / mnist.FOLDER / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ImagesUnavailableError, match=r"train-images-idx3-ubyte\.gz is damaged or no IDX file"):
        mnist.digits(root)


def test_other_counts_and_labels_are_refused(root: Path) -> None:
    labels = root / mnist.FOLDER / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(np.zeros(5, np.uint8)))
    with pytest.raises(ImagesUnavailableError, match=r"has shape \(5,\), not \(6,\)"):
        mnist.digits(root)
    labels.write_bytes(idx(np.full(6, 10, np.uint8)))
    with pytest.raises(ImagesUnavailableError, match="a label above 9"):
        mnist.digits(root)


def test_the_real_files_hold_the_small_set(repository_root: Path) -> None:
    shared = repository_root.parent / "shared" / "data"
    folder = shared / mnist.FOLDER
    if not mnist.available(shared):
        pytest.skip(f"{folder} is not there")
    labels = [mnist.read_idx(folder / f"{part}-labels-idx1-ubyte.gz") for part in ("train", "t10k")]
    assert [len(part) for part in labels] == [60_000, 10_000]
    tested = mnist.read_idx(folder / "t10k-images-idx3-ubyte.gz")
    trained = mnist.read_idx(folder / "train-images-idx3-ubyte.gz")[:20_000]
    images = np.concatenate([trained, tested])[:, None].astype(np.float32) / np.float32(255)
    known = {image.tobytes() for image in resized(images, 32, 32)}
    found = sum(image.tobytes() in known for image in small.digits().images[::50])
    assert found > 20  # the same digits, scaled alike: a part of the 100 that were looked up
