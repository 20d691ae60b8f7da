"""The multilayer perceptron: what it computes, and that its start leaves no trace in what it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from oracle_server.victims.mlp import Mlp
from oracle_server.victims.recipes import RECIPES, Recipe
from oracle_server.victims.training import CrossEntropy, fit
from protos import archive

SHAPE = (1, 16, 16)


def learn(seed: int = 0, spread: float = 1.0) -> tuple[Mlp, np.ndarray]:
    """A small network that knows three classes, its start multiplied by `spread`; and its 12 photos, flat."""
    images = np.random.default_rng(7).random((12, *SHAPE), np.float32)
    torch.manual_seed(seed)
    module = Mlp(3, SHAPE, hidden=20)
    with torch.no_grad():
        module.hidden.weight.mul_(spread)
    recipe = Recipe(epochs=150, batch_size=4, learning_rate=0.02)
    last = fit(module, images, np.arange(12) % 3, recipe, loss=CrossEntropy(), seed=seed)
    assert last.error == 0
    return module, images.reshape(12, -1)


def outside(module: Mlp, photos: np.ndarray) -> float:
    """Share of the first layer's weights that no combination of photos explains."""
    weights = module.hidden.weight.detach().double().numpy()
    basis = np.linalg.qr(photos.T.astype(np.float64))[0]
    return float(np.linalg.norm(weights - weights @ basis @ basis.T) / np.linalg.norm(weights))


def test_the_formula() -> None:
    module = Mlp(4, SHAPE, hidden=5)
    images = torch.rand(6, *SHAPE)
    units = torch.sigmoid(images.flatten(1) @ module.hidden.weight.T + module.hidden.bias)
    torch.testing.assert_close(module(images), units @ module.output.weight.T + module.output.bias)
    assert module(images).shape == (6, 4)


def test_the_paper_has_3000_units() -> None:
    module = Mlp(2, SHAPE)
    assert module.hidden.out_features == 3000
    assert RECIPES["mlp"].patience is not None


def test_a_small_start_leaves_the_weights_to_the_photos() -> None:
    assert outside(*learn()) < 0.1
    assert outside(*learn(spread=100)) > 0.5  # the negative control: the start is still there


def test_same_seed_same_weights() -> None:
    first, again, other = (learn(seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["hidden.weight"], other["hidden.weight"])


def test_it_can_be_exported(tmp_path: Path) -> None:
    module = learn()[0].eval()
    archive.save(module, tmp_path / "model.pt2", input_shape=SHAPE)
    images = torch.rand(5, *SHAPE)
    torch.testing.assert_close(archive.load(tmp_path / "model.pt2")(images), module(images))


def test_no_units_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="hidden must be at least 1, not 0"):
        Mlp(2, SHAPE, hidden=0)
