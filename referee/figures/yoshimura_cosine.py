"""How good estimated gradients are: cosine to the true one against the criterion C, and beside differences (Figure 7).

Worked out in this process on a victim of the campaign, at codes on the way from the middle of the prior to what the
white-box attack ended in. The rows that a gradient would cost are counted as an oracle would count them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from attacker.attacks.yoshimura import criterion, least_squares
from attacker.priors.prior import load_prior
from referee.cell import Cell
from referee.figures.yoshimura_starts import starts_of
from referee.report import Figure

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["cosine_figures"]

_VARIANCES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_PERTURBATIONS = 64
_ON_THE_WAY = (0.2, 0.5, 0.8)
_GOOD, _LOW = 0.8, 0.1  # "when C < 0.1, the approximation accuracy becomes higher than 0.8"

Loss = Callable[[Tensor], Tensor]  # codes (n, k, m) -> (n, k) float64


def cosine_figures(results: Results, cell: Cell) -> list[Figure]:
    """Rank correlation of C and cosine, the share of good gradients where C is low, and mean cosines by size."""
    planned = results.planned(cell)
    folder = results.prior(planned)
    assert folder is not None
    prior, model = load_prior(folder), results.target_model(cell.victim, "cpu")
    starts = starts_of(results, cell)
    ends, label = torch.from_numpy(starts.codes[:, 0]), torch.from_numpy(starts.targets[:, 0].copy())
    z = torch.cat([prior.codes.centre + share * (ends - prior.codes.centre) for share in _ON_THE_WAY])
    label = label.repeat(len(_ON_THE_WAY))

    def logits(codes: Tensor) -> Tensor:
        return torch.cat([model(prior.decode(part)) for part in codes.split(256)])

    with torch.enable_grad():
        start = z.clone().requires_grad_()
        (true,) = torch.autograd.grad(functional.cross_entropy(logits(start).double(), label, reduction="sum"), start)

    @torch.no_grad()
    def loss(codes: Tensor) -> Tensor:
        n, k, m = codes.shape
        own = label.repeat_interleave(k)
        return functional.cross_entropy(logits(codes.reshape(n * k, m)).double(), own, reduction="none").reshape(n, k)

    return _compared(loss, z, true)


def _compared(loss: Loss, z: Tensor, true: Tensor) -> list[Figure]:
    from scipy.stats import spearmanr  # type: ignore[import-untyped]  # takes half a second of any command's start

    n, m = z.shape
    base = loss(z[:, None])
    axes = torch.eye(m)
    unit = torch.randn(n, _PERTURBATIONS, m, generator=torch.Generator().manual_seed(0))
    found, all_c, all_cosines = {}, [], []
    for variance in _VARIANCES:
        sigma = variance**0.5
        rise = loss(z[:, None] + sigma * unit) - base
        g = least_squares(sigma * unit, rise)
        c, cosine = criterion(sigma * unit, rise, g), _cosine(g, true)
        both = loss(z[:, None] + sigma * torch.cat((axes, -axes)))
        up, down = both.chunk(2, 1)
        found[f"{variance:g}"] = {
            "C": float(c.mean()),
            f"least squares, {_PERTURBATIONS} rows": float(cosine.mean()),
            f"central, {2 * m} rows": float(_cosine(up - down, true).mean()),
            f"one-sided, {m} rows": float(_cosine(up - base, true).mean()),
        }
        all_c.append(c)
        all_cosines.append(cosine)
    criteria, cosines = torch.cat(all_c).numpy(), torch.cat(all_cosines).numpy()
    low = criteria < _LOW
    correlation = float(spearmanr(criteria, cosines).statistic)
    return [
        Figure("yoshimura/cosine/rank_correlation_with_C", correlation, unit="Spearman", extra={"by_variance": found}),
        Figure(
            "yoshimura/cosine/good_where_C_is_low",
            float((cosines[low] > _GOOD).mean()) if low.any() else 0.0,
            paper=1.0,
            extra={"C_below": _LOW, "cosine_above": _GOOD, "gradients": int(low.sum()), "of": len(low)},
        ),
    ]


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return functional.cosine_similarity(a.double(), b.double(), dim=1)
