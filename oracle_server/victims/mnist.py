"""MNIST in full: 70,000 handwritten digits as 32x32 grey images, read from its four IDX files.

The files lie in ``MNIST/raw`` under the data root, where torchvision puts them too, compressed (``.gz``) or not.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oracle_server.victims.digits import CREDIT, SIDE
from oracle_server.victims.images import ImageSet, ImagesUnavailableError, resized

__all__ = ["COUNTS", "FOLDER", "available", "digits", "read_idx"]

FOLDER = Path("MNIST", "raw")
COUNTS = {"train": 60_000, "t10k": 10_000}


def digits(root: Path) -> ImageSet:
    """All digits under the data root `root`: the 60,000 that train, then the 10,000 that test; label i is the digit i.

    Raises:
        ImagesUnavailableError: a file is missing, damaged, or holds another number of digits.
    """
    images, labels = [], []
    for part, count in COUNTS.items():
        images.append(_read(root, f"{part}-images-idx3-ubyte", (count, 28, 28)))
        labels.append(_read(root, f"{part}-labels-idx1-ubyte", (count,)))
    pixels = np.concatenate(images)[:, None].astype(np.float32) / np.float32(255)
    return ImageSet(resized(pixels, SIDE, SIDE), np.concatenate(labels).astype(np.int64), "mnist", CREDIT)


def available(root: Path) -> bool:
    """Whether all four files are there."""
    return all(_file(root, f"{part}-{kind}") for part in COUNTS for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The bytes of an IDX file in their shape; a name that ends in ``.gz`` is read while compressed.

    Raises:
        ImagesUnavailableError: the file cannot be read, or is no IDX file of bytes with as many as its head says.
    """
    damaged = ImagesUnavailableError(f"{path} is damaged or no IDX file of bytes: put an undamaged copy there")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise damaged from error
    # the head: two zero bytes, 8 for unsigned bytes, the number of axes, and each axis as four bytes, largest first
    axes = content[3] if len(content) > 3 else 0
    head = 4 + 4 * axes
    if content[:3] != b"\x00\x00\x08" or axes == 0 or len(content) < head:
        raise damaged
    shape = tuple(np.frombuffer(content, dtype=">u4", count=axes, offset=4).tolist())
    if len(content) != head + math.prod(shape):
        raise damaged
    return np.frombuffer(content, dtype=np.uint8, offset=head).reshape(shape)


def _read(root: Path, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    path = _file(root, name)
    if path is None:
        raise ImagesUnavailableError(f"MNIST is incomplete: put {name}.gz into {root / FOLDER}")
    values = read_idx(path)
    if values.shape != shape:
        raise ImagesUnavailableError(f"{path} has shape {values.shape}, not {shape}: put MNIST's own file there")
    if len(shape) == 1 and values.max() > 9:
        raise ImagesUnavailableError(f"{path} has a label above 9: put MNIST's own file there")
    return values


def _file(root: Path, name: str) -> Path | None:
    folder = root / FOLDER
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
