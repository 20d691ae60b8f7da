"""Variational model inversion: a distribution over codes for each target, fitted to the target's posterior.

K.-C. Wang, Y. Fu, K. Li, A. Khisti, R. Zemel, A. Makhzani, "Variational Model Inversion Attacks", NeurIPS 2021.

    here           paper     meaning
    weight         lambda    of the divergence beside the identity loss; below 1 it tempers the posterior
    steps          4,900     of the optimiser, here Adam
    batch          64        draws of each target in a step
    step           1e-4      learning rate, here at its start: it falls to 0 along a cosine
    family         q         Gaussian, mixture of Gaussians, or normalising flow
    components     K         Gaussians of a mixture, here of equal weight
    explore        -         draws of the prior that are looked at before the first step; all targets share them
    drawn          -         draws of q in the end, of which the `samples` with the lowest loss are kept; 0: no choice
    z              z         codes; with `extended` one for each layer of the generator
    T, S, L        -         targets, draws of a step, layers (1 if not extended)
    KL             KL        log q(z) - log p(z), averaged over draws and layers
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from attacker.attacks.descent import LOSSES, IdentityLoss, check_above, identity_loss, lowest
from attacker.attacks.families import FAMILIES, Family, family
from attacker.attacks.latent import next_due
from attacker.needs import Needs
from attacker.priors.prior import prior_for
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle
    from attacker.priors.prior import Prior

__all__ = ["VMI"]

_AT_ONCE = 256  # images of one pass without gradient


@dataclass(frozen=True)
class VMI:
    """Minimise over q  E_q[loss of the target on G(z)] + weight * KL(q(z) || p(z)), for all targets in one batch.

    What is found is a distribution: the last snapshot holds n = `samples` images of each target, drawn from q, in
    `samples` (T, n, *shape), with their `codes` (T, n, m), or (T, n, L, m), and the `divergence` (T,) of q from the
    prior in nats, averaged over layers. The image of a target is, of the last step's draws, the one with the lowest
    loss. Marks are evaluations of the target model for each target.

    `loss` is the cross-entropy, as published, or "margin" (`attacker.attacks.descent`). With `explore`, q begins at the
    `components` draws of the prior on which the loss of the target is lowest: a mixture's components at one each, other
    families around their mean. What was explored counts as evaluations, divided by T, and so does what was `drawn` to
    choose from.

    Differences from the reference:
    - Adam with a rate that falls along a cosine, on far fewer steps.
    - A flow is bijective: a sample is a function of its noise.
    - A Gaussian has a diagonal covariance, the components of a mixture have equal weights; starts can be explored.
    - Samples can be the best of more draws, as Struppek et al., "Plug & Play Attacks", ICML 2022, select theirs.
    - In the extended space the codes of the layers go through the mapping, so that KL has the density of codes in it.
    """

    needs: ClassVar[Needs] = Needs.WEIGHTS
    kind: ClassVar[str] = "white box, latent space, variational"
    paper: ClassVar[str] = "Wang et al., NeurIPS 2021"

    family: Literal["gaussian", "mixture", "flow"] = "flow"
    extended: bool = False
    loss: IdentityLoss = "cross_entropy"
    weight: float = 1e-3
    steps: int = 150
    batch: int = 32
    step: float = 0.05
    components: int = 20
    samples: int = 100
    drawn: int = 0
    explore: int = 0
    prior: Path | None = None

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Fit a distribution to each of `targets`; `seed` draws noise and starts. `ValueError` for an extended space of
        a prior that has one layer.
        """
        prior = self._checked(oracle)
        model, codes = oracle.model(), prior.codes
        T, S, L = len(targets), self.batch, prior.layers if self.extended else 1
        label = torch.as_tensor(targets).repeat_interleave(S)
        random = torch.Generator().manual_seed(seed)
        q: Family = family(self.family, T * L, codes.latent, self.components, random)
        if self.explore:
            near = self._near(prior, model, targets, random)
            q.start(((near - codes.centre) / codes.spread).repeat_interleave(L, 0))
        descent = torch.optim.Adam(q.parameters(), self.step)
        schedule = torch.optim.lr_scheduler.LambdaLR(descent, lambda i: 0.5 + 0.5 * math.cos(math.pi * i / self.steps))
        due = 0.0

        def draw(n: int) -> tuple[Tensor, Tensor]:
            """n codes of each target, (T * n, m) or (T * n, L, m), and the terms (T, n) of KL."""
            v, log_q = q.draw(n, random)  # (T * L, n, m)
            z = codes.centre + codes.spread * v
            log_q = log_q - codes.spread.log().sum()
            log_p = codes.log_density(z.flatten(0, 1)).reshape(log_q.shape)
            z = z.unflatten(0, (T, L)).transpose(1, 2).flatten(0, 1)  # (T * n, L, m)
            return z if self.extended else z[:, 0], (log_q - log_p).reshape(T, L, n).mean(1)

        for i in range(self.steps):
            with torch.enable_grad():
                z, kl = draw(S)  # z ~ q, reparametrised
                identity = identity_loss(model(prior.decode(z)), label, self.loss).reshape(T, S)
                descent.zero_grad()
                (identity + self.weight * kl).mean(1).sum().backward()  # E_q[loss] + lambda KL, of every target
            evaluations, last = self.explore / T + (i + 1) * S, i + 1 == self.steps
            if not last and evaluations >= due:
                yield Snapshot(self._best(oracle, prior, z, identity), float(evaluations))
                due = next_due(evaluations)
            descent.step()
            schedule.step()
        with torch.no_grad():  # what was found: any number of draws of q
            drawn, kl = draw(max(self.samples, self.drawn))
        kept = drawn.unflatten(0, (T, -1))
        if self.drawn:
            label = torch.as_tensor(targets).repeat_interleave(kept.shape[1])
            loss = identity_loss(_logits(prior, model, drawn), label, self.loss)
            rows = loss.reshape(T, -1).topk(self.samples, 1, largest=False).indices
            kept, evaluations = kept[torch.arange(T)[:, None], rows], evaluations + self.drawn
        made = prior.images(kept.flatten(0, 1)).clip(oracle.low, oracle.high)
        extras: dict[str, np.ndarray] = {
            "samples": made.reshape(T, self.samples, *made.shape[1:]),
            "codes": kept.numpy(),
            "divergence": kl.mean(1).numpy(),
        }
        yield Snapshot(self._best(oracle, prior, z, identity), float(evaluations), extras)

    def _near(self, prior: Prior, model: nn.Module, targets: Sequence[int], random: torch.Generator) -> Tensor:
        """The codes (T, k, m), of `explore` draws that all targets share, on which the loss of each is lowest."""
        z = prior.codes.draw(self.explore, random)
        logits = _logits(prior, model, z)
        loss = torch.stack([identity_loss(logits, torch.full((len(z),), t), self.loss) for t in targets])
        return z[loss.topk(min(self.components, self.explore), 1, largest=False).indices]

    def _best(self, oracle: Oracle, prior: Prior, z: Tensor, identity: Tensor) -> np.ndarray:
        """The images (T, *shape) of the draws with the lowest loss."""
        return prior.images(z.detach()[lowest(identity)]).clip(oracle.low, oracle.high)

    def _checked(self, oracle: Oracle) -> Prior:
        check_above(self, "steps", "batch", "step", "components", "samples")
        for name in ("weight", "explore", "drawn"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0 and finite")
        if 0 < self.drawn < self.samples:
            raise ValueError(
                f"drawn={self.drawn} must be at least samples={self.samples}, or 0: the best of them are kept"
            )
        if self.loss not in LOSSES or self.family not in FAMILIES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, family one of {', '.join(FAMILIES)}")
        prior = prior_for(self.prior, oracle)
        if self.extended and prior.layers == 1:
            raise ValueError(f"a {prior.card.kind} prior takes one code, it has no extended space: leave extended out")
        return prior


@torch.no_grad()
def _logits(prior: Prior, model: nn.Module, z: Tensor) -> Tensor:
    """The target's answers (N, C) to the images of codes."""
    return torch.cat([model(prior.decode(part)) for part in z.split(_AT_ONCE)])
