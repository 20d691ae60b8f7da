"""White-box inversion in the latent space: a loss on the target's logits and the prior's density, by gradient descent.

After Y. Zhang, R. Jia, H. Pei, W. Wang, B. Li, D. Song, "The Secret Revealer: Generative Model-Inversion Attacks
Against Deep Neural Networks" (GMI), CVPR 2020, section 3.3, without the critic, which not every prior has.

    here           paper      meaning
    weight         lambda_i   of the identity loss beside the prior loss
    steps          1,500      of each start
    step, momentum 0.02, 0.9  of the descent with momentum
    starts         5          for each target; the one with the lowest loss is kept
    clip           1          each number of a code stays within that many standard deviations; 0: free
    z              z          codes (N, m), one for each start of each target
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from attacker.attacks.latent import next_due
from attacker.needs import Needs
from attacker.priors.prior import prior_for
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["LatentGradient", "identity_loss"]


@dataclass(frozen=True)
class LatentGradient:
    """weight * identity loss - log p(z), from `starts` draws of the prior for each target, all in one batch.

    `loss` is "cross_entropy", as published, or "margin": the largest other logit less the target's, which does not fade
    where the target is sure. Marks are evaluations of the target model for each target, all starts together.

    Differences from the reference:
    - The prior loss is the density of the codes, since principal components and autoencoders have no critic.
    - `optimiser` "adam" needs fewer steps than the momentum of the paper.
    """

    needs: ClassVar[Needs] = Needs.WEIGHTS
    kind: ClassVar[str] = "white box, latent space, gradient descent"
    paper: ClassVar[str] = "after Zhang et al., CVPR 2020"

    loss: Literal["cross_entropy", "margin"] = "cross_entropy"
    weight: float = 100.0
    steps: int = 1500
    starts: int = 5
    optimiser: Literal["momentum", "adam"] = "momentum"
    step: float = 0.02
    momentum: float = 0.9
    clip: float = 1.0
    prior: Path | None = None

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Reconstruct one image of each of `targets`; `seed` draws the starts."""
        for name in ("weight", "steps", "starts", "step"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        if self.loss not in ("cross_entropy", "margin") or self.optimiser not in ("momentum", "adam"):
            raise ValueError("loss must be 'cross_entropy' or 'margin', optimiser 'momentum' or 'adam'")
        if self.clip < 0 or not 0 <= self.momentum < 1:
            raise ValueError(f"clip={self.clip} must not be below 0, momentum={self.momentum} at least 0 and below 1")
        prior, model = prior_for(self.prior, oracle), oracle.model()
        T, S = len(targets), self.starts
        label = torch.as_tensor(targets).repeat_interleave(S)
        codes = prior.codes
        low, high = (codes.centre + side * self.clip * codes.spread for side in (-1, 1))
        z = codes.draw(S, torch.Generator().manual_seed(seed)).repeat(T, 1)
        if self.clip:
            z = z.clamp(low, high)
        z.requires_grad_()
        descent: torch.optim.Optimizer = (
            torch.optim.Adam([z], self.step)
            if self.optimiser == "adam"
            else torch.optim.SGD([z], self.step, self.momentum)
        )
        due = 0.0
        for i in range(self.steps):
            with torch.enable_grad():
                value = self.weight * identity_loss(model(prior.decode(z)), label, self.loss) - codes.log_density(z)
                descent.zero_grad()
                value.sum().backward()
            evaluations = (i + 1) * S
            if evaluations >= due or i + 1 == self.steps:
                best = value.detach().reshape(T, S).argmin(1) + torch.arange(T) * S
                images = prior.images(z.detach()[best]).clip(oracle.low, oracle.high)
                yield Snapshot(images, float(evaluations), {"codes": z.detach()[best].numpy().copy()})
                due = next_due(evaluations)
            descent.step()
            if self.clip:
                with torch.no_grad():
                    z.copy_(z.clamp(low, high))


def identity_loss(logits: Tensor, label: Tensor, loss: str) -> Tensor:
    """The loss (N,) of logits (N, C) against the targets' classes (N,), float64."""
    logits = logits.double()
    if loss == "cross_entropy":
        return functional.cross_entropy(logits, label, reduction="none")
    own = logits.gather(1, label[:, None])[:, 0]
    others = logits.scatter(1, label[:, None], -torch.inf).amax(1)
    return others - own
