"""The starts of a finished cell of `yoshimura` or `yoshimura_white`, and line-ups of what they ended in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from oracle_server.victims.splits import class_of
from referee.cell import Cell
from referee.figures.latent import rank_among
from referee.metrics.lineup import similarities

if TYPE_CHECKING:
    from referee.judge import Judge
    from referee.results import Results

__all__ = ["Starts", "seven_candidates", "starts_of"]

_DUMMIES = 2  # candidates whom no image shows


@dataclass(frozen=True, eq=False)
class Starts:
    """images (T, S, C, H, W), codes (T, S, m); the rest (T, S): target, released confidence, rows, steps."""

    images: np.ndarray
    codes: np.ndarray
    targets: np.ndarray
    confidence: np.ndarray
    rows: np.ndarray
    steps: np.ndarray

    def recognised(self, network: nn.Module, classes: int | None = None) -> np.ndarray:
        """Whom a network names rightly, (T, S) bool, among the first `classes` that it knows."""
        flat = self.images.reshape(-1, *self.images.shape[2:])
        return rank_among(network, flat, self.targets.ravel(), classes).reshape(self.targets.shape)


def starts_of(results: Results, cell: Cell) -> Starts:
    """What the attacker left of every start."""
    with np.load(results.attacker_arrays(cell), allow_pickle=False) as arrays:
        found = {name: arrays[f"extra_start_{name}"] for name in ("images", "codes", "confidence", "rows", "steps")}
        targets = np.broadcast_to(arrays["targets"][:, None], found["rows"].shape)
    return Starts(targets=targets, **found)


def seven_candidates(judge: Judge, starts: Starts, view: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Whether an onlooker picks the right one (T, S) among unseen photos of all T people and of two more private ones.

    `view` is how the onlooker sees images, (N, C, H, W) -> (N, F); the candidate whose photo is most alike is picked.
    """
    people = starts.targets[:, 0].tolist()
    people += [person for person in range(len(judge.split.private)) if person not in people][:_DUMMIES]
    rows = np.sort(judge.split.test)
    owner = class_of(judge.faces, rows.tolist(), judge.split.private)
    random = np.random.default_rng(0)
    photos = np.stack([random.choice(rows[owner == person], size=starts.targets.size) for person in people], 1)
    choices = view(judge.faces.images[rows])[np.searchsorted(rows, photos)]  # (T * S, 7, F)
    queries = view(starts.images.reshape(-1, *starts.images.shape[2:]))
    picked = similarities(queries, choices).argmax(1).reshape(starts.targets.shape)
    return np.asarray(picked == np.arange(len(picked))[:, None])
