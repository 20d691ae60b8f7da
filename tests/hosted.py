"""Small models of rows (1, 8, 6) in [0, 1], hosted for tests of the wire; their weights are always the same."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from oracle_server.models.card import Card
from oracle_server.models.importing import Draft, host
from oracle_server.models.repository import Repository

__all__ = ["host_models", "plant", "softmax_regression"]

SHAPE = (1, 8, 6)


def softmax_regression(classes: int = 5, features: int = 48) -> nn.Module:
    """Logits of five classes, spread widely enough for rounding and ranks to matter."""
    generator = torch.Generator().manual_seed(7)
    linear = nn.Linear(features, classes)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator) / features**0.5 * 3)
        linear.bias.copy_(torch.randn(linear.bias.shape, generator=generator))
    return nn.Sequential(nn.Flatten(), linear).eval()


class _Slow(nn.Module):
    """The same model, a tenth of a second or so later: products of a large matrix that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.model = softmax_regression()
        self.wait = nn.Parameter(torch.full((900,), 1e-4))

    def forward(self, x: Tensor) -> Tensor:
        m = self.wait[:, None] * self.wait[None, :]
        for _ in range(3):
            m = torch.mm(m, m)
        logits: Tensor = self.model(x)
        return logits + 0 * m.sum()


class _Fails(nn.Module):
    """The same model with logits that are no numbers when the first pixel of a row is exactly zero."""

    def __init__(self) -> None:
        super().__init__()
        self.model = softmax_regression()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits + 0 * torch.log(x.flatten(1)[:, :1])


def host_models(root: Path, *names: str) -> dict[str, Card]:
    """Host `names` below `root`, all by default: `linear` (deterministic), `other` (two chunks of a download), `slow`
    and `fails`."""
    repository = Repository(root)
    made = {
        "linear": (softmax_regression(), SHAPE, True),
        "other": (softmax_regression(100, 4096), (1, 64, 64), False),
        "slow": (_Slow(), SHAPE, False),
        "fails": (_Fails(), SHAPE, False),
    }
    return {
        name: host(model, repository, Draft(name, "1", shape, deterministic=fixed))
        for name, (model, shape, fixed) in made.items()
        if not names or name in names
    }


class _Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.flag,)


def plant(archive: Path, flag: Path) -> None:
    """Turn the first weight of an archive into a pickle that makes `flag`."""
    with zipfile.ZipFile(archive) as source:
        entries = {name: source.read(name) for name in source.namelist()}
    (name,) = [name for name in entries if name.endswith("model_weights_config.json")]
    config = json.loads(entries[name])
    weight = next(iter(config["config"].values()))
    weight["use_pickle"] = True
    entries[name] = json.dumps(config).encode()
    (place,) = [entry for entry in entries if entry.endswith(f"/{weight['path_name']}")]
    entries[place] = pickle.dumps(_Touch(flag))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:
        for entry, data in entries.items():
            target.writestr(entry, data)
