"""Deblurring on a model of a few patterns whose blurred photos are made here, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms.functional import gaussian_blur

from attacker.attacks import Deblur
from attacker.attacks.deblur import _blur, _WithPhoto
from attacker.attacks.mi_face import WhiteBox
from attacker.images import count_images, read_images
from tests.toy import WEIGHTS, ToyOracle, softmax_regression

SIDE, PEOPLE, SIGMA = (1, 24, 20), 5, 3.0
PIXELS = 24 * 20


def smooth(n: int, sigma: float, seed: int) -> torch.Tensor:
    noise = torch.randn(n, *SIDE, generator=torch.Generator().manual_seed(seed))
    soft = gaussian_blur(noise, [9, 9], [sigma, sigma])
    return (0.5 + 0.12 * soft / soft.std()).clamp(0, 1)


def blurred(images: torch.Tensor, sigma: float = SIGMA) -> torch.Tensor:
    side = 2 * int(np.ceil(3 * sigma)) + 1
    return gaussian_blur(images, [side, side], [sigma, sigma])


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    return smooth(PEOPLE, 1.0, 0)


@pytest.fixture(scope="module")
def model(faces: torch.Tensor) -> nn.Module:
    """Each class's weights are its face, without what all have in common."""
    weight = (faces - faces.mean(0)).flatten(1).double().numpy()
    weight *= 3 / np.linalg.norm(weight, axis=1, keepdims=True)
    return softmax_regression(weight, -(weight * 0.5).sum(1))


def deblur(model: nn.Module, photos: torch.Tensor, folder: Path, targets: Any = None, **settings: Any) -> Any:
    np.save(folder / "photos.npy", photos.numpy())
    defaults = {"sigma": SIGMA, "weight": 200.0, "step": 0.3, "momentum": 0.9, "max_steps": 150, "threshold": 9.0}
    method = Deblur(**(defaults | settings), given=folder / "photos.npy")
    oracle = ToyOracle(model, SIDE, WEIGHTS)
    (last,) = method.run(oracle, list(range(len(photos))) if targets is None else targets, 0)
    assert oracle.spent == 0
    return last


def similarity(found: np.ndarray, true: torch.Tensor) -> np.ndarray:
    """Correlation of each image with its own, (N,)."""
    return np.array([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(found, true.numpy(), strict=True)])


def test_a_photo_of_somebody_known_is_named_and_sharpened(
    model: nn.Module, faces: torch.Tensor, tmp_path: Path
) -> None:
    photos = blurred(faces)
    last = deblur(model, photos, tmp_path)
    assert last.extras["label"].tolist() == list(range(PEOPLE))
    assert (similarity(last.images, faces) > similarity(photos.numpy(), faces) + 0.05).all()
    assert last.extras["cost"].shape == last.extras["steps"].shape == (PEOPLE, PEOPLE)
    assert (last.extras["steps"] == 150).all()


def test_nobody_above_the_threshold(model: nn.Module, faces: torch.Tensor, tmp_path: Path) -> None:
    """Strangers cost more than the known; a threshold between the two tells them apart, and says so in the label."""
    photos = blurred(torch.cat([faces, smooth(PEOPLE, 1.0, 99)]))
    cost = deblur(model, photos, tmp_path).extras["cost"].min(1)
    known, strangers = cost[:PEOPLE], cost[PEOPLE:]
    assert np.median(known) < np.median(strangers)
    between = float(np.median(cost))
    label = deblur(model, photos, tmp_path, threshold=between).extras["label"]
    assert ((label == -1) == (cost > between)).all()
    assert (deblur(model, photos, tmp_path, threshold=-1.0).extras["label"] == -1).all()


def test_without_auxterm_the_photo_is_forgotten(model: nn.Module, faces: torch.Tensor, tmp_path: Path) -> None:
    """A control: with weight 0 every class can be had from every photo, and the result is further from the photo."""
    photos = blurred(faces)
    held, free = (deblur(model, photos, tmp_path, weight=w).images for w in (200.0, 0.0))
    distance = [float((blurred(torch.from_numpy(x)) - photos).square().mean()) for x in (held, free)]
    assert distance[0] < 0.2 * distance[1]


def test_targets_are_entries_in_any_order(model: nn.Module, faces: torch.Tensor, tmp_path: Path) -> None:
    photos = blurred(faces)
    all_of_them = deblur(model, photos, tmp_path)
    some = deblur(model, photos, tmp_path, targets=[3, 0])
    np.testing.assert_allclose(some.images, all_of_them.images[[3, 0]], atol=1e-5)
    assert some.extras["label"].tolist() == [3, 0]


