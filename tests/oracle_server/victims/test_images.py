"""Resizing keeps what is flat flat, averages where it shrinks, and answers in whole bytes."""

from __future__ import annotations

import numpy as np
import pytest

from oracle_server.victims.images import resized


def test_the_same_size_is_the_same_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 9, 7)).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(resized(images, 9, 7), images)


def test_flat_images_stay_flat_each_with_its_own_grey() -> None:
    greys = np.array([0, 51, 255], dtype=np.float32) / np.float32(255)
    images = np.broadcast_to(greys[:, None, None, None], (3, 1, 28, 28)).copy()
    for height, width in ((32, 32), (10, 41)):
        result = resized(images, height, width)
        assert (result.shape, result.dtype) == ((3, 1, height, width), np.float32)
        np.testing.assert_array_equal(result, np.broadcast_to(greys[:, None, None, None], result.shape))


def test_shrinking_averages_where_picking_pixels_would_not() -> None:
    stripes = np.zeros((1, 1, 64, 64), dtype=np.float32)
    stripes[..., ::2] = 1
    inner = resized(stripes, 16, 16)[..., 2:-2]  # without antialiasing all 0 or all 1 or a pattern
    assert np.abs(inner - 0.5).max() < 0.07


def test_values_are_bytes_in_range() -> None:
    images = np.random.default_rng(1).random((4, 1, 28, 28), dtype=np.float32)
    result = resized(images, 32, 32)
    assert 0 <= result.min() < result.max() <= 1
    np.testing.assert_array_equal(result, np.rint(result * 255).astype(np.uint8) / np.float32(255))


@pytest.mark.parametrize(("shape", "size"), [((28, 28), (32, 32)), ((1, 1, 28, 28), (0, 32))])
def test_what_is_no_stack_of_images_is_refused(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"give \(N, C, H, W\)"):
        resized(np.zeros(shape, dtype=np.float32), *size)
