"""What the white-box attacks on a prior's codes have in common: the losses on the target's logits, and the descent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional

from attacker.attacks.latent import next_due
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle
    from attacker.priors.prior import Prior

__all__ = ["LOSSES", "IdentityLoss", "check_above", "descend", "identity_loss", "lowest"]

IdentityLoss = Literal["cross_entropy", "margin"]
LOSSES = ("cross_entropy", "margin")


def identity_loss(logits: Tensor, label: Tensor, loss: str) -> Tensor:
    """The loss (N,) of logits (N, C) against the targets' classes (N,), float64: cross-entropy, or the margin, the
    largest other logit less the target's, which does not fade where the model is sure.
    """
    logits = logits.double()
    if loss == "cross_entropy":
        return functional.cross_entropy(logits, label, reduction="none")
    own = logits.gather(1, label[:, None])[:, 0]
    others = logits.scatter(1, label[:, None], -torch.inf).amax(1)
    return others - own


def lowest(values: Tensor) -> Tensor:
    """Of values (T, S), those of S starts for each of T targets one after the other, the rows (T,) of the least."""
    T, S = values.shape
    return values.detach().argmin(1) + S * torch.arange(T)


def check_above(method: object, *names: str) -> None:
    """`ValueError` for the first of these settings that is not above 0, or not finite."""
    for name in names:
        if not 0 < getattr(method, name) < math.inf:
            raise ValueError(f"{name}={getattr(method, name)} must be above 0 and finite")


def descend(
    oracle: Oracle,
    prior: Prior,
    z: Tensor,
    targets: int,
    value: Callable[[Tensor], Tensor],
    descent: torch.optim.Optimizer,
    steps: int,
    bounds: tuple[Tensor, Tensor] | None = None,
) -> Iterator[Snapshot]:
    """Lower `value` (N,) of codes z (N, m), N / T starts for each of T targets one after the other, all in one batch;
    with `bounds` (m,) codes are held between them.

    The image of a target is that of its start with the least value, whose `codes` (T, m) are in the extras. The last
    snapshot also has the images of all starts, `samples` (T, N / T, *shape), and their `values` (T, N / T). Marks are
    evaluations of the target model for each target.
    """
    starts, due = len(z) // targets, 0.0
    for i in range(steps):
        with torch.enable_grad():
            now = value(z)
            descent.zero_grad()
            now.sum().backward()
        evaluations, last = (i + 1) * starts, i + 1 == steps
        if evaluations >= due or last:
            values = now.detach().reshape(targets, starts)
            codes = z.detach()[lowest(values)]
            extras = {"codes": codes.numpy().copy()}
            if last:
                made = prior.images(z.detach()).clip(oracle.low, oracle.high)
                extras |= {"samples": made.reshape(targets, starts, *made.shape[1:]), "values": values.numpy()}
            yield Snapshot(prior.images(codes).clip(oracle.low, oracle.high), float(evaluations), extras)
            due = next_due(evaluations)
        descent.step()
        if bounds is not None:
            with torch.no_grad():
                z.copy_(z.clamp(*bounds))
