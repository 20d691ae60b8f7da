"""The stacked denoising autoencoder: its parts, its pre-training, and what fine-tuning leaves of the decoder."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from oracle_server.victims.autoencoder import Pretraining, StackedAutoencoder
from oracle_server.victims.recipes import RECIPES, Recipe
from oracle_server.victims.softmax_regression import SoftmaxRegression
from oracle_server.victims.training import CrossEntropy, fit
from protos import archive

SHAPE, CLASSES, HIDDEN = (1, 16, 16), 3, (20, 10)
PRETRAINING = Pretraining(epochs=100, batch_size=10, learning_rate=0.02, corruption=0.3)
RECIPE = Recipe(epochs=60, batch_size=10, learning_rate=0.02, pretraining=PRETRAINING)


@functools.cache
def pictures() -> np.ndarray:
    """30 pictures (30, 1, 16, 16) in [0, 1], ten of each class: a blob at the class's place, moved a little."""
    random = np.random.default_rng(5)
    grid = np.stack(np.mgrid[:16, :16])
    centres = np.array([(4, 4), (5, 11), (11, 7)])[np.arange(30) % CLASSES] + random.normal(0, 1, (30, 2))
    distance = np.square(grid[None] - centres[:, :, None, None]).sum(1)
    return (0.1 + 0.8 * np.exp(-distance / 12)).astype(np.float32)[:, None]


def learn(recipe: Recipe = RECIPE, seed: int = 0) -> StackedAutoencoder:
    torch.manual_seed(seed)
    module = StackedAutoencoder(CLASSES, SHAPE, HIDDEN)
    fit(module, pictures(), np.arange(30) % CLASSES, recipe, loss=CrossEntropy(), seed=seed)
    return module.requires_grad_(False)


@functools.cache
def learned() -> StackedAutoencoder:
    return learn()


def decoded_error(module: StackedAutoencoder) -> float:
    """Mean squared error of decoded codes, in the pictures' variance around their mean: 1 tells nobody apart."""
    images = torch.tensor(pictures())
    with torch.no_grad():
        restored = module.decoder(module.encoder(images))
    return float((restored - images).square().mean() / (images - images.mean(0)).square().mean())


def test_the_parts_make_the_whole() -> None:
    module, images = learned(), torch.tensor(pictures())
    codes = module.encoder(images)
    assert codes.shape == (30, 20)
    assert torch.equal(module(images), module.classifier(codes))
    assert module(images).shape == (30, CLASSES)
    restored = module.decoder(codes)
    assert restored.shape == images.shape
    for values in (codes, restored):
        assert 0 <= values.min() < values.max() <= 1


def test_the_paper_has_1000_and_300_units() -> None:
    module = StackedAutoencoder(CLASSES, SHAPE)
    assert module.encoder(torch.zeros(1, *SHAPE)).shape == (1, 1000)
    assert [tuple(weight.shape) for name, weight in module.classifier.named_parameters() if "weight" in name] == [
        (300, 1000),
        (CLASSES, 300),
    ]
    assert RECIPES["autoencoder"].pretraining is not None


def test_pretraining_makes_a_decoder() -> None:
    start, without = StackedAutoencoder(CLASSES, SHAPE, HIDDEN), learn(dataclasses.replace(RECIPE, pretraining=None))
    assert decoded_error(learned()) < 0.4
    assert decoded_error(without) > 1  # the negative control: labels alone make none
    assert decoded_error(start) > 1


def test_pretraining_needs_no_labels_and_moves_both_layers() -> None:
    torch.manual_seed(0)
    module = StackedAutoencoder(CLASSES, SHAPE, HIDDEN)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.pretrain(torch.tensor(pictures()), PRETRAINING, torch.Generator().manual_seed(0))
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    layers = ("encoder.1", "decoder.0", "classifier.0")
    assert moved == {f"{layer}.{name}" for layer in layers for name in ("weight", "bias")}
    state = module.state_dict()
    assert torch.equal(state["decoder.0.weight"], state["encoder.1.weight"].T)


def test_fine_tuning_leaves_the_decoder() -> None:
    once = learn(dataclasses.replace(RECIPE, epochs=1))
    ours, theirs = learned().state_dict(), once.state_dict()
    assert torch.equal(ours["decoder.0.weight"], theirs["decoder.0.weight"])
    assert not torch.equal(ours["encoder.1.weight"], theirs["encoder.1.weight"])


def test_masking_noise_is_filled_in() -> None:
    clean = dataclasses.replace(PRETRAINING, corruption=0.0)
    images = torch.tensor(pictures())
    hidden = images * (torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) >= 0.3)

    def error(pretraining: Pretraining) -> Tensor:
        module = learn(dataclasses.replace(RECIPE, epochs=1, pretraining=pretraining))
        return (module.decoder(module.encoder(hidden)) - images).square().mean()

    assert error(PRETRAINING) < 0.8 * error(clean)


def test_same_seed_same_weights() -> None:
    first, again, other = learned().state_dict(), learn().state_dict(), learn(seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["decoder.0.weight"], other["decoder.0.weight"])


def test_it_learns_the_classes() -> None:
    assert torch.equal(learned()(torch.tensor(pictures())).argmax(1), torch.arange(30) % CLASSES)


@pytest.mark.parametrize("name", ["whole", "encoder", "decoder", "classifier"])
def test_the_whole_and_each_part_can_be_exported(name: str, tmp_path: Path) -> None:
    whole = learned().eval()
    module, shape = {"whole": (whole, SHAPE), **whole.parts()}[name]
    archive.save(module, tmp_path / "part.pt2", input_shape=shape)
    rows = torch.rand(5, *shape)
    torch.testing.assert_close(archive.load(tmp_path / "part.pt2")(rows), module(rows))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: StackedAutoencoder(2, SHAPE, (0, 3)), "hidden must be two numbers of at least 1"),
        (lambda: Pretraining(0, 8, 0.1, 0.3), "epochs of a pre-training must be above 0, not 0"),
        (lambda: Pretraining(1, 8, 0.1, 1.0), r"corruption must be in \[0, 1\), not 1.0"),
        (
            lambda: learn(dataclasses.replace(RECIPE, pretraining=Pretraining(9, 8, 1e38, 0.3))),
            "the pre-training diverged: lower the learning rate",
        ),
        (
            lambda: fit(
                SoftmaxRegression(3, SHAPE), pictures(), np.arange(30) % 3, RECIPE, loss=CrossEntropy(), seed=0
            ),
            "SoftmaxRegression has no pre-training: leave `pretraining` out",
        ),
    ],
)
def test_bad_calls_get_a_sentence(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
