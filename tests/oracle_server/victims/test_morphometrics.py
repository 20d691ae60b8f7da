"""Measurements of shapes whose measurements are known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from oracle_server.victims.morphometrics import OUTPUTS, morphometrics

NAMES = [output.name for output in OUTPUTS]


def canvas(*fills: tuple[slice | int, slice | int], side: int = 30) -> np.ndarray:
    image = np.zeros((1, 1, side, side), dtype=np.float32)
    for rows, columns in fills:
        image[0, 0, rows, columns] = 1.0
    return image


def measured(image: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, morphometrics(image)[0].tolist(), strict=True))


def test_the_outputs_are_those_of_the_paper_in_number() -> None:
    assert Counter(output.group for output in OUTPUTS) == {"shape": 17, "pose": 3, "landmarks": 60}
    assert len(set(NAMES)) == 80


def test_a_rectangle() -> None:
    """12 rows by 6 columns, at row 3 and column 8 of a square of side 30."""
    m = measured(canvas((slice(3, 15), slice(8, 14))))
    expected = {
        "area": 72 / 900,
        "filled_area": 72 / 900,
        "convex_area": 72 / 900,
        "extent": 1,
        "solidity": 1,
        "euler_number": 4 / 6,
        "box_height": 12 / 30,
        "box_width": 6 / 30,
        "largest_thickness": 3 * 4 / 30,
        "ink_mass": 2 * 72 / 900,
        "slant": 0.5,
        "centroid_row": 8.5 / 29,
        "centroid_column": 10.5 / 29,
        "left_0": 0,
        "left_1": 8 / 30,
        "right_7": 14 / 30,
        "right_8": 0,
        "top_3": 0,
        "top_4": 3 / 30,
        "bottom_6": 15 / 30,
        "bottom_7": 0,
    }
    assert {name: m[name] for name in expected} == pytest.approx(expected)
    # distances to the ground of each ring of pixels: 1 (32 of them), 2 (24), 3 (16)
    assert m["mean_thickness"] == pytest.approx((32 + 48 + 48) / 72 * 8 / 30)
    assert m["eccentricity"] == pytest.approx(np.sqrt(1 - (6 / 12) ** 2), abs=0.02)
    assert m["major_axis"] > 1.8 * m["minor_axis"]


def test_a_hole_is_seen_by_euler_number_and_filled_area() -> None:
    ring, solid = canvas((slice(5, 20), slice(5, 20))), canvas((slice(5, 20), slice(5, 20)))
    ring[0, 0, 9:14, 9:14] = 0
    a, b = measured(ring), measured(solid)
    assert (a["euler_number"], b["euler_number"]) == pytest.approx((3 / 6, 4 / 6))
    assert a["filled_area"] == b["filled_area"] == b["area"]
    assert a["area"] == pytest.approx(b["area"] - 25 / 900)


def test_slant_tells_left_from_right() -> None:
    """A diagonal of 45 degrees is all the slant that the scale has; its mirror image is none."""
    image = canvas(*((i, slice(i, i + 3)) for i in range(4, 24)))
    right, left = measured(image), measured(image[:, :, :, ::-1])
    assert right["slant"] == pytest.approx(1.0)
    assert left["slant"] == pytest.approx(0.0)
    assert (left["area"], left["hu_1"], left["hu_2"]) == pytest.approx((right["area"], right["hu_1"], right["hu_2"]))


def test_transposing_an_image_exchanges_its_landmarks() -> None:
    image = (np.random.default_rng(0).random((4, 1, 32, 32)) > 0.9).astype(np.float32)
    table = morphometrics(image)[:, 20:].reshape(4, 4, 15)
    mirrored = morphometrics(image.transpose(0, 1, 3, 2))[:, 20:].reshape(4, 4, 15)
    np.testing.assert_array_equal(mirrored, table[:, [2, 3, 0, 1]])


@pytest.mark.parametrize("side", [15, 28, 32])
def test_landmarks_are_those_that_a_loop_finds(side: int) -> None:
    image = (np.random.default_rng(1).random((side, side)) > 0.95).astype(np.float32)
    found = measured(image[None, None])
    for b in range(15):
        band = image[b * side // 15 : (b + 1) * side // 15]
        columns = np.flatnonzero(band.any(axis=0))
        expected = (columns[0] / side, (columns[-1] + 1) / side) if len(columns) else (0, 0)
        assert (found[f"left_{b}"], found[f"right_{b}"]) == pytest.approx(expected)


def test_an_empty_image_has_defined_values_and_leaves_the_others_alone() -> None:
    shape = canvas((slice(3, 15), slice(8, 14)))
    both = morphometrics(np.concatenate([shape * 0, shape, shape * 0, shape * 0.4, shape]))
    empty = {name: 0.5 if name in ("euler_number", "slant") or "centroid" in name else 0.0 for name in NAMES}
    assert dict(zip(NAMES, both[0], strict=True)) == pytest.approx(empty)
    np.testing.assert_array_equal(both[2], both[0])
    np.testing.assert_array_equal(both[3], both[0])  # grey that is no ink
    np.testing.assert_array_equal(both[[1, 4]], morphometrics(shape).repeat(2, axis=0))
    assert morphometrics(shape[:0]).shape == (0, 80)


@pytest.mark.filterwarnings("error")
def test_everything_stays_in_the_interval_without_a_warning() -> None:
    """A pixel, lines, corners, all ink, noise: hulls and ellipses that degenerate."""
    rng = np.random.default_rng(2)
    images = np.concatenate(
        [
            canvas((0, 0)),
            canvas((7, slice(None))),
            canvas((slice(None), 7)),
            canvas((0, 0), (29, 29)),
            canvas((slice(None), slice(None))),
            rng.random((60, 1, 30, 30)).astype(np.float32) ** rng.integers(1, 20, (60, 1, 1, 1)),
        ]
    )
    table = morphometrics(images)
    assert table.dtype == np.float64
    assert ((table >= 0) & (table <= 1)).all()
    np.testing.assert_array_equal(table[5:], morphometrics(images[5:]))


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((2, 30, 30)), "must be"),
        (np.zeros((2, 3, 30, 30)), "must be"),
        (np.zeros((2, 1, 14, 30)), "at least 15"),
        (np.full((1, 1, 30, 30), 255.0), "divide bytes by 255"),
        (np.full((1, 1, 30, 30), np.nan), "must lie in"),
    ],
)
def test_bad_images_are_refused(images: np.ndarray, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        morphometrics(images)
