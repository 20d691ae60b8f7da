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

from attacker.attacks.descent import LOSSES, IdentityLoss, check_above, descend, identity_loss
from attacker.needs import Needs
from attacker.priors.prior import prior_for
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["LatentGradient"]


@dataclass(frozen=True)
class LatentGradient:
    """weight * identity loss - log p(z), from `starts` draws of the prior for each target, all in one batch.

    `loss` is "cross_entropy", as published, or "margin": the largest other logit less the target's, which does not fade
    where the target is sure. Marks are evaluations of the target model for each target, all starts together; extras are
    those of `attacker.attacks.descent`.

    Differences from the reference:
    - The prior loss is the density of the codes, since principal components and autoencoders have no critic (`gmi` has
      the critic).
    - `optimiser` "adam" needs fewer steps than the momentum of the paper.
    """

    needs: ClassVar[Needs] = Needs.WEIGHTS
    kind: ClassVar[str] = "white box, latent space, gradient descent"
    paper: ClassVar[str] = "after Zhang et al., CVPR 2020"

    loss: IdentityLoss = "cross_entropy"
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
        check_above(self, "weight", "steps", "starts", "step")
        if self.loss not in LOSSES or self.optimiser not in ("momentum", "adam"):
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

        def value(z: Tensor) -> Tensor:
            return self.weight * identity_loss(model(prior.decode(z)), label, self.loss) - codes.log_density(z)

        yield from descend(oracle, prior, z, T, value, descent, self.steps, (low, high) if self.clip else None)
