"""What the owner of a model hands over for advice: private photos of its classes, and public images, checked.

    --private   images.npy (N, C, H, W) float32 in [0, 1] and labels.npy (N,), class i being the model's output i;
                or a folder for each class, sorted by name, with its photos
    --public    images.npy (N, C, H, W), as `oracle-server publish` writes it; or photos

Photos are stretched to the model's height and width. Nothing is written here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle_server.models.card import Card
from oracle_server.victims.image_folders import photo_files, read_photo
from oracle_server.victims.images import ImageSet
from oracle_server.victims.publish import pixel_bytes
from oracle_server.victims.split import HANDED_OVER, Split

__all__ = ["FEWEST", "HandedOver", "check_model", "read_handed_over"]

FEWEST = 4  # photos of a class: two teach the evaluation network, two are held out
_SMALLEST = 16  # pixels, for the evaluation network

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class HandedOver:
    """Private and public images as one set, and its rows by what they serve.

    Half of each class, at random, teaches the evaluation network and stands for the class (`split.target`); the other
    half is held out. Nobody knows which of them the model has seen.
    """

    split: Split
    images: ImageSet
    private: int
    public: int


def check_model(card: Card) -> Shape:
    """The shape of an image that the model takes; `ValueError` for a model that cannot be attacked with images."""
    if card.kind != "neural":
        raise ValueError(
            f"{card.id} is a {card.kind} model: advice is given on neural classifiers of images; for a table of people"
            " write a campaign with [[attributes]]"
        )
    if card.classes < 2:
        raise ValueError(f"{card.id} has {card.classes} output: advice is given on classifiers of two classes or more")
    shape = card.input_shape
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape[1:]) < _SMALLEST:
        raise ValueError(
            f"{card.id} takes rows of shape {shape}: advice is given on images (C, H, W) of 1 or 3 channels and at"
            f" least {_SMALLEST} pixels a side"
        )
    if (card.low, card.high) != (0.0, 1.0):
        raise ValueError(
            f"{card.id} takes values from {card.low:g} to {card.high:g}, and photos are read as 0 to 1: import the"
            " model with its scaling inside and --range 0 1"
        )
    return shape[0], shape[1], shape[2]


def read_handed_over(card: Card, private: Path, public: Path) -> HandedOver:
    """Read and check both folders for the model of `card`.

    Raises:
        ValueError: the model, a folder or its content does not fit; the sentence says what to change.
        ImagesUnavailableError: a photo cannot be read.
    """
    shape = check_model(card)
    photos, labels = _private(private, shape, card.classes)
    few = [label for label, count in enumerate(np.bincount(labels, minlength=card.classes)) if count < FEWEST]
    if few:
        found = int((labels == few[0]).sum())
        raise ValueError(
            f"{private}: class {few[0]} has {found} photos"
            + (f", and so few have {len(few)} classes" if len(few) > 1 else "")
            + f"; give at least {FEWEST} of each"
        )
    published = _public(public, shape)
    _apart(photos, published, private, public)
    images = np.concatenate([photos, published])
    everybody = np.concatenate([labels, np.full(len(published), card.classes)])  # a class of its own: nobody known
    digest = hashlib.sha256(images.tobytes() + everybody.tobytes()).hexdigest()
    learned, held_out = _halves(labels)
    split = Split(
        name=f"photos-{digest[:8]}",
        data=HANDED_OVER,
        private=tuple(range(card.classes)),
        public=(),
        target=learned,
        test=held_out,
        evaluations=(learned,),
        evaluation_test=held_out,
        published=tuple(range(len(photos), len(images))),
    )
    credit = "Private photos and public images are those that the owner of the model handed over."
    return HandedOver(split, ImageSet(images, everybody, HANDED_OVER, credit), len(photos), len(published))


def _private(folder: Path, shape: Shape, classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Photos (N, *shape) and their classes (N,)."""
    if (folder / "images.npy").exists():
        photos = _images(folder / "images.npy", shape)
        labels = _array(folder / "labels.npy")
        if labels.shape != photos.shape[:1] or labels.dtype.kind not in "iu":
            raise ValueError(
                f"{folder}/labels.npy is {labels.dtype} of shape {labels.shape}: write one whole number for each of"
                f" the {len(photos)} images"
            )
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"{folder}/labels.npy goes from {labels.min()} to {labels.max()}, the model's outputs from 0 to"
                f" {classes - 1}: class i must be output i"
            )
        return photos, labels.astype(np.int64)
    people = sorted(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
    if not people:
        raise ValueError(f"{folder} holds neither images.npy and labels.npy nor a folder of photos for each class")
    if len(people) != classes:
        raise ValueError(
            f"{folder} holds {len(people)} folders, and the model has {classes} classes: give one for each, whose names"
            " sort as its outputs"
        )
    files = [photo_files(person) for person in people]
    labels = np.repeat(np.arange(classes, dtype=np.int64), [len(paths) for paths in files])
    return _photos([path for paths in files for path in paths], shape), labels


def _public(folder: Path, shape: Shape) -> NDArray[np.float32]:
    """Public images (N, *shape), N >= 2."""
    if (folder / "images.npy").exists():
        images = _images(folder / "images.npy", shape)
    else:
        images = _photos(photo_files(folder), shape)
    if len(images) < 2:
        raise ValueError(
            f"{folder} holds {len(images)} images: give public images as images.npy or as photos, 2 or more"
        )
    return images


def _images(path: Path, shape: Shape) -> NDArray[np.float32]:
    images = _array(path)
    if images.dtype.kind != "f" or images.ndim != 4 or images.shape[1:] != shape or not len(images):
        raise ValueError(
            f"{path} is {images.dtype} of shape {images.shape}: the model takes float32 (N, C, H, W) with (C, H, W) ="
            f" {shape}"
        )
    if not np.isfinite(images).all() or images.min() < 0 or images.max() > 1:
        raise ValueError(f"{path} goes from {images.min():g} to {images.max():g}: pixels must be from 0 to 1")
    return images.astype(np.float32)


def _array(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: write it with numpy.save") from None
    except (ValueError, EOFError):
        raise ValueError(f"{path} is no array: write it with numpy.save") from None
    return array


def _photos(files: list[Path], shape: Shape) -> NDArray[np.float32]:
    if not files:
        return np.empty((0, *shape), np.float32)
    return np.stack([read_photo(path, shape) for path in files]).astype(np.float32) / np.float32(255)


def _apart(photos: NDArray[np.float32], published: NDArray[np.float32], private: Path, public: Path) -> None:
    """Refuse public images that are private photos: who has those needs no model."""
    secret = {pixel_bytes(photo): row for row, photo in reversed(list(enumerate(photos)))}
    shared = [(row, secret[key]) for row, image in enumerate(published) if (key := pixel_bytes(image)) in secret]
    if shared:
        row, photo = shared[0]
        raise ValueError(
            f"{len(shared)} of the {len(published)} images of {public} are private photos of {private} (number {row} is"
            f" photo {photo}, counted from 0): an attacker who has them needs no model; take them out of --public"
        )


def _halves(labels: NDArray[np.int64]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows of each class, at random in halves; of an odd number the first half gets one more."""
    draws = np.random.default_rng(0)
    learned: list[int] = []
    held_out: list[int] = []
    for label in range(int(labels.max()) + 1):
        rows = draws.permutation(np.flatnonzero(labels == label)).tolist()
        learned += rows[: (len(rows) + 1) // 2]
        held_out += rows[(len(rows) + 1) // 2 :]
    return tuple(sorted(learned)), tuple(sorted(held_out))
