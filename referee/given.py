"""What a campaign hands to an attacker besides its key: blurred photos of people, of whom some are in the model."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.transforms.functional import gaussian_blur

from oracle_server.victims.images import ImageSet
from oracle_server.victims.splits import Split, class_of
from referee.atomic import write_atomically

__all__ = ["BlurredPhotos", "blur", "blurred_photos", "check_given", "people_of", "write_images"]


@dataclass(frozen=True, eq=False)
class BlurredPhotos:
    """Photos that a model no longer recognises: images (N, C, H, W) as handed over, photos (N, C, H, W) as they were,
    people (N,) the place of who is on them among the split's known people; the private ones come first.
    """

    images: np.ndarray
    photos: np.ndarray
    people: np.ndarray


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


def check_given(values: Mapping[str, Any], split: Split) -> dict[str, Any]:
    """The [cells.given] table of a campaign; `ValueError` says what is amiss."""
    if set(values) != {"people", "sigma"}:
        raise ValueError("given needs people (places among the split's known people) and sigma (pixels)")
    people_of(str(values["people"]), split)
    if not float(values["sigma"]) > 0:
        raise ValueError(f"given: sigma = {values['sigma']} must be above 0")
    return dict(values)
