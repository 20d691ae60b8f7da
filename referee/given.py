"""What a campaign hands to an attacker besides its key.

Either blurred photos of people, of whom some are in the model, or the answers that the oracle released to somebody else
(a benign user with a key of their own, see `referee.benign`) about photos which the attacker never sees.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from oracle_server.victims.images import ImageSet
from oracle_server.victims.splits import Split, class_of
from referee.atomic import write_atomically

__all__ = [
    "BlurredPhotos",
    "GivenAnswers",
    "blur",
    "blurred_photos",
    "check_given",
    "given_answers",
    "people_of",
    "rows_asked",
    "write_images",
]


@dataclass(frozen=True, eq=False)
class BlurredPhotos:
    """Photos that a model no longer recognises: images (N, C, H, W) as handed over, photos (N, C, H, W) as they were,
    people (N,) the place of who is on them among the split's known people; the private ones come first.
    """

    images: np.ndarray
    photos: np.ndarray
    people: np.ndarray


@dataclass(frozen=True, eq=False)
class GivenAnswers:
    """N answers that are handed over: answers (N, K) float64, NaN where withheld, and what only the referee knows of
    them: photos (N, C, H, W) that were asked, people (N,) the place of who is on them among the split's known people,
    kinds (N,) of photos and contracts (N,) by name.
    """

    photos: np.ndarray
    people: np.ndarray
    kinds: np.ndarray
    contracts: np.ndarray
    answers: np.ndarray
    images: None = None  # nothing that the attacker could look at


def rows_asked(split: Split, faces: ImageSet, kind: str, most: int) -> dict[str, list[int]]:
    """Rows of the data set that a benign user asks about, by kind of photo: at most so many of each, drawn at random,
    but always the same of one split, and the first ones when fewer are wanted.

    A classifier's `training` photos are those it learned from, and its `unseen` ones nobody has seen. Of a feature
    model (`kind` features) the question is whether the attacker's public photos show the class: `unknown` are unseen
    photos of private classes, `known` are photos of public ones that were not published.
    """
    if kind == "features":
        spent = {*split.target, *split.test} | (set() if split.published_data else {*split.published})
        public = set(split.public)
        others = [row for row in split.evaluation_test if row not in spent and int(faces.labels[row]) in public]
        lists = {"unknown": list(split.test), "known": others}
    else:
        lists = {"training": list(split.target), "unseen": list(split.test)}
    return {
        name: np.random.default_rng(0).permutation(np.array(rows, dtype=np.int64))[:most].tolist()
        for name, rows in lists.items()
        if rows
    }


def given_answers(
    split: Split, faces: ImageSet, rows: Mapping[str, Sequence[int]], answers: Mapping[str, np.ndarray]
) -> GivenAnswers:
    """The answers of each contract (R, K), to all `rows` kind by kind, as they are handed over: contract by contract.

    Raises `ValueError` for contracts that release different numbers of values.
    """
    widths = {name: values.shape[1] for name, values in answers.items()}
    if len(set(widths.values())) > 1:
        told = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise ValueError(f"contracts of one cell must release equally many values, not {told}: make a cell for each")
    asked = [row for part in rows.values() for row in part]
    kinds = np.repeat(list(rows), [len(part) for part in rows.values()])
    times = len(answers)
    return GivenAnswers(
        photos=np.tile(faces.images[asked], (times, 1, 1, 1)),
        people=np.tile(class_of(faces, asked, split.known), times),
        kinds=np.tile(kinds, times),
        contracts=np.repeat(list(answers), len(asked)),
        answers=np.concatenate(list(answers.values())),
    )


def people_of(text: str, split: Split) -> list[int]:
    """Places among the split's known people from "10-29" or "3,5"; `ValueError` for a place where nobody is."""
    try:
        first, dash, last = text.partition("-")
        places = list(range(int(first), int(last) + 1)) if dash else [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"people = {text!r}: write 10-29 or 3,5") from None
    if not places or min(places) < 0 or max(places) >= len(split.known):
        raise ValueError(f"people = {text!r}: the split {split.name} has people 0 to {len(split.known) - 1}")
    return places


def blur(images: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of images (N, C, H, W), `sigma` in pixels, cut off at three of them."""
    from torchvision.transforms.functional import gaussian_blur  # takes over a second of any command's start

    side = 2 * int(np.ceil(3 * sigma)) + 1
    return np.asarray(gaussian_blur(torch.from_numpy(images), [side, side], [sigma, sigma]).numpy())


def blurred_photos(split: Split, faces: ImageSet, model: nn.Module, *, people: str, sigma: float) -> BlurredPhotos:
    """Photos of these people that the target has not seen, blurred; of the private ones only those that the target no
    longer recognises. Of a public person every photo counts.
    """
    places = people_of(people, split)
    names = [split.known[place] for place in places]
    rows = np.array([row for row in (*split.test, *split.published) if faces.labels[row] in names])
    where = class_of(faces, rows.tolist(), split.known)
    images = blur(faces.images[rows], sigma)
    with torch.no_grad():
        told = model(torch.from_numpy(images)).argmax(dim=1).cpu().numpy()
    kept = told != where
    return BlurredPhotos(images[kept], faces.images[rows][kept], where[kept])


def write_images(images: np.ndarray, path: Path) -> Path:
    """Images as a .npy file for --given."""
    buffer = io.BytesIO()
    np.save(buffer, images, allow_pickle=False)
    write_atomically(path, buffer.getvalue())
    return path


def check_given(values: Mapping[str, Any], split: Split | None, contracts: Sequence[str] = ()) -> dict[str, Any]:
    """The [cells.given] table of a campaign; `ValueError` says what is amiss. `split` is None where its data is not
    here: then people are not looked up. `contracts` are the names that answers may be asked under.
    """
    if "answers" in values:
        return _check_answers(values, contracts)
    if set(values) != {"people", "sigma"}:
        raise ValueError(
            "given needs people (places among the split's known people) and sigma (pixels), or photos (how many of each"
            " kind) and answers (names of contracts)"
        )
    if split is not None:
        people_of(str(values["people"]), split)
    if not float(values["sigma"]) > 0:
        raise ValueError(f"given: sigma = {values['sigma']} must be above 0")
    return dict(values)


def _check_answers(values: Mapping[str, Any], contracts: Sequence[str]) -> dict[str, Any]:
    if unknown := sorted(set(values) - {"photos", "answers"}):
        raise ValueError(f"given has no field {unknown[0]!r} beside answers; there is photos")
    photos, names = values.get("photos"), values["answers"]
    if not isinstance(photos, int) or isinstance(photos, bool) or photos < 1:
        raise ValueError(f"given: photos = {photos!r} must be a whole number above 0")
    if not isinstance(names, list) or not names or len(set(map(str, names))) < len(names):
        raise ValueError(f"given: answers = {names!r} must be a list of different names of contracts")
    for name in names:
        if name not in contracts:
            raise ValueError(f"given: no contract {name!r}; there is {', '.join(contracts)}")
    return dict(values)
