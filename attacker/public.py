"""The folder of public data: images.npy, (N, *input_shape) in the legal range, as oracle-server publish writes it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["public_images", "read_public", "sha256_of_public"]


def read_public(folder: Path) -> np.ndarray:
    """The images (N, *shape) of a folder, left on disk; `ValueError` where there are none."""
    try:
        images: np.ndarray = np.load(Path(folder) / "images.npy", mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise _no_images(folder) from None
    except (ValueError, OSError, EOFError):
        raise ValueError(f"{folder}/images.npy is no array of images: publish the folder again") from None
    return images


def public_images(folder: Path, oracle: Oracle) -> np.ndarray:
    """The public images (N, *input_shape) of a folder, left on disk; `ValueError` if they do not fit the oracle."""
    images = read_public(folder)
    if images.shape[1:] != tuple(oracle.input_shape) or not len(images):
        raise ValueError(
            f"{folder}/images.npy has shape {images.shape}, the oracle takes (N, *{tuple(oracle.input_shape)}): "
            "name a folder that was published for this model"
        )
    return images


def sha256_of_public(folder: Path) -> str:
    """Hash of the folder's images; `ValueError` where there are none."""
    try:
        with (folder / "images.npy").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise _no_images(folder) from None


def _no_images(folder: Path) -> ValueError:
    return ValueError(f"{folder} holds no images.npy: name a folder that oracle-server publish wrote, with --public")
