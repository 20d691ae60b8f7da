"""MI-Face without the weights: its gradient from differences of released scores.

M. Fredrikson, S. Jha, T. Ristenpart, "Model inversion attacks that exploit confidence information and basic
countermeasures", CCS 2015, section 5.3; against rounding, section 6 and Figure 12.

    here                 paper      meaning
    probe                -          h, how far a probe moves one pixel up and down, as far as the range allows
    d                    d          pixels of an image
    f_up, f_down         f~         the target's score with pixel j at x_j + h and at x_j - h
    base                 -          the scores of the unmoved images, one row each, needed for the cost anyway
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from attacker.attacks.mi_face import Cost, MIFace, first_image
from attacker.needs import Needs
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["Differences", "Numeric"]

_NEXT_TO_NOTHING = np.finfo(np.float64).tiny  # stands for a score of 0, whose logarithm would be no number


@dataclass(frozen=True)
class Numeric(MIFace):
    """`MIFace` through Predict: central differences, one-sided where a bound of the range is in the way.

    One step costs a row for the image and up to 2d for its probes: d at an image on the bounds, such as the zero image
    (`probe` 1 on the range [0, 1] takes every pixel to whichever bounds it is not at, the widest legal move). As long
    as all targets' images are equal their rows are shared. A target whose gradient leaves it where it is stops.
    There is a snapshot after every step; `mark` is rows for each target, the extra `steps` (T,) the steps of each.

    Differences from the reference:
    - The paper uses scipy's approximation and the hyper-parameters of section 5.2. At step 0.1 that is 64 million rows
      a face; 100 takes about 3 steps to nearly the same image.
    - scipy's probe is 1.5e-8. A model that computes in float32 hardly shows so small a move, and rounding hides all but
      the widest. The default is the widest: on a model that is nearly linear over a pixel's range it costs nothing.
    - A score that is withheld counts as 0: it is smaller than the smallest one released. With `cost="log"` a score of 0
      has the cost of the smallest number and the slope of the score itself.
    """

    needs: ClassVar[Needs] = Needs.SCORES
    kind: ClassVar[str] = "black box, numeric gradient"
    paper: ClassVar[str] = "Fredrikson et al., CCS 2015, section 5.3"

    max_steps: int = 10
    step: float = 100.0
    probe: float = 1.0

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Reconstruct one image of each of `targets`. Nothing is drawn at random: `seed` changes nothing."""
        x0 = first_image(self.start, self.public, oracle)
        f = Differences(oracle, targets, self.probe, self.cost)
        yield from self.descend(f, x0, len(targets), oracle.low, oracle.high)


