"""Photos in folders, one folder for each identity: ``<root>/<data set>/<identity>/<any name>.jpg``, .jpeg, .png, .pgm.

FaceScrub and CelebA are kept that way. Both have terms of use, which whoever publishes photos of them must accept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from oracle_server.victims.images import ImageSet, ImagesUnavailableError

__all__ = ["FOLDERS", "SIDE", "Folder", "available", "identities", "photo_files", "photos", "read_photo"]

SIDE = 64
_ENDINGS = (".jpg", ".jpeg", ".png", ".pgm")


class Folder(NamedTuple):
    """What is known of a data set before its photos are read."""

    credit: str
    terms: str


FOLDERS: Mapping[str, Folder] = MappingProxyType(
    {
        "facescrub": Folder(
            "FaceScrub: H.-W. Ng and S. Winkler, A data-driven approach to cleaning large face datasets, ICIP 2014.",
            "For research that is not commercial; the photos belong to their owners and must not be passed on.",
        ),
        "celeba": Folder(
            "CelebA: Z. Liu, P. Luo, X. Wang and X. Tang, Deep Learning Face Attributes in the Wild, ICCV 2015.",
            "For research that is not commercial; the photos belong to their owners and must not be passed on.",
        ),
    }
)


def photos(root: Path, name: str) -> ImageSet:
    """All photos of the data set `name` under the data root, grey, ``(N, 1, 64, 64)``, by identity and then by file.

    A label is the place of the identity in ``identities(root, name)``. A photo that is not square is stretched.

    Raises:
        ImagesUnavailableError: the folder is missing, holds no photos, or a photo cannot be read.
    """
    files = [photo_files(root / name / identity) for identity in identities(root, name)]
    pixels = np.stack([read_photo(path, (1, SIDE, SIDE)) for paths in files for path in paths])
    labels = np.repeat(np.arange(len(files), dtype=np.int64), [len(paths) for paths in files])
    return ImageSet(pixels.astype(np.float32) / np.float32(255), labels, name, *FOLDERS[name])


def identities(root: Path, name: str) -> tuple[str, ...]:
    """The names of the folders that hold a photo, sorted.

    Raises:
        ImagesUnavailableError: there is no such folder.
    """
    if not available(root, name):
        raise ImagesUnavailableError(f"{name} is missing: put its photos into {root / name}/<identity>/<name>.jpg")
    found = tuple(sorted(folder.name for folder in (root / name).iterdir() if folder.is_dir() and photo_files(folder)))
    if not found:
        raise ImagesUnavailableError(f"no photos in {root / name}: put them into <identity>/<name>.jpg there")
    return found


def available(root: Path, name: str) -> bool:
    """Whether the folder of the data set is there."""
    return (root / name).is_dir()


def photo_files(folder: Path) -> list[Path]:
    """The files of a folder that are photos by the ending of their names, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)


def read_photo(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A photo as `shape` (C, H, W), bytes: grey for one channel, colours for three; stretched to H x W.

    Raises:
        ImagesUnavailableError: the file cannot be read.
    """
    channels, height, width = shape
    try:
        with Image.open(path) as image:
            stretched = image.convert("L" if channels == 1 else "RGB").resize(
                (width, height), Image.Resampling.BILINEAR
            )
            pixels = np.asarray(stretched, dtype=np.uint8)
            return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:  # all of which PIL's readers raise
        raise ImagesUnavailableError(f"cannot read the photo {path}: replace or remove it") from error
