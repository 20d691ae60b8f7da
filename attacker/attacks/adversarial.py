"""A control, no inversion: public images that are changed so little that nobody sees it, until the target is fooled.

A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu, "Towards Deep Learning Models Resistant to Adversarial Attacks",
ICLR 2018: projected gradient descent. An evaluation that takes such images for reconstructions measures the target's
own peculiarities and not what it gives away.

    here    paper     meaning
    size    epsilon   most that a pixel may change, as a share of the range
    step    alpha     of each step, as a share of `size`
    steps   -         number of steps
    x       x         images (N, C, H, W), `starts` for each target
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from attacker.attacks.descent import check_above, identity_loss, lowest
from attacker.attacks.latent import next_due
from attacker.needs import Needs
from attacker.public import public_images
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["Adversarial"]


@dataclass(frozen=True)
class Adversarial:
    """Lower the margin of random public images by signed steps, within `size` of where they began.

    The image of a target is that of its start with the lowest margin. The last snapshot has all of them, `samples`
    (T, starts, *shape), and what they were, `originals`. Marks are evaluations of the target for each target.
    """

    needs: ClassVar[Needs] = Needs.WEIGHTS
    kind: ClassVar[str] = "control, no inversion"
    paper: ClassVar[str] = "Madry et al., ICLR 2018"

    size: float = 0.05
    step: float = 0.1
    steps: int = 40
    starts: int = 20
    public: Path | None = None

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Fool the target about each of `targets`; `seed` draws the public images."""
        check_above(self, "size", "step", "steps", "starts")
        if self.public is None:
            raise ValueError("adversarial changes public images: name a folder with images.npy (--public)")
        images, model, T = public_images(self.public, oracle), oracle.model(), len(targets)
        rows = np.random.default_rng(seed).choice(len(images), T * self.starts)
        original = torch.from_numpy(np.asarray(images[rows], np.float32).clip(oracle.low, oracle.high))
        label = torch.as_tensor(targets).repeat_interleave(self.starts)
        size = self.size * (oracle.high - oracle.low)
        low, high = (original - size).clamp(min=oracle.low), (original + size).clamp(max=oracle.high)
        x, due = original.clone(), 0.0
        for i in range(self.steps):
            with torch.enable_grad():
                x.requires_grad_()
                margin = identity_loss(model(x), label, "margin")
                (slope,) = torch.autograd.grad(margin.sum(), x)
            x = x.detach()
            evaluations, last = (i + 1) * self.starts, i + 1 == self.steps
            if evaluations >= due or last:
                best = lowest(margin.reshape(T, self.starts))
                extras = {}
                if last:
                    shape = (T, self.starts, *oracle.input_shape)
                    extras = {"samples": x.numpy().reshape(shape), "originals": original.numpy().reshape(shape)}
                yield Snapshot(x[best].numpy(), float(evaluations), extras)
                due = next_due(evaluations)
            x = (x - self.step * size * slope.sign()).clamp(low, high)
