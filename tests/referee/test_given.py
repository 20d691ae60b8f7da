"""Blurred photos for the deblurring attack: whose they are, and only such as the model no longer recognises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oracle_server.victims.splits import load, split_named
from referee.given import blur, blurred_photos, check_given, people_of, write_images

SPLIT = split_named("att30")


class _Says(nn.Module):
    """Gives every photo to one class."""

    def __init__(self, answer: int) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.full((len(x),), self.answer), 30).float()


def test_blur_keeps_the_mean_and_takes_the_detail() -> None:
    images = np.random.default_rng(0).random((2, 1, 40, 30), dtype=np.float32)
    soft = blur(images, 3.0)
    assert soft.shape == images.shape
    assert soft.dtype == np.float32
    assert abs(soft.mean() - images.mean()) < 0.01
    assert soft.std() < 0.2 * images.std()
    assert np.abs(blur(images, 0.1) - images).max() < 1e-4


def test_private_people_with_unseen_photos_and_public_ones_with_all() -> None:
    faces = load(SPLIT)
    given = blurred_photos(SPLIT, faces, _Says(29), people="3-4", sigma=5.0)
    assert given.people.tolist() == [3, 3, 3, 4, 4, 4]
    rows = [10 * person + photo for person in (3, 4) for photo in (7, 8, 9)]
    np.testing.assert_array_equal(given.photos, faces.images[rows])
    np.testing.assert_array_equal(given.images, blur(faces.images[rows], 5.0))
    outside = blurred_photos(SPLIT, faces, _Says(29), people="35", sigma=5.0)
    assert outside.people.tolist() == [35] * 10


def test_what_the_model_still_recognises_is_left_out() -> None:
    given = blurred_photos(SPLIT, load(SPLIT), _Says(3), people="3-4", sigma=5.0)
    assert given.people.tolist() == [4, 4, 4]


@pytest.mark.parametrize("text", ["", "a", "3-", "40", "0-40", "-1", "5-4"])
def test_people_who_are_not_there(text: str) -> None:
    with pytest.raises(ValueError, match="people = "):
        people_of(text, SPLIT)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [({"people": "3"}, "given needs people"), ({"people": "3", "sigma": 0}, "must be above 0")],
)
def test_a_table_that_is_no_given(values: dict[str, object], sentence: str) -> None:
    assert check_given({"people": "3-5", "sigma": 6}, SPLIT) == {"people": "3-5", "sigma": 6}
    with pytest.raises(ValueError, match=sentence):
        check_given(values, SPLIT)


def test_written_as_the_attacker_reads_them(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((2, 1, 4, 3), dtype=np.float32)
    np.testing.assert_array_equal(np.load(write_images(images, tmp_path / "a" / "x.npy")), images)
