"""The convolutional classifier: its layers as in the paper, its recipe cut to steps, and that it learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from oracle_server.victims import split_models
from oracle_server.victims.conv_classifier import ConvClassifier
from oracle_server.victims.recipes import ARCHITECTURES, RECIPES, Recipe
from oracle_server.victims.splits import class_of, load, split_named
from oracle_server.victims.training import error_rate, train_victim


@pytest.mark.parametrize(
    ("shape", "classes", "channels", "flat", "hidden"),
    [
        ((1, 32, 32), 10, [32, 64, 128], 128 * 4 * 4, 50),
        ((1, 64, 64), 20, [32, 64, 128, 256], 256 * 4 * 4, 100),
        ((1, 112, 92), 3, [32, 64, 128, 256], 256 * 7 * 5, 50),
        ((3, 28, 28), 530, [32, 64, 128], 128 * 3 * 3, 2650),
    ],
)
def test_layers(shape: tuple[int, ...], classes: int, channels: list[int], flat: int, hidden: int) -> None:
    module = ConvClassifier(classes, shape).eval()
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    assert [layer.out_channels for layer in convolutions] == channels
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(flat, hidden), (hidden, classes)]
    kinds = [type(layer) for layer in next(iter(module.features.children()))]  # type: ignore[arg-type]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.ReLU]
    assert module(torch.rand(2, *shape)).shape == (2, classes)


def test_an_answer_does_not_depend_on_the_batch_and_is_no_probability() -> None:
    module = ConvClassifier(4, (1, 32, 32), width=4).eval()
    images = torch.rand(5, 1, 32, 32)
    torch.testing.assert_close(module(images)[2:3], module(images[2:3]))
    assert not torch.allclose(module(images).sum(1), torch.ones(5))


@pytest.mark.parametrize(
    ("classes", "shape", "width", "sentence"),
    [
        (10, (1, 7, 32), 32, "at least 8 pixels"),
        (10, (32, 32), 32, "at least 8 pixels"),
        (0, (1, 32, 32), 32, "classes and width must be at least 1"),
    ],
)
def test_shapes_without_an_answer_are_refused(classes: int, shape: tuple[int, ...], width: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ConvClassifier(classes, shape, width)


def test_epochs_are_cut_to_whole_ones_within_the_steps() -> None:
    recipe = Recipe(epochs=100, batch_size=64, learning_rate=1e-3, max_steps=400)
    assert [recipe.epochs_for(rows) for rows in (1, 100, 256, 257, 2500, 35_000)] == [100, 100, 100, 80, 10, 1]
    assert dataclasses.replace(recipe, max_steps=None).epochs_for(10**6) == 100
    with pytest.raises(ValueError, match="max_steps must be at least 1, not 0"):
        dataclasses.replace(recipe, max_steps=0)
    with pytest.raises(ValueError, match="rows must be at least 1, not 0"):
        recipe.epochs_for(0)


def test_it_learns_three_digits(tmp_path: Path) -> None:
    split = split_named("digits-same-k3")
    digits = load(split)
    recipe = dataclasses.replace(RECIPES["conv_classifier"], epochs=2)
    untrained = ARCHITECTURES["conv_classifier"](3, (1, 32, 32)).eval()
    rows, labels = np.array(split.test), class_of(digits, split.test, split.private)
    trained = train_victim("conv_classifier", digits, split.target, split.private, recipe=recipe, cache=tmp_path)
    assert error_rate(trained.module, digits.images[rows], labels) < 0.1
    assert error_rate(untrained, digits.images[rows], labels) > 0.3


@pytest.mark.parametrize(("name", "architecture"), [("digits-same", "cnn_digits"), ("att20", "cnn")])
def test_evaluation_networks_learn_digits_unmirrored(
    name: str, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(split_models, "train_victim", lambda chosen, *_, **__: asked.append(chosen))
    split_models.train_evaluation(split_named(name))
    assert asked == [architecture]
    augmentation = RECIPES["cnn_digits"].augmentation
    assert augmentation is not None
    assert (augmentation.mirror, augmentation.hidden) == (0, 0)
