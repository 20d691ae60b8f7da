"""CIFAR-10, made grey: 60,000 small photos of ten kinds of things, none of them a digit or a face."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from oracle_server.victims.images import ImageSet, ImagesUnavailableError

__all__ = ["CREDIT", "FOLDER", "ROWS", "available", "photos"]

FOLDER = "cifar-10-batches-py"
ROWS = 60_000
CREDIT = "CIFAR-10: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009."

_GREY = np.array([299, 587, 114], dtype=np.float32) / np.float32(1000)  # ITU-R BT.601, as PIL's mode L


def photos(root: Path) -> ImageSet:
    """All photos under the data root `root`, ``(60000, 1, 32, 32)``: the 50,000 that train, then the 10,000 that test.

    Raises:
        ImagesUnavailableError: the files are missing or not CIFAR-10's own; torchvision compares their hashes.
    """
    from torchvision.datasets import CIFAR10  # takes a second, which other data sets need not wait for

    try:
        parts = [CIFAR10(root=root, train=train, download=False) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise ImagesUnavailableError(
            f"CIFAR-10 is missing or damaged: unpack cifar-10-python.tar.gz so that {root / FOLDER} is a folder"
        ) from error
    grey = [np.rint(part.data.astype(np.float32) @ _GREY)[:, None] / np.float32(255) for part in parts]
    labels = np.concatenate([np.asarray(part.targets, dtype=np.int64) for part in parts])
    return ImageSet(np.concatenate(grey).astype(np.float32), labels, "cifar10", CREDIT)


def available(root: Path) -> bool:
    """Whether its folder is there."""
    return (root / FOLDER).is_dir()
