"""The search in a code, on a linear autoencoder, and the clean-up of Algorithm 2 on pictures with known noise."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacker.attacks import MIFaceCode
from attacker.attacks.mi_face_code import clean
from tests.toy import WEIGHTS, C, ToyOracle, blocks, confidences, finish

SIDE = (1, 16, 12)
PIXELS = 16 * 12


class Codes(ToyOracle):
    """A code of half as many numbers: means of neighbouring pixels in a row; the classifier adds its block up."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        super().__init__(nn.Sequential(Encoder(), blocks(C, PIXELS // 2 // C, gain=0.5)), SIDE, WEIGHTS)

    def model(self, part: str = "") -> nn.Module:
        self.calls.append(part)
        whole: Any = super().model()
        return {"": whole, "encoder": whole[0], "decoder": Decoder(), "classifier": whole[1]}[part]


class Encoder(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).unflatten(1, (-1, 2)).mean(2)


class Decoder(nn.Module):
    def forward(self, code: Tensor) -> Tensor:
        return code.repeat_interleave(2, 1).unflatten(1, SIDE)


def test_the_search_is_in_the_code() -> None:
    """Every image is a decoded code, the model is sure of it, and only the parts were asked for."""
    oracle = Codes()
    last = finish(MIFaceCode(process=False, step=1.0), oracle)
    assert oracle.calls == ["encoder", "decoder", "classifier"]
    assert last.extras["code"].shape == (C, PIXELS // 2)
    np.testing.assert_array_equal(last.images, Decoder()(torch.from_numpy(last.extras["code"])).numpy())
    assert confidences(oracle.model(), last.images).min() >= 0.99


def test_first_step_in_the_code() -> None:
    """From the black image, whose code is 0: -log f falls with gain (1 - 1/C) on the own block of the code."""
    last = finish(MIFaceCode(process=False, step=0.1, max_steps=1), Codes())
    own = np.kron(np.eye(C), np.ones(PIXELS // 2 // C))
    np.testing.assert_allclose(last.extras["code"], 0.1 * 0.5 * (1 - 1 / C) * own, rtol=1e-5)


@pytest.mark.parametrize("every", [1, 3])
def test_process_comes_every_so_many_steps(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned = []

    def counted(images: Tensor, *_: float) -> Tensor:
        cleaned.append(len(images))
        return images

    monkeypatch.setattr("attacker.attacks.mi_face_code.clean", counted)
    finish(MIFaceCode(max_steps=6, process_every=every, confidence=1.0, step=0.01), Codes())
    assert cleaned == [C] * (6 // every + 1)  # once more for what is handed over


def test_process_changes_the_result() -> None:
    with_it, without = (
        finish(MIFaceCode(max_steps=5, step=0.05, process=on, confidence=1.0), Codes()).images for on in (True, False)
    )
    assert np.abs(with_it - without).max() > 0.01


def picture() -> np.ndarray:
    """A bright square on grey, higher than wide, so that rows cannot be taken for columns."""
    image = np.full((2, 1, 40, 30), 0.3, np.float32)
    image[:, :, 5:25, 10:25] = 0.7
    return image


def test_denoise_takes_noise_away_and_leaves_edges() -> None:
    noisy = picture() + np.random.default_rng(0).normal(0, 0.03, picture().shape).astype(np.float32)
    found = clean(torch.from_numpy(noisy), 0.05, 0.0, 0.0, 1.0).numpy()
    assert np.abs(found - picture()).mean() < 0.4 * np.abs(noisy - picture()).mean()
    assert np.abs(found[0, 0, 5:25, 10:25].mean() - found[0, 0, 26:, :].mean()) > 0.38


def test_sharpen_makes_an_edge_steeper() -> None:
    soft = torch.nn.functional.avg_pool2d(torch.from_numpy(picture()), 5, 1, 2, count_include_pad=False)
    found = clean(soft, 0.0, 1.0, 0.0, 1.0)
    assert found.diff(dim=2).abs().max() > 1.2 * soft.diff(dim=2).abs().max()
    assert torch.equal(clean(soft, 0.0, 0.0, 0.0, 1.0), soft)


def test_clean_keeps_range_channels_and_strength() -> None:
    """Colours are cleaned in their places, and a range ten times as wide gives ten times the image."""
    three = np.concatenate([picture(), 1 - picture(), picture() ** 2], 1)
    three += np.random.default_rng(1).normal(0, 0.02, three.shape).astype(np.float32)
    narrow = clean(torch.from_numpy(three), 0.05, 0.5, 0.0, 1.0)
    wide = clean(torch.from_numpy(10 * three - 5), 0.05, 0.5, -5.0, 5.0)
    assert narrow.shape == three.shape
    assert float((narrow - torch.from_numpy(three)).abs().mean()) < 0.06
    np.testing.assert_allclose(wide, 10 * narrow - 5, atol=2e-3)
    assert narrow.min() >= 0
    assert narrow.max() <= 1


def test_without_the_package_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.filters", None)
    oracle = Codes()
    with pytest.raises(ValueError, match=r"pip install 'mirage-range\[attacks\]', or leave the clean-up out"):
        finish(MIFaceCode(), oracle)
    assert not oracle.calls
    finish(MIFaceCode(process=False, max_steps=1), oracle)


def test_process_every_must_be_positive() -> None:
    with pytest.raises(ValueError, match="process_every=0 must be at least 1"):
        finish(MIFaceCode(process_every=0), Codes())
