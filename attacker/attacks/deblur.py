"""Deblurring: who is on a blurred photo that a face classifier no longer recognises, and what the face looks like.

M. Fredrikson, S. Jha, T. Ristenpart, "Model inversion attacks that exploit confidence information and basic
countermeasures", CCS 2015, section 5, second attack, and Algorithm 1. The paper defers its AUXTERM to a technical
report; the one below is our own.

    here                 paper      meaning
    given                -          y, the blurred photos (N, *input_shape)
    sigma                -          standard deviation of the Gaussian blur that the attacker assumes, in pixels
    weight               -          w, of AUXTERM(x) = w * mean((blur(x) - y)^2)
    threshold            -          the greatest final cost with which a photo is of somebody that the model knows
    A, B                 -          blur(x) = A x B^T for each channel: the blur of columns and of rows
    T, C                 -          photos, classes: all T * C searches are one batch
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from attacker.attacks.mi_face import MIFace, WhiteBox
from attacker.images import count_images, read_images
from attacker.needs import Needs
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["Deblur"]

_MOST_ROWS = 2048  # searches in one batch; each holds about ten images in memory
_SHARE = 0.01  # of the blur's largest singular value: what it weakens more than that says nothing about a photo


@dataclass(frozen=True)
class Deblur:
    """From each blurred photo to every class of the model; the class of the least final cost wins.

    A search starts at the photo and minimises 1 - f_class(x) + w * mean((blur(x) - y)^2): a face of that class that
    would look like the photo if it were blurred. Targets are the photos of `given`, a .npy file (N, *input_shape)
    float32. The images of its only snapshot are those of the winning classes (T, *input_shape); extras are `label` (T,)
    int64, -1 where the least cost is above `threshold` and the photo is of nobody the model knows, `cost` (T, C)
    float64 and `steps` (T, C) int64.

    Differences from the reference:
    - The paper says neither what AUXTERM is nor how the label or nobody is decided.
    - The blur is kept to its leading singular vectors, an eighth of the work: the rest leaves no trace in a photo.
    - All searches make all steps (confidence 1): costs are compared, and must not depend on when a search stopped.
    - Momentum: the photo holds the coarse part of the face fixed at once, and the fine part is long on its way.
    """

    needs: ClassVar[Needs] = Needs.WEIGHTS
    kind: ClassVar[str] = "white box, gradient descent from a blurred photo"
    paper: ClassVar[str] = "Fredrikson et al., CCS 2015, section 5 (deblurring)"

    max_steps: int = 60
    step: float = 5.0
    momentum: float = 0.8
    sigma: float = 10.0
    weight: float = 1000.0
    threshold: float = 0.0015
    given: Path | None = None

    def entries(self) -> int:
        return count_images(self.given)

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Deblur the photos at `targets` of the file. Nothing is drawn at random: `seed` changes nothing."""
        y = torch.from_numpy(read_images(self.given, oracle)[np.asarray(targets)])
        if y.ndim != 4:
            raise ValueError(f"the model takes inputs of shape {tuple(y.shape[1:])}: only images (C, H, W) are blurred")
        model, T, C = oracle.model(), len(y), oracle.classes
        # lines 3-10 are those of MI-Face, without its stops
        descent = MIFace(self.max_steps, self.max_steps + 1, 1.0, self.step, momentum=self.momentum)
        images, cost, steps = torch.empty_like(y), np.empty((T, C)), np.empty((T, C), np.int64)
        for part in np.split(np.arange(T), range(most := max(1, _MOST_ROWS // C), T, most)):
            owner = torch.arange(len(part)).repeat_interleave(C)
            f = _WithPhoto(model, torch.arange(C).repeat(len(part)), y[part], owner, self.sigma, self.weight)
            *_, last = descent.descend_each(f, y[part][owner], oracle.low, oracle.high)
            x = torch.from_numpy(last.images)
            cost[part] = f.cost(x, torch.arange(len(x))).reshape(-1, C).numpy()
            steps[part] = last.extras["steps"].reshape(-1, C)
            images[part] = x.reshape(-1, C, *y.shape[1:])[np.arange(len(part)), cost[part].argmin(1)]
        label = np.where(cost.min(1) <= self.threshold, cost.argmin(1), -1)
        yield Snapshot(images.numpy(), float(steps.max()), {"label": label, "cost": cost, "steps": steps})


class _WithPhoto(WhiteBox):
    """Line 2 with AUXTERM: row n belongs to the photo y[owner[n]]."""

    def __init__(self, model: nn.Module, labels: Tensor, y: Tensor, owner: Tensor, sigma: float, weight: float) -> None:
        super().__init__(model, labels.tolist())
        (self._A, left), (self._B, right) = (_blur(side, sigma) for side in y.shape[2:])
        self._y, self._owner, self._w = left @ y @ right.T, owner, weight / y[0].numel()

    def cost(self, x: Tensor, live: Tensor) -> Tensor:
        self._r = self._A @ x @ self._B.T - self._y[self._owner[live]]
        return super().cost(x, live) + self._w * self._r.square().sum((1, 2, 3)).double()

    def gradient(self, keep: Tensor) -> tuple[Tensor, Tensor]:
        g, _ = super().gradient(keep)
        aux = 2 * self._w * (self._A.T @ self._r[keep] @ self._B)
        return g + aux, torch.ones(len(g), dtype=torch.bool)  # the photo leads on where the model does not


def _blur(n: int, sigma: float) -> tuple[Tensor, Tensor]:
    """S V^T (k, n) and U^T (k, n) of the blur U S V^T of n pixels in a row, mirrored at the ends."""
    from torchvision.transforms.functional import gaussian_blur  # takes over a second of any command's start

    reach = int(np.ceil(3 * sigma))
    if not 0 < reach < n:
        raise ValueError(f"sigma={sigma} must be above 0, and three times as wide less than the image's {n} pixels")
    columns = gaussian_blur(torch.eye(n, dtype=torch.float64)[None], [2 * reach + 1, 1], [sigma, sigma])[0]
    U, S, Vh = torch.linalg.svd(columns.T)
    k = int((_SHARE * S[0] < S).sum())
    return (S[:k, None] * Vh[:k]).float(), U[:, :k].T.float().contiguous()
