"""Slant against bars of known shear, turn against its own mirror."""

from __future__ import annotations

import numpy as np
import pytest

from attacker.poses import POSES, pose_subset, slant, turn


def bar(shear: float, size: tuple[int, int] = (32, 32), width: float = 2.0) -> np.ndarray:
    """A soft bar whose centre moves `shear` columns to the right for each row further up, (1, H, W) float32."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float64)
    middle = (size[1] - 1) / 2 - shear * (rows - (size[0] - 1) / 2)
    inside = np.abs(rows - (size[0] - 1) / 2) < size[0] / 4
    return (np.exp(-(((columns - middle) / width) ** 2)) * inside)[None].astype(np.float32)


def test_slant_is_the_shear() -> None:
    shears = np.array([-0.6, -0.2, 0.0, 0.1, 0.5])
    found = slant(np.stack([bar(shear) for shear in shears]))
    np.testing.assert_allclose(found, shears, atol=1e-3)
    assert found.dtype == np.float64


def test_slant_of_a_place_and_a_brightness() -> None:
    """Neither where the ink lies nor how bright it and its ground are changes the slant; a mirror turns it round."""
    image = bar(0.3)[None]
    moved = np.roll(image, (3, -4), (2, 3))
    np.testing.assert_allclose(slant(0.2 + 0.5 * moved), slant(image), atol=1e-3)
    np.testing.assert_allclose(slant(image[..., ::-1]), -slant(image), atol=1e-9)
    np.testing.assert_allclose(slant(np.repeat(image, 3, 1)), slant(image), atol=1e-9)


def test_turn_is_exactly_antisymmetric() -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 64, 64), (1, 112, 92), (3, 33, 31), (1, 5, 7)):
        images = rng.random((20, *shape), dtype=np.float32)
        found = turn(images)
        assert np.array_equal(turn(images[..., ::-1]), -found)
        assert np.array_equal(turn(np.ascontiguousarray(images[..., ::-1])), -found)
        assert (np.abs(found) <= 1).all()
        assert np.abs(found).min() > 0


def test_turn_in_closed_form() -> None:
    """One bright column of the region is its own centre; two equally bright ones have theirs in between."""
    images = np.zeros((4, 1, 64, 64), np.float32)  # the region: rows 16-47, columns 8-55
    images[0, :, :, 55] = 1
    images[1, :, :, 8] = 1
    images[2, :, :, [8, 55]] = 1
    images[3, :, :, 40] = 0.5
    np.testing.assert_allclose(turn(images), [1, -1, 0, 2 * (40 - 8) / 47 - 1], atol=1e-12)
    outside = images.copy()
    outside[:, :, :16], outside[:, :, :, :8] = 1, 1
    np.testing.assert_array_equal(turn(outside), turn(images))


@pytest.mark.parametrize("measure", [slant, turn])
def test_flat_images_have_no_pose(measure: object) -> None:
    flat = np.stack([np.full((1, 40, 30), value, np.float32) for value in (0.0, 0.3, 1.0)])
    assert (measure(flat) == 0).all()  # type: ignore[operator]


def test_slant_of_a_single_row_is_nothing() -> None:
    image = np.zeros((1, 1, 32, 32), np.float32)
    image[:, :, 7, 3:20] = 1
    assert slant(image) == 0


@pytest.mark.parametrize("tall", [False, True])
def test_subsets_are_thirds_by_pose(tall: bool) -> None:
    rng = np.random.default_rng(1)
    images = rng.random((31, 1, 64, 64)) if tall else np.stack([bar(s) for s in rng.uniform(-0.5, 0.5, 31)])
    values = (turn if tall else slant)(images)
    parts = np.stack([pose_subset(images, pose) for pose in POSES])
    assert (parts.sum(0) == 1).all()
    assert sorted(parts.sum(1)) == [10, 10, 11]
    left, upright, right = (values[part] for part in parts)
    assert left.max() < upright.min() <= upright.max() < right.min()


def test_bad_calls_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="there is no pose 'up': choose one of left, upright, right"):
        pose_subset(np.zeros((3, 1, 32, 32)), "up")
    with pytest.raises(ValueError, match="2 images have no thirds: give at least 3"):
        pose_subset(np.zeros((2, 1, 32, 32)), "left")
    with pytest.raises(ValueError, match=r"must be \(N, C, H, W\), not \(32, 32\)"):
        slant(np.zeros((32, 32)))
    with pytest.raises(ValueError, match="no numbers"):
        turn(np.full((1, 1, 8, 8), np.nan))
