"""Networks of all kinds of layers, exported and hosted, for tests of the forms in which they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from oracle_server.models.importing import Draft, host
from oracle_server.models.neural import NeuralModel
from oracle_server.models.repository import Repository
from protos import archive
from tests.serving import inputs

__all__ = [
    "CPU", "NETWORKS", "SHAPE", "Residual", "Strided", "Viewed", "WritesToItsInput",
    "aten", "hosted", "loaded", "network", "rows",
]  # fmt: skip

SHAPE = (2, 8, 6)
CPU = torch.device("cpu")
aten = torch.ops.aten


class Residual(nn.Module):
    """A convolution whose answer two operations read, so that nothing may be folded into it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (y + self.norm(y)).relu_().flatten(1)


class Viewed(nn.Module):
    """`view` refuses channels-last memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Linear(120, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).view(-1, 120))


class Strided(nn.Module):
    """`as_strided` reads wrong numbers in another layout, and says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_strided(self.norm(self.conv(x)), (x.shape[0], 7), (192, 3))


class WritesToItsInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sub_(0.5).flatten(1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "softmax": lambda: nn.Sequential(nn.Flatten(), nn.Linear(96, 5)),
    "plain": lambda: nn.Sequential(
        nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
        nn.Linear(36, 40), nn.Dropout(0.5), nn.Linear(40, 5),
    ),
    "grouped": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2, stride=2, padding="valid"), nn.BatchNorm2d(4, affine=False), nn.Flatten(),
        nn.Linear(24, 9, bias=False), nn.Linear(9, 3, bias=False),
    ),
    "residual": Residual,
    "viewed": Viewed,
}  # fmt: skip


def network(make_one: Callable[[], nn.Module]) -> nn.Module:
    """With running statistics that are not those of a new norm."""
    torch.manual_seed(1)
    module = make_one()
    with torch.no_grad():
        for _ in range(3):
            module.train()(torch.rand(32, *SHAPE) * 2 - 0.5)
        for norm in (part for part in module.modules() if isinstance(part, nn.BatchNorm2d) and part.affine):
            norm.weight.uniform_(-2, 2)
            norm.bias.uniform_(-1, 1)
    return module.eval()


def loaded(folder: Path, make_one: Callable[[], nn.Module]) -> fx.GraphModule:
    archive.save(network(make_one), folder / "m.pt2", input_shape=SHAPE)
    module = archive.load(folder / "m.pt2")
    assert isinstance(module, fx.GraphModule)
    return module


def hosted(folder: Path, make_one: Callable[[], nn.Module], batch: int, forward: str, **more: Any) -> NeuralModel:
    card = host(network(make_one), Repository(folder), Draft("m", "1", SHAPE, **more))
    return NeuralModel(Repository(folder).archive(card), card, CPU, batch, forward)


def rows(count: int, seed: int = 0) -> np.ndarray:
    return inputs(count, seed, SHAPE)
