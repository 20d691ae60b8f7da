"""What is handed over for advice: both layouts of both folders, and a sentence for each thing that does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oracle_server.models.card import Card
from protos.schema import Output
from referee.advise_data import check_model, read_handed_over

CARD = Card("mine", "1", (1, 16, 20), 0.0, 1.0, 3, 10, 10, "ab", "2")


def random_images(count: int, seed: int = 0, shape: tuple[int, ...] = (1, 16, 20)) -> np.ndarray:
    levels = np.random.default_rng(seed).integers(256, size=(count, *shape))
    return levels.astype(np.float32) / np.float32(255)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Four photos of class 0, five of class 1, six of class 2; seven public images."""
    private, public = tmp_path / "private", tmp_path / "public"
    private.mkdir()
    public.mkdir()
    np.save(private / "images.npy", random_images(15))
    np.save(private / "labels.npy", np.repeat(np.arange(3), [4, 5, 6]))
    np.save(public / "images.npy", random_images(7, seed=1))
    return private, public


def test_arrays_become_one_set_of_which_half_of_each_class_is_held_out(folders):
    handed = read_handed_over(CARD, *folders)
    split, labels = handed.split, handed.images.labels
    assert (handed.private, handed.public) == (15, 7)
    assert split.private == split.known == (0, 1, 2)
    assert np.bincount(labels[list(split.target)]).tolist() == [2, 3, 3]
    assert np.bincount(labels[list(split.test)]).tolist() == [2, 2, 3]
    assert split.evaluations == (split.target,)
    assert split.evaluation_test == split.test
    np.testing.assert_array_equal(handed.images.images[list(split.published)], random_images(7, seed=1))
    again = read_handed_over(CARD, *folders)
    assert (again.split, again.images.sha256()) == (split, handed.images.sha256())


def test_the_splits_name_tells_other_photos_apart(folders):
    name = read_handed_over(CARD, *folders).split.name
    np.save(folders[0] / "images.npy", random_images(15, seed=5))
    assert read_handed_over(CARD, *folders).split.name != name


@pytest.mark.parametrize("channels", [1, 3])
def test_photos_in_folders_are_stretched_and_numbered_by_the_folders_names(tmp_path, channels):
    for folder, level in (("c", 30), ("a", 10), ("b", 20)):
        (tmp_path / "private" / folder).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (33, 41), (level, 0, number)).save(tmp_path / "private" / folder / f"{number}.png")
    (tmp_path / "public").mkdir()
    for number in range(2):
        Image.new("L", (8, 8), 100 + number).save(tmp_path / "public" / f"{number}.jpg")
    (tmp_path / "public/card.txt").write_text("no photo")
    card = replace(CARD, input_shape=(channels, 16, 20))
    if channels == 1:  # the blue that tells the photos apart is next to nothing in grey
        (tmp_path / "private/a/0.png").unlink()
        Image.new("RGB", (33, 41), (10, 0, 0)).save(tmp_path / "private/a/0.png")
    handed = read_handed_over(card, tmp_path / "private", tmp_path / "public")
    assert handed.images.images.shape == (14, channels, 16, 20)
    assert handed.images.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 2
    if channels == 3:
        np.testing.assert_allclose(handed.images.images[9][:, 3, 3] * 255, [30, 0, 1], atol=1e-4)


def without(name: str):
    return lambda private, public: (private / name).unlink()


def save(place: int, name: str, array: object):
    return lambda *folders: np.save(folders[place] / name, array)


def only_folders(private: Path, public: Path) -> None:
    for path in private.iterdir():
        path.unlink()
    (private / "somebody").mkdir()


def two_shared(private: Path, public: Path) -> None:
    np.save(public / "images.npy", np.concatenate([random_images(3, seed=1), random_images(15)[[4, 9]]]))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (without("labels.npy"), "labels.npy is missing"),
        (without("images.npy"), "holds neither images.npy and labels.npy nor a folder"),
        (only_folders, "holds 1 folders, and the model has 3 classes"),
        (save(0, "images.npy", random_images(15, shape=(1, 20, 16))), r"the model takes float32 \(N, C, H, W\) with"),
        (save(0, "images.npy", np.zeros((15, 1, 16, 20), np.uint8)), "is uint8"),
        (save(0, "images.npy", random_images(15) * 255), "pixels must be from 0 to 1"),
        (save(0, "images.npy", np.full((15, 1, 16, 20), np.nan, np.float32)), "pixels must be from 0 to 1"),
        (save(0, "labels.npy", np.zeros(14, int)), "one whole number for each of the 15"),
        (save(0, "labels.npy", np.repeat(np.arange(1, 4), 5)), "from 1 to 3, the model's outputs from 0 to 2"),
        (save(0, "labels.npy", np.repeat([0, 1, 2], [4, 8, 3])), "class 2 has 3 photos; give at least 4"),
        (save(0, "labels.npy", np.repeat([0, 2], [3, 12])), "class 0 has 3 photos, and so few have 2 classes"),
        (save(1, "images.npy", random_images(7, shape=(3, 16, 20))), "the model takes float32"),
        (save(1, "images.npy", random_images(1)), "as photos, 2 or more"),
        (lambda private, public: (public / "images.npy").unlink(), "holds 0 images"),
        (lambda private, public: (public / "images.npy").write_bytes(b"no array"), "is no array"),
        (two_shared, r"2 of the 5 images .* are private photos .*number 3 is photo 4"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(folders, spoil, sentence):
    spoil(*folders)
    with pytest.raises(ValueError, match=sentence):
        read_handed_over(CARD, *folders)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kind": "tree", "input_shape": (4,)}, "is a tree model"),
        ({"kind": "features", "classes": 0, "outputs": (Output("x", "y"),)}, "is a features model"),
        ({"classes": 1}, "two classes or more"),
        ({"input_shape": (48,)}, "takes rows of shape"),
        ({"input_shape": (1, 8, 8)}, "at least 16 pixels"),
        ({"low": -1.0}, "takes values from -1 to 1"),
    ],
)
def test_models_that_are_no_classifiers_of_images_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_model(replace(CARD, **changes))
