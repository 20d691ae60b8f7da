"""PROCESS of MI-Face: when it comes, what it does to pictures with known noise, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from attacker.attacks import MIFace, Numeric
from attacker.attacks.denoise import clean, denoising
from tests.toy import WEIGHTS, C, ToyOracle, finish, random_model

SIDE = (1, 8, 6)


def picture() -> np.ndarray:
    """A bright square on grey, higher than wide, so that rows cannot be taken for columns."""
    image = np.full((2, 1, 40, 30), 0.3, np.float32)
    image[:, :, 5:25, 10:25] = 0.7
    return image


def noisy() -> np.ndarray:
    return picture() + np.random.default_rng(0).normal(0, 0.03, picture().shape).astype(np.float32)


def oracle() -> ToyOracle:
    return ToyOracle(random_model(pixels=48), SIDE, WEIGHTS)


@pytest.mark.parametrize("every", [1, 3])
def test_process_comes_every_so_many_steps(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned = []

    def counted(images: Tensor, *_: float) -> Tensor:
        cleaned.append(len(images))
        return images

    monkeypatch.setattr("attacker.attacks.denoise.clean", counted)
    method = MIFace(max_steps=7, confidence=1.0, step=0.01)
    finish(method, oracle())
    assert not cleaned
    finish(replace(method, process="denoise", process_every=every), oracle())
    assert cleaned == [C] * (7 // every)


class Falling:
    """Costs that fall whatever the image is, so that the last iterate is the best; the gradient is a fixed picture."""

    def __init__(self) -> None:
        self.asked = 0

    def cost(self, x: Tensor, live: Tensor) -> Tensor:
        self.asked += 1
        return torch.full((len(x),), 0.9**self.asked, dtype=torch.float64)

    def gradient(self, keep: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.from_numpy(noisy()[: len(keep)]), torch.ones(len(keep), dtype=torch.bool)

    def mark(self, i: int) -> float:
        return float(i)

    def due(self, i: int) -> bool:
        return False


def test_an_iterate_is_cleaned_after_its_step() -> None:
    """Two steps, each cleaned: clean(clean(step) + step)."""
    method = MIFace(max_steps=2, step=0.3, confidence=1.0, process="denoise", process_every=1)
    *_, last = method.descend(Falling(), np.zeros((1, 40, 30), np.float32), 2, 0.0, 1.0)
    step = 0.3 * torch.from_numpy(noisy())
    expected = clean(clean(step, 0.05, 1.0, 0.0, 1.0) + step, 0.05, 1.0, 0.0, 1.0)
    np.testing.assert_allclose(last.images, expected.numpy(), atol=1e-5)
    assert (expected - 2 * step).abs().max() > 0.01


def test_numeric_is_cleaned_too(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned = []
    monkeypatch.setattr("attacker.attacks.denoise.clean", lambda images, *_: cleaned.append(len(images)) or images)
    finish(Numeric(max_steps=3, step=0.1, process="denoise", process_every=1), ToyOracle(random_model(pixels=48), SIDE))
    assert cleaned == [C] * 3


def test_filters_take_noise_away_and_sharpen_edges() -> None:
    without_noise = clean(torch.from_numpy(noisy()), 0.05, 0.0, 0.0, 1.0).numpy()
    assert np.abs(without_noise - picture()).mean() < 0.4 * np.abs(noisy() - picture()).mean()
    soft = torch.nn.functional.avg_pool2d(torch.from_numpy(picture()), 5, 1, 2, count_include_pad=False)
    sharp = clean(soft, 0.0, 1.0, 0.0, 1.0)
    assert sharp.diff(dim=2).abs().max() > 1.2 * soft.diff(dim=2).abs().max()
    assert torch.equal(clean(soft, 0.0, 0.0, 0.0, 1.0), soft)


def test_both_filters_in_the_order_of_the_paper() -> None:
    x = torch.from_numpy(noisy())
    first, second = clean(x, 0.05, 0.0, 0.0, 1.0), clean(x, 0.0, 1.0, 0.0, 1.0)
    both = clean(x, 0.05, 1.0, 0.0, 1.0)
    torch.testing.assert_close(both, clean(first, 0.0, 1.0, 0.0, 1.0))
    assert (both - clean(second, 0.05, 0.0, 0.0, 1.0)).abs().max() > 0.01
    assert torch.equal(denoising((1, 40, 30), 0.0, 1.0, every=4)(x, 8), both)
    assert denoising((1, 40, 30), 0.0, 1.0, every=4)(x, 9) is x


def test_clean_keeps_range_channels_and_strength() -> None:
    three = np.concatenate([noisy(), 1 - noisy(), noisy() ** 2], 1)
    narrow = clean(torch.from_numpy(three), 0.05, 0.5, 0.0, 1.0)
    wide = clean(torch.from_numpy(10 * three - 5), 0.05, 0.5, -5.0, 5.0)
    assert float((narrow - torch.from_numpy(three)).abs().mean()) < 0.06
    np.testing.assert_allclose(wide, 10 * narrow - 5, atol=2e-3)
    beyond = clean(torch.from_numpy(3 * three - 1), 0.05, 2.0, 0.0, 1.0)
    assert (float(beyond.min()), float(beyond.max())) == (0, 1)


def test_bad_settings_get_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="process='blur' must be 'none' or 'denoise'"):
        finish(MIFace(process="blur"), oracle())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="process_every=0 must be at least 1"):
        finish(MIFace(process="denoise", process_every=0), oracle())
    with pytest.raises(ValueError, match=r"cleans images \(C, H, W\), the model takes \(48,\): use process='none'"):
        finish(MIFace(process="denoise"), ToyOracle(random_model(pixels=48), (48,), WEIGHTS))
    monkeypatch.setitem(sys.modules, "skimage.filters", None)
    with pytest.raises(ValueError, match=r"pip install 'mirage-range\[attacks\]', or leave the clean-up out"):
        finish(MIFace(process="denoise"), oracle())
    finish(MIFace(max_steps=1), oracle())
