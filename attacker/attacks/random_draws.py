"""The floor under every attack: the best of n images that were drawn without looking at the answers.

Not from a paper. An attack that does not beat this at the same number of rows has learned nothing from the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from attacker.needs import Needs
from attacker.priors.prior import prior_for
from attacker.public import public_images
from attacker.snapshot import Snapshot, rung_above

if TYPE_CHECKING:
    from attacker.answers import Answer
    from attacker.oracle import Oracle

__all__ = ["RandomDraws"]


@dataclass(frozen=True)
class RandomDraws:
    """Draw `draws` images from the prior; keep for each target the one it scores highest, or the first with its label.

    The prior is uniform noise over the legal range, or, with `prior`, draws of an image prior's codes, or, with
    `public`, the images of `public`/images.npy (N, *input_shape) drawn with replacement. Every row serves all targets.
    Snapshots are taken at 100, 300, 1k, 3k, ...
    rows for each target and at the end; a target for which nothing was found yet has the lowest image, and `found` (T,)
    bool in the extras says so. A score that is withheld counts as 0.
    """

    needs: ClassVar[Needs] = Needs.LABELS
    kind: ClassVar[str] = "floor, no inversion"
    paper: ClassVar[str] = "-"

    draws: int = 10_000
    public: Path | None = None
    prior: Path | None = None

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """The best draw for each of `targets`; `seed` makes the draws."""
        rng, T, wanted = np.random.default_rng(seed), len(targets), np.asarray(targets)
        draw = self._source(oracle, rng, seed)
        best = np.full((T, *oracle.input_shape), oracle.low, np.float32)
        score = np.zeros(T)
        sizes = list(_sizes(self.draws, oracle.max_rows, T))
        sent: list[np.ndarray] = []  # drawn, not answered yet

        def batches() -> Iterator[tuple[np.ndarray, None]]:
            for n in sizes:
                sent.append(np.asarray(draw(n), np.float32).clip(oracle.low, oracle.high))
                yield sent[-1], None

        done = 0
        for n, answer in zip(sizes, oracle.stream(batches()), strict=True):
            x, seen = sent.pop(0), _evidence(answer, wanted)
            top = seen.argmax(0)
            better = seen[top, np.arange(T)] > score
            best[better], score[better] = x[top[better]], seen[top[better], better.nonzero()[0]]
            due = rung_above(done / T) * T
            done += n
            if done >= due or done == self.draws:
                yield Snapshot(best.copy(), done / T, {"found": score > 0})

    def _source(self, oracle: Oracle, rng: np.random.Generator, seed: int) -> Callable[[int], np.ndarray]:
        """What draws n images (n, *input_shape)."""
        if self.prior is not None:
            prior, random = prior_for(self.prior, oracle), torch.Generator().manual_seed(seed)
            return lambda n: prior.images(prior.codes.draw(n, random))
        if self.public is not None:
            images = public_images(self.public, oracle)
            return lambda n: images[rng.integers(len(images), size=n)]
        low, wide = np.float32(oracle.low), np.float32(oracle.high - oracle.low)
        return lambda n: rng.random((n, *oracle.input_shape), np.float32) * wide + low


def _evidence(answer: Answer, wanted: np.ndarray) -> np.ndarray:
    """How much each of N answers speaks for each of T targets, (N, T): the score, or 1 for the label."""
    if answer.scores is not None:
        return np.asarray(np.nan_to_num(answer.scores[:, wanted], nan=0.0), dtype=np.float64)
    if answer.labels is None:
        raise ValueError("the oracle answered with neither scores nor labels: use a key that releases one of them")
    return np.asarray(answer.labels[:, None] == wanted, dtype=np.float64)


def _sizes(draws: int, most: int, T: int) -> Iterator[int]:
    """Batches of at most `most` rows that end where a snapshot is due: at the ladder's marks times T."""
    done = 0
    while done < draws:
        n = min(most, draws - done, rung_above(done / T) * T - done)
        yield n
        done += n
