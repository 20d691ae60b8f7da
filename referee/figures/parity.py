"""How far our own measures and densities are from an independent reference: figures that should be zero."""

from __future__ import annotations

import contextlib
import io
from importlib.util import find_spec

import numpy as np
import torch

from attacker.attacks.families import Flow, Gaussian
from referee.metrics import prdc
from referee.report import Figure

__all__ = ["parities"]

_SETS = ((40, 60, 8, 5), (200, 120, 16, 3), (60, 60, 64, 1))  # real and made points, their width, k
_DRAWS = 200_000
_STEPS = 100


def parities() -> list[Figure]:
    """Precision, recall, density, coverage against the package `prdc`, where it is installed; the divergence of a
    Gaussian against torch's closed form; and, where zuko is installed, what is left when a flow is undone.
    """
    return [*_prdc(), _kl(), *([_inverse()] if find_spec("zuko") else [])]


def _prdc() -> list[Figure]:
    try:
        from prdc import compute_prdc
    except ImportError:
        return []
    worst, random = 0.0, np.random.default_rng(0)
    for real, made, width, k in _SETS:
        x, y = random.normal(size=(real, width)), random.normal(0.3, 0.9, size=(made, width))
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the sizes
            theirs = compute_prdc(x, y, k)
        ours = prdc(x, y, k)
        worst = max(worst, *(abs(getattr(ours, name) - float(value)) for name, value in theirs.items()))
    return [Figure("metrics/prdc_parity", worst, unit="difference", at_most=1e-6, extra={"sets": len(_SETS)})]


def _kl() -> Figure:
    """Relative to the closed form, which draws reach only up to their own error: that is told beside it."""
    random = torch.Generator().manual_seed(0)
    q = Gaussian(1, 16, random).double()
    with torch.no_grad():
        q.mean.copy_(torch.randn(1, 16, generator=random))
        q.log_scale.copy_(0.3 * torch.randn(1, 16, generator=random))
        v, log_q = q.draw(_DRAWS, random)
        log_p = torch.distributions.Normal(0.0, 1.0).log_prob(v).sum(2)
        terms = (log_q - log_p)[0]
        p = torch.distributions.MultivariateNormal(torch.zeros(16).double(), torch.eye(16).double())
        wanted = torch.distributions.kl_divergence(
            torch.distributions.MultivariateNormal(q.mean[0], torch.diag((2 * q.log_scale[0]).exp())), p
        )
        error = float((q.divergence()[0] - wanted).abs())
    extra = {
        "closed_form": float(wanted),
        "from_draws": float(terms.mean()),
        "standard_error": float(terms.std() / _DRAWS**0.5),
    }
    return Figure("metrics/kl_parity", error, unit="nats", at_most=1e-5, extra=extra)


def _inverse() -> Figure:
    """After a flow has been fitted to a narrow, tilted Gaussian, in double precision."""
    random = torch.Generator().manual_seed(0)
    q = Flow(3, 16, random).double()
    descent = torch.optim.Adam(q.parameters(), 0.02)
    tilt = torch.randn(16, 16, generator=random, dtype=torch.float64)
    for _ in range(_STEPS):
        v, log_q = q.draw(64, random)
        descent.zero_grad()
        (log_q + 0.5 * (v @ tilt).square().sum(2)).mean().backward()
        descent.step()
    with torch.no_grad():
        seed = torch.Generator().manual_seed(1)
        v, _ = q.draw(256, torch.Generator().manual_seed(1))
        u = torch.randn(3, 256, 16, generator=seed, dtype=torch.float64)
        left = float((q.inverse(v) - u).abs().max())
    return Figure("metrics/flow_inverse", left, unit="difference", at_most=1e-5, extra={"draws": 3 * 256})