def test_batches_do_not_change_the_result(
    model: nn.Module, faces: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = deblur(model, blurred(faces), tmp_path)
    monkeypatch.setattr("attacker.attacks.deblur._MOST_ROWS", 2 * PEOPLE + 1)
    parts = deblur(model, blurred(faces), tmp_path)
    np.testing.assert_allclose(parts.images, whole.images, atol=1e-5)
    np.testing.assert_allclose(parts.extras["cost"], whole.extras["cost"], atol=1e-6)


def test_the_leading_part_of_the_blur_is_the_blur() -> None:
    """Of a smooth photo nearly nothing is lost, of noise nothing that the blur lets through."""
    (columns, left), (lines, right) = _blur(24, SIGMA), _blur(20, SIGMA)
    assert len(columns) < 24 / 2
    x = torch.rand(3, *SIDE)
    expected = blurred(x)
    found = left.T @ (columns @ x @ lines.T) @ right
    assert float((found - expected).abs().max()) < 0.02
    assert float((found - expected).square().mean()) < 1e-2 * float(expected.var())


def test_gradient_of_auxterm(model: nn.Module, faces: torch.Tensor) -> None:
    y, x = blurred(faces[:2]), torch.rand(4, *SIDE)
    labels, owner, rows = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 0, 1]), torch.arange(4)
    f = _WithPhoto(model, labels, y, owner, SIGMA, 50.0)
    c = f.cost(x, rows)
    g, _ = f.gradient(rows)
    plain = WhiteBox(model, labels.tolist())
    only = plain.cost(x, rows)
    assert (c > only).all()
    torch.testing.assert_close(
        c - only, 50 * (blurred(x) - y[owner]).square().mean((1, 2, 3)).double(), rtol=0.1, atol=0
    )
    move = torch.randn(4, *SIDE, generator=torch.Generator().manual_seed(1)) * 1e-2
    up, down = f.cost(x + move, rows), f.cost(x - move, rows)
    torch.testing.assert_close((up - down) / 2, (g * move).sum((1, 2, 3)).double(), rtol=0.02, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "sentence"), [({"sigma": 7.0}, "sigma=7.0 must be above 0"), ({"sigma": 0.0}, "sigma=0.0 must be")]
)
def test_a_blur_that_does_not_fit(
    settings: dict[str, float], sentence: str, faces: torch.Tensor, model: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        deblur(model, faces, tmp_path, **settings)


def test_read_images(tmp_path: Path, faces: torch.Tensor, model: nn.Module) -> None:
    np.save(tmp_path / "good.npy", faces.numpy())
    assert count_images(tmp_path / "good.npy") == PEOPLE
    np.testing.assert_array_equal(read_images(tmp_path / "good.npy", ToyOracle(model, SIDE)), faces.numpy())  # type: ignore[arg-type]


BAD: list[tuple[Any, str]] = [
    (np.zeros((2, 1, 20, 24), np.float32), "the model takes (1, 24, 20): resize them"),
    (np.zeros((2, *SIDE)), "holds float64, not float32"),
    (np.full((2, *SIDE), np.nan, np.float32), "holds values that are no numbers"),
    (np.full((2, *SIDE), 255, np.float32), "holds values from 255 to 255, the model takes 0 to 1: scale them"),
    (np.zeros((0, *SIDE), np.float32), "holds no images"),
    (np.zeros((), np.float32), "holds no images"),
    (np.array([{"a": 1}], dtype=object), "is no .npy file of numbers"),
    (b"not an array", "is no .npy file of numbers"),
    (b"", "is no .npy file of numbers"),
]


@pytest.mark.parametrize(("content", "sentence"), BAD, ids=range(len(BAD)))
def test_files_that_cannot_be_read(content: Any, sentence: str, tmp_path: Path, model: nn.Module) -> None:
    path = tmp_path / "given.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    oracle = ToyOracle(model, SIDE, WEIGHTS)
    with pytest.raises(ValueError, match=r"given\.npy") as caught:
        list(Deblur(given=path, sigma=1.0).run(oracle, [0], 0))  # type: ignore[arg-type]
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file() -> None:
    with pytest.raises(ValueError, match=r"hand over a \.npy file"):
        Deblur().entries()
    with pytest.raises(ValueError, match=r"there is no file nowhere\.npy"):
        Deblur(given=Path("nowhere.npy")).entries()
