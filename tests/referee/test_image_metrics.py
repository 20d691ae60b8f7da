"""Pixel by pixel: closed forms, one call for all against one for each, and what is no image."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from referee.metrics import mse, psnr, ssim


def pairs(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    truth = random.random(shape, dtype=np.float32)
    return np.clip(truth + random.normal(0, 0.1, shape), 0, 1).astype(np.float32), truth


def test_the_error_of_a_constant_difference_is_its_square():
    truth = np.full((3, 1, 8, 9), 0.25)
    made = truth + np.array([0.0, 0.1, 0.5]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(mse(made, truth), [0, 0.01, 0.25], atol=1e-12)
    np.testing.assert_allclose(psnr(made, truth), [100, 20, 10 * np.log10(4)])


@pytest.mark.parametrize(
    ("shape", "window"), [((4, 1, 32, 32), 7), ((3, 3, 16, 9), 7), ((2, 2, 6, 5), 5), ((2, 1, 3, 9), 3)]
)
def test_similarity_of_all_at_once_is_that_of_each_alone(shape, window):
    made, truth = pairs(*shape)
    alone = [
        np.mean([structural_similarity(t, m, data_range=1.0, win_size=window) for m, t in zip(a, b, strict=True)])
        for a, b in zip(made.astype(float), truth.astype(float), strict=True)
    ]
    np.testing.assert_allclose(ssim(made, truth), alone, rtol=1e-10)
    assert len(set(np.round(alone, 6))) == len(alone)  # nobody gets another's value
    np.testing.assert_allclose(ssim(truth, truth), 1.0)
    assert (ssim(made[::-1], truth)[0] < ssim(made, truth)[0]) or len(made) == 1


def test_what_is_not_finite_has_the_worst_error_and_no_other_image_pays():
    made, truth = pairs(3, 1, 8, 8)
    spoilt = made.copy()
    spoilt[1, 0, 2, 2] = np.nan
    assert mse(spoilt, truth)[1] == 1.0
    assert psnr(spoilt, truth)[1] == 0.0
    assert ssim(spoilt, truth)[1] == 0.0
    for measure in (mse, psnr, ssim):
        np.testing.assert_array_equal(measure(spoilt, truth)[[0, 2]], measure(made, truth)[[0, 2]])
        assert measure(made, truth).shape == (3,)
        assert measure(made[:0], truth[:0]).shape == (0,)


@pytest.mark.parametrize("measure", [mse, psnr, ssim])
def test_shapes_that_are_no_pair_of_images(measure):
    made, truth = pairs(3, 1, 8, 8)
    with pytest.raises(ValueError, match=r"must be equal and \(N, C, H, W\)"):
        measure(made[:2], truth)
    with pytest.raises(ValueError, match="must be equal"):
        measure(made[0], truth[0])
    with pytest.raises(ValueError, match="true images hold values that are no numbers"):
        measure(made, truth * np.nan)


def test_images_too_small_for_a_window():
    with pytest.raises(ValueError, match="at least 3"):
        ssim(np.zeros((1, 1, 2, 8)), np.zeros((1, 1, 2, 8)))
