"""Splits that follow a rule: random for each class, and fixed by a seed.

Names are ``<data>-<kind>[-k<private classes>][-s<seed>]``. Kinds, after Yang et al. (CCS 2019), say how near the public
images are to the private ones:

    same      other images of the same classes are public: of each class 50% train, 45% are published, 5% test
    five      five digits are private (0, 1, 2, 3, 8), images of the other five are public
    generic   as five, with 0-4 private, half of the rows to train and two evaluation networks on rows of their own
    distinct  all ten digits are private, and public are photos of other things
    celeba    all people of facescrub are private, and public are those of celeba who are nobody of facescrub
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oracle_server.victims import att, cifar, image_folders
from oracle_server.victims.data import DATA, data_available, data_root, needed_root
from oracle_server.victims.images import ImageSet
from oracle_server.victims.parts import parted
from oracle_server.victims.split import Rows, Split

__all__ = ["NAMES", "ruled_split"]

_KINDS = {
    "digits": ("same", "five", "generic", "distinct"),
    "mnist": ("same", "five", "generic", "distinct"),
    "facescrub": ("same", "celeba"),
}

NAMES = tuple(
    f"{data}-{kind}{'[-k<classes>]' if kind == 'same' else ''}[-s<seed>]"
    for data, kinds in _KINDS.items()
    for kind in kinds
)

_NAME = re.compile(r"(?P<data>[a-z0-9]+)-(?P<kind>[a-z]+)(-k(?P<classes>[1-9]\d{0,5}))?(-s(?P<seed>\d{1,9}))?")


def ruled_split(name: str) -> Split | None:
    """The split of that name; None when the name follows no rule.

    Raises:
        ValueError: more classes are to be private than there are, or a class has too few images.
        ImagesUnavailableError: the data set is not there.
    """
    found = _NAME.fullmatch(name)
    if not found or found["kind"] not in _KINDS.get(found["data"], ()):
        return None
    if found["classes"] and found["kind"] != "same":
        return None
    return _made(
        name,
        found["data"],
        found["kind"],
        int(found["classes"]) if found["classes"] else None,
        int(found["seed"] or 0),
        data_root(),
    )


@functools.lru_cache(maxsize=32)
def _made(name: str, data: str, kind: str, classes: int | None, seed: int, root: Path | None) -> Split:
    # `root` is here for the memory only: another data root is other data
    random = np.random.default_rng(seed)
    images = DATA[data]()
    if kind == "same":
        return _same(name, images, classes, random)
    if kind == "five":
        return _five(name, images, random)
    if kind == "generic":
        return _generic(name, images, random)
    return _distinct(name, images, random, foreign=_celeba() if kind == "celeba" else _other_things())


def _same(name: str, images: ImageSet, classes: int | None, random: np.random.Generator) -> Split:
    count = int(images.labels.max()) + 1
    if classes is not None and classes > count:
        raise ValueError(f"split {name}: {images.name} has {count} classes: make at most {count} private")
    # With a number of classes, private are the first ones of a random order, so that fewer are among more, and so that
    # evaluation networks, which know private classes first, are the same for every number.
    order = tuple(range(count)) if classes is None else tuple(random.permutation(count).tolist())
    seed = random.spawn(1)[0]  # the rows must not depend on whether an order was drawn
    learned, published, tested = _parts(name, images, (0.5, 0.45, 0.05), seed)
    private = order[:classes]
    return Split(
        name=name,
        data=images.name,
        private=private,
        public=order,
        target=_of(learned, private),
        test=_of(tested, private),
        evaluations=(_of(learned, order),),
        evaluation_test=_of(tested, order),
        published=_of(published, sorted(order)),
    )


def _five(name: str, images: ImageSet, random: np.random.Generator) -> Split:
    private, public = (0, 1, 2, 3, 8), (4, 5, 6, 7, 9)
    learned, tested = _parts(name, images, (0.8, 0.2), random)
    return Split(
        name=name,
        data=images.name,
        private=private,
        public=public,
        target=_of(learned, private),
        test=_of(tested, private),
        evaluations=(_of(learned, private + public),),
        evaluation_test=_of(tested, private + public),
        published=_of(learned, public),
    )


def _generic(name: str, images: ImageSet, random: np.random.Generator) -> Split:
    private, public = tuple(range(5)), tuple(range(5, 10))
    learned, first, second, tested = _parts(name, images, (0.5, 0.2, 0.2, 0.1), random)
    known = private + public
    return Split(
        name=name,
        data=images.name,
        private=private,
        public=public,
        target=_of(learned, private),
        test=_of(tested, private),
        evaluations=(_of(first, known), _of(second, known)),
        evaluation_test=_of(tested, known),
        published=tuple(chain.from_iterable(_of(part, public) for part in (learned, first, second))),
    )


def _distinct(name: str, images: ImageSet, random: np.random.Generator, foreign: tuple[str, Rows]) -> Split:
    private = tuple(range(int(images.labels.max()) + 1))
    learned, tested = (_of(part, private) for part in _parts(name, images, (0.8, 0.2), random))
    data, rows = foreign
    return Split(
        name=name,
        data=images.name,
        private=private,
        public=(),
        target=learned,
        test=tested,
        evaluations=(learned,),
        evaluation_test=tested,
        published=rows,
        published_data=data,
    )


def _other_things() -> tuple[str, Rows]:
    """What is neither digit nor letter: CIFAR-10 when it is there, else the AT&T faces."""
    if data_available("cifar10"):
        return "cifar10", tuple(range(cifar.ROWS))
    return "att64", tuple(range(att.PEOPLE * att.PHOTOS))


def _celeba() -> tuple[str, Rows]:
    """Photos of those who, by the names of the folders, are nobody of facescrub."""
    root = needed_root("celeba")
    private = set(image_folders.identities(root, "facescrub"))
    strangers = [n for n, who in enumerate(image_folders.identities(root, "celeba")) if who not in private]
    rows = np.flatnonzero(np.isin(DATA["celeba"]().labels, strangers))
    return "celeba", tuple(rows.tolist())


def _parts(
    name: str, images: ImageSet, shares: Sequence[float], random: np.random.Generator
) -> list[list[NDArray[np.int64]]]:
    """For each share the rows of every class: a random part of that size, at least one row, in the data's order."""
    result: list[list[NDArray[np.int64]]] = [[] for _ in shares]
    for label in range(int(images.labels.max()) + 1):
        rows = random.permutation(np.flatnonzero(images.labels == label))
        if len(rows) < len(shares):
            raise ValueError(f"split {name}: class {label} has {len(rows)} images: it needs at least {len(shares)}")
        for part, chosen in zip(result, parted(rows, shares), strict=True):
            part.append(np.sort(chosen))
    return result


def _of(part: Sequence[NDArray[np.int64]], classes: Iterable[int]) -> Rows:
    return tuple(np.concatenate([part[label] for label in classes]).tolist())
