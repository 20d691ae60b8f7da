"""Clipped gradients of single rows, summed with noise: a bound on what any one row can change.

M. Abadi, A. Chu, I. Goodfellow, H. B. McMahan, I. Mironov, K. Talwar, L. Zhang, "Deep learning with differential
privacy", CCS 2016, algorithm 1; steps by Opacus (A. Yousefpour et al., 2021), accounted in Renyi divergences (I.
Mironov, CSF 2017).

    here        paper      meaning
    noise       sigma      standard deviation of the noise, in units of clip
    clip        C          largest norm that a row's gradient keeps
    delta       delta      chance with which the bound epsilon may fail; below 1/N, or it bounds nothing
    rows        N          training rows
    steps       T          of the whole training: epochs * ceil(N / batch size)
    q           q = L/N    chance of a row to be in a step (Poisson sampling): 1 / ceil(N / batch size)
    epsilon     epsilon    what the training spends at `delta`, for one row more or less

Batch norm mixes the rows of a batch, so that no row has a gradient of its own: each becomes a group norm. The optimiser
is the recipe's own (AdamW works on the noisy gradient), the patience of a recipe is left out.

Differences from the reference: noise comes from a generator with the training's seed, so that a training can be
repeated: the bound holds against those who do not know the seed. Rows are photos, and a person with n of them is
protected n times less; choices of hyper-parameters and the test error on a card are not accounted for.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from defenses.training.defence import TrainingDefence

__all__ = ["DpSgd", "epsilon"]

_GROUPS = 32  # of a group norm, or the largest common divisor with the channels


@dataclass(frozen=True)
class DpSgd(TrainingDefence):
    """Needs Opacus where it trains: pip install 'mirage-range[dp]'.

    Raises:
        ValueError: noise below 0 or not finite, clip not above 0, delta outside (0, 1); in `noted`, delta from 1/N on.
    """

    noise: float
    clip: float = 1.0
    delta: float = 1e-5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise ValueError(f"noise={self.noise} must be a number from 0, for example 1.0")
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise ValueError(f"clip={self.clip} must be a number above 0, for example 1.0")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta={self.delta} must lie between 0 and 1, for example 1e-5")

    @property
    def off(self) -> bool:
        return self.noise == 0

    @property
    def runs_to_end(self) -> bool:
        return True

    def wrap(self, module: nn.Module, classes: int) -> nn.Module:
        if hasattr(module, "pretrain"):
            raise ValueError(f"the pre-training of {type(module).__name__} is not private: choose another architecture")
        for parent in list(module.modules()):
            for name, layer in parent.named_children():
                if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                    setattr(parent, name, nn.GroupNorm(math.gcd(_GROUPS, layer.num_features), layer.num_features))
        return module

    @contextlib.contextmanager
    def running(
        self, module: nn.Module, optimiser: torch.optim.Optimizer, rows: int, batch_size: int, seed: int
    ) -> Iterator[tuple[nn.Module, torch.optim.Optimizer]]:
        opacus = _opacus()
        device = next(module.parameters()).device
        taught = opacus.GradSampleModule(module, loss_reduction="mean")  # "compute gradient", of each row
        noisy = opacus.optimizers.DPOptimizer(  # "clip gradient", "add noise", "descent"
            optimiser,
            noise_multiplier=self.noise,
            max_grad_norm=self.clip,
            expected_batch_size=rows / _steps(rows, batch_size),
            generator=torch.Generator(device).manual_seed(seed),
        )
        try:
            yield taught, noisy
        finally:
            noisy.zero_grad()
            taught.to_standard_module()  # its hooks must not be exported
            for parameter in module.parameters():
                vars(parameter).pop("summed_grad", None)

    def batches(self, rows: int, batch_size: int, draws: torch.Generator) -> Iterator[Tensor]:
        steps = _steps(rows, batch_size)
        for _ in range(steps):  # "take a random sample": each row with chance q, whatever the others do
            yield (torch.rand(rows, generator=draws) < 1 / steps).nonzero().flatten()

    def loss(self, module: nn.Module, inputs: Tensor, labels: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """As without a defence, but a batch may be empty: it is a step of noise alone."""
        logits = module(inputs.requires_grad_())  # the hooks of the first layer wait for this gradient
        return functional.cross_entropy(logits, labels, reduction="sum") / max(1, len(labels)), logits

    def noted(self, rows: int, batch_size: int, epochs: int) -> Mapping[str, Any]:
        if self.delta >= 1 / rows:
            raise ValueError(f"delta={self.delta} must be below 1/N = {1 / rows:.2g}, N = {rows} training rows")
        steps = epochs * _steps(rows, batch_size)
        spent = epsilon(self.noise, rows, batch_size, steps, self.delta)
        return {"epsilon": spent, "delta": self.delta, "rows": rows, "batch_size": batch_size, "steps": steps}


def epsilon(noise: float, rows: int, batch_size: int, steps: int, delta: float) -> float:
    """What so many steps spend, without training; infinite for noise 0.

    Raises:
        ValueError: Opacus is not installed.
    """
    if noise == 0:
        return math.inf
    accountant = _opacus().accountants.RDPAccountant()
    accountant.history = [(noise, 1 / _steps(rows, batch_size), steps)]
    with warnings.catch_warnings():  # an epsilon far below 1 or above 100 is met at the end of the list of orders
        warnings.filterwarnings("ignore", "Optimal order is the (largest|smallest) alpha", UserWarning)
        return float(accountant.get_epsilon(delta))


def _steps(rows: int, batch_size: int) -> int:
    return math.ceil(rows / batch_size)


def _opacus() -> Any:
    try:
        import opacus
        import opacus.accountants
        import opacus.optimizers
    except ImportError as error:
        raise ValueError("dp_sgd needs Opacus: pip install 'mirage-range[dp]'") from error
    return opacus
