"""GMI: white-box inversion in a GAN's latent space, by the target's loss and the critic's opinion of the image.

Y. Zhang, R. Jia, H. Pei, W. Wang, B. Li, D. Song, "The Secret Revealer: Generative Model-Inversion Attacks Against Deep
Neural Networks", CVPR 2020, section 3.3.

    here           paper      meaning
    weight         lambda_i   of the identity loss beside the prior loss
    steps          1,500      of each start
    step, momentum 0.02, 0.9  of the descent with momentum
    starts         5          for each target; the one with the lowest loss is kept
    clip           1          bound on each number of a code
    z              z          codes (N, m), one for each start of each target
    G, D           G, D       generator and critic of the prior
    prior loss     L_prior    -D(G(z))
    identity loss  L_id       of the target on G(z)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from attacker.attacks.descent import LOSSES, IdentityLoss, check_above, descend, identity_loss
from attacker.needs import Needs
from attacker.priors.prior import prior_for
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["GMI"]


@dataclass(frozen=True)
class GMI:
    """Minimise L_prior + weight * L_id from `starts` draws of the prior for each target, all in one batch.

    Marks are evaluations of the target model for each target, all starts together; extras are those of
    `attacker.attacks.descent`: every start is a reconstruction, the image of a target is the one with the lowest loss.

    Differences from the reference:
    - Each target has starts of its own.
    - The prior is any whose archive keeps a critic; the published one, a Wasserstein GAN with gradient penalty 10, is
      `dcgan` with loss=wasserstein.
    - `loss` "margin" is an option.
    """

    needs: ClassVar[Needs] = Needs.WEIGHTS
    kind: ClassVar[str] = "white box, latent space, gradient descent"
    paper: ClassVar[str] = "Zhang et al., CVPR 2020"

    loss: IdentityLoss = "cross_entropy"
    weight: float = 100.0
    steps: int = 1500
    starts: int = 5
    step: float = 0.02
    momentum: float = 0.9
    clip: float = 1.0
    prior: Path | None = None

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Reconstruct each of `targets`; `seed` draws the starts. `ValueError` for a prior without a critic."""
        check_above(self, "weight", "steps", "starts", "step", "clip")
        if self.loss not in LOSSES:
            raise ValueError(f"loss={self.loss!r} must be one of {', '.join(LOSSES)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum} must be at least 0 and below 1")
        prior, model = prior_for(self.prior, oracle), oracle.model()
        if (D := prior.critic) is None:
            raise ValueError(
                f"gmi needs a prior with a critic, which {self.prior} has not: train a dcgan or style prior"
            )
        T, S = len(targets), self.starts
        label = torch.as_tensor(targets).repeat_interleave(S)
        bound = torch.full((prior.codes.latent,), self.clip)
        z = prior.codes.draw(T * S, torch.Generator().manual_seed(seed)).clamp(-bound, bound).requires_grad_()

        def value(z: Tensor) -> Tensor:
            x = prior.decode(z)
            natural: Tensor = D(x)[:, 0]
            return self.weight * identity_loss(model(x), label, self.loss) - natural  # lambda_i L_id + L_prior

        descent = torch.optim.SGD([z], self.step, self.momentum, nesterov=self.momentum > 0)
        yield from descend(oracle, prior, z, T, value, descent, self.steps, (-bound, bound))
