"""White-box attacks on a prior's codes compute on the oracle's device and end where they end on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from attacker.attacks import GMI, VMI, LatentGradient
from attacker.on_device import OnDevice
from tests.attacker.latent_cases import SHAPE, regression, save_affine
from tests.toy import WEIGHTS, ToyOracle, finish

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
TARGETS = [0, 1, 2]


class OnCuda(ToyOracle):
    """An oracle whose downloaded model and whose priors compute on the GPU."""

    def __init__(self, model: nn.Module, *args: Any, **settings: Any) -> None:
        super().__init__(model, *args, **settings)
        self.device = "cuda"

    def model(self) -> nn.Module:
        return OnDevice(super().model().cuda(), "cuda")


@pytest.mark.parametrize(
    "method",
    [VMI(steps=20, batch=8, samples=4), VMI(steps=20, batch=8, samples=4, family="mixture", explore=30), GMI(steps=20),
     LatentGradient(steps=20)],
    ids=["flow", "mixture", "gmi", "latent_gradient"],
)  # fmt: skip
def test_the_device_does_not_change_what_is_found(method: Any, tmp_path: Path) -> None:
    critic = nn.Sequential(nn.Flatten(), nn.Linear(6, 1))
    folder = save_affine(tmp_path, critic=critic)
    method = type(method)(**{**vars(method), "prior": folder})
    here = finish(method, ToyOracle(regression(), SHAPE, WEIGHTS, low=-9.0, high=9.0), TARGETS)
    there = finish(method, OnCuda(regression(), SHAPE, WEIGHTS, low=-9.0, high=9.0), TARGETS)
    np.testing.assert_allclose(there.images, here.images, atol=1e-3)