class Differences:
    """Costs and gradients from answers; see `attacker.attacks.mi_face.Slope`."""

    def __init__(self, oracle: Oracle, targets: Sequence[int], probe: float, cost: Cost = "probability") -> None:
        if not probe > 0:
            raise ValueError(f"probe={probe} must be positive")
        self._oracle, self._h, self._spent_before = oracle, np.float32(probe), oracle.spent
        self._targets, self._log = np.asarray(targets), cost == "log"

    def cost(self, x: Tensor, live: Tensor) -> Tensor:
        self._x, self._label = x.numpy().reshape(len(x), -1), self._targets[live.numpy()]
        self._shared = len(x) == len(self._targets) and bool((self._x == self._x[0]).all())
        images, tags = (self._x[:1], None) if self._shared else (self._x, self._label)
        answer = self._oracle.query(images.reshape(-1, *self._oracle.input_shape), tags)
        base = _withheld_as_zero(answer.scores)
        self._base = base[0 if self._shared else np.arange(len(x)), self._label]
        return torch.from_numpy(-np.log(np.maximum(self._base, _NEXT_TO_NOTHING)) if self._log else 1 - self._base)

    def gradient(self, keep: Tensor) -> tuple[Tensor, Tensor]:
        rows = keep.numpy()
        groups = [rows] if self._shared else [rows[n : n + 1] for n in range(len(rows))]  # who share an image
        probes = [self._probe(self._x[group[0]]) for group in groups]
        f = [np.tile(self._base[group], (2, self._x.shape[1], 1)) for group in groups]  # (f_up, f_down), (2, d, G)
        chunks = [
            (n, slice(first, first + self._oracle.max_rows))
            for n, probe in enumerate(probes)
            for first in range(0, len(probe.pixel), self._oracle.max_rows)
        ]
        answers = self._oracle.stream(self._batches(chunks, groups, probes))
        for (n, part), answer in zip(chunks, answers, strict=True):
            scores = _withheld_as_zero(answer.scores)[:, self._label[groups[n]]]
            f[n][probes[n].side[part], probes[n].pixel[part]] = scores
        slopes = [_slope(*each) for each in zip(f, probes, strict=True)]
        slope = np.concatenate(slopes)
        if self._log:  # c = -log f; a score of 0 has no logarithm, and its own slope must do
            slope /= np.where(self._base[rows] > 0, self._base[rows], 1)[:, None]
        g = -slope.astype(np.float32)  # c = 1 - f
        x = self._x[rows]
        moves = ((g < 0) & (x < self._oracle.high) | (g > 0) & (x > self._oracle.low)).any(1)  # not just out of range
        return torch.from_numpy(g.reshape(-1, *self._oracle.input_shape)), torch.from_numpy(moves)

    def mark(self, i: int) -> float:
        return (self._oracle.spent - self._spent_before) / len(self._targets)

    def due(self, i: int) -> bool:
        return i > 0

    def _probe(self, x: np.ndarray) -> _Probe:
        """The probes of the image x (d,): two for a pixel that can move both ways, one for a pixel on a bound."""
        ends = np.stack([x + self._h, x - self._h]).clip(self._oracle.low, self._oracle.high)
        side, pixel = (ends != x).nonzero()
        return _Probe(side, pixel, ends)

    def _batches(
        self, chunks: list[tuple[int, slice]], groups: list[np.ndarray], probes: list[_Probe]
    ) -> Iterator[tuple[np.ndarray, int | None]]:
        """Probes as images, all in one array that is changed in place: rows differ from their image in one pixel."""
        most = max((len(probe.pixel) for probe in probes), default=0)
        tile = np.empty((min(most, self._oracle.max_rows), self._x.shape[1]), np.float32)
        shown = -1
        for n, part in chunks:
            image, probe = self._x[groups[n][0]], probes[n]
            if n != shown:
                tile[:], shown = image, n
            j = probe.pixel[part]
            row = np.arange(len(j))
            tile[row, j] = probe.ends[probe.side[part], j]
            tag = None if self._shared else int(self._label[groups[n][0]])
            yield tile[: len(j)].reshape(-1, *self._oracle.input_shape), tag
            tile[row, j] = image[j]


class _Probe(NamedTuple):
    """Probe k moves `pixel[k]` to `ends[side[k], pixel[k]]`: (K,), (K,), (2, d) float32, side 0 up and 1 down."""

    side: np.ndarray
    pixel: np.ndarray
    ends: np.ndarray


def _slope(f: np.ndarray, probe: _Probe) -> np.ndarray:
    """Differences f (2, d, G) over the distances as float32 holds them: (G, d) float64, 0 where a pixel cannot move."""
    distance = probe.ends[0].astype(np.float64) - probe.ends[1]
    slope: np.ndarray = np.divide((f[0] - f[1]).T, distance, where=distance > 0, out=np.zeros(f.shape[:0:-1]))
    return slope


def _withheld_as_zero(scores: np.ndarray | None) -> np.ndarray:
    if scores is None:
        raise ValueError("this key's contract releases no scores: use a key with access 'scores'")
    known: np.ndarray = np.nan_to_num(scores, nan=0.0)
    return known
