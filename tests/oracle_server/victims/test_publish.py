"""What is published holds no private image, no label, and says where it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from oracle_server.cli_models import MODEL_COMMANDS
from oracle_server.victims import publish as module
from oracle_server.victims.att import CREDIT
from oracle_server.victims.data import DATA, DATA_ROOT_VARIABLE, data_root
from oracle_server.victims.images import ImageSet, resized
from oracle_server.victims.publish import LeakError, TermsError, private_images_in, publish
from oracle_server.victims.splits import SPLITS, split_named

ATT30, ATT40 = SPLITS["att30"], SPLITS["att40"]


def test_the_public_people_and_nobody_else(faces: ImageSet, tmp_path: Path) -> None:
    folder = publish(ATT30, tmp_path / "public", accept_terms=True, faces=faces)
    images = np.load(folder / "images.npy", allow_pickle=False)
    card = json.loads((folder / "card.json").read_text())
    assert images.shape == (100, 1, 112, 92)
    assert images.dtype == np.float32
    expected = faces.images[faces.labels >= 30]
    assert {image.tobytes() for image in images} == {image.tobytes() for image in expected}
    assert private_images_in(folder, ATT30, faces) == []
    assert sorted(entry.name for entry in folder.iterdir()) == ["card.json", "images.npy"]
    assert card["images_sha256"] == hashlib.sha256((folder / "images.npy").read_bytes()).hexdigest()
    assert (card["split"], card["images"], card["shape"]) == ("att30", 100, [1, 112, 92])
    assert (card["credit"], card["terms_accepted"], card["range"]) == (CREDIT, True, [0.0, 1.0])


def test_neither_card_nor_order_tells_who_is_on_an_image(faces: ImageSet, tmp_path: Path) -> None:
    folder = publish(ATT30, tmp_path, accept_terms=True, faces=faces)
    names = json.loads((folder / "card.json").read_text()).keys()
    assert not {"people", "private", "public", "labels", "rows", "target"} & names
    who = {image.tobytes(): int(person) for image, person in zip(faces.images, faces.labels, strict=True)}
    people = [who[image.tobytes()] for image in np.load(folder / "images.npy")]
    assert sum(left == right for left, right in pairwise(people)) < 25  # 90 when sorted


def test_publishing_again_gives_the_same_bytes(faces: ImageSet, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in sorted(publish(ATT30, tmp_path, True, faces=faces).iterdir())]
    again = [path.read_bytes() for path in sorted(publish(ATT30, tmp_path, True, faces=faces).iterdir())]
    assert first == again


def test_without_public_people_only_the_card(faces: ImageSet, tmp_path: Path) -> None:
    publish(ATT30, tmp_path, accept_terms=True, faces=faces)
    folder = publish(ATT40, tmp_path, accept_terms=True, faces=faces)  # clears what the other split left there
    assert [entry.name for entry in folder.iterdir()] == ["card.json"]
    card = json.loads((folder / "card.json").read_text())
    assert (card["images"], card["images_sha256"], card["shape"]) == (0, None, [1, 112, 92])


@pytest.mark.parametrize("row", [0, 7, 299])
@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_a_planted_private_image_is_found(faces: ImageSet, tmp_path: Path, row: int, noise: float) -> None:
    folder = publish(ATT30, tmp_path, accept_terms=True, faces=faces)
    images = np.load(folder / "images.npy")
    images[42] = np.clip(faces.images[row] + np.float32(noise), 0, 1)
    np.save(folder / "images.npy", images)
    assert private_images_in(folder, ATT30, faces) == [row]


def test_a_planted_file_is_found(faces: ImageSet, tmp_path: Path) -> None:
    folder = publish(ATT30, tmp_path, accept_terms=True, faces=faces)
    (folder / "labels.npy").write_bytes(b"")
    with pytest.raises(LeakError, match=r"files that publishing does not write: labels\.npy"):
        private_images_in(folder, ATT30, faces)


def test_a_leak_is_not_published(faces: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same photo under two rows, one private and one public: the index lists alone do not see it."""
    images = faces.images.copy()
    images[350] = images[3]
    twice = dataclasses.replace(faces, images=images)
    with pytest.raises(LeakError, match=r"would publish private images \(rows \[3\]\): it was not published"):
        publish(ATT30, tmp_path, accept_terms=True, faces=twice)
    assert not (tmp_path / "images.npy").exists()
    monkeypatch.setattr(module, "private_images_in", lambda *_: [])
    publish(ATT30, tmp_path, accept_terms=True, faces=twice)  # it is this check that refuses, and nothing else


@pytest.mark.parametrize("split", [ATT30, ATT40], ids=lambda split: split.name)
def test_terms_must_be_accepted(faces: ImageSet, tmp_path: Path, split: object) -> None:
    with pytest.raises(TermsError, match=r"has terms of use .*AT&T.*: publish it with --accept-terms"):
        publish(split, tmp_path / "public", faces=faces)  # type: ignore[arg-type]
    assert not (tmp_path / "public").exists()
    free = dataclasses.replace(faces, terms="")
    assert publish(split, tmp_path / "public", faces=free).is_dir()  # type: ignore[arg-type]


def test_a_folder_with_other_files_is_left_alone(faces: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="publish to a new or empty folder"):
        publish(ATT30, tmp_path, accept_terms=True, faces=faces)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_other_things_are_published_in_the_targets_shape(tmp_path: Path) -> None:
    split = split_named("att20-distinct")
    folder = publish(split, tmp_path / "public")  # digits have no terms, and no face is published
    images = np.load(folder / "images.npy", allow_pickle=False)
    card = json.loads((folder / "card.json").read_text())
    assert (images.shape, images.dtype) == ((2000, 1, 64, 64), np.float32)
    expected = resized(DATA["digits"]().images[list(split.published)], 64, 64)
    assert {image.tobytes() for image in images} == {image.tobytes() for image in expected}
    assert (card["data"], card["published_data"], card["shape"]) == ("att64", "digits", [1, 64, 64])
    assert "MNIST" in card["credit"]
    assert not card["terms_accepted"]


def test_every_row_is_private_when_other_things_are_published(tmp_path: Path) -> None:
    split = split_named("att20-distinct")
    faces = DATA["att64"]()
    folder = publish(split, tmp_path / "public", faces=faces)
    images = np.load(folder / "images.npy")
    row = split.published[0] if split.published[0] < 400 else 399
    images[5] = faces.images[row]
    np.save(folder / "images.npy", images)
    assert private_images_in(folder, split, faces) == [row]


def test_terms_of_what_is_published_must_be_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    split = split_named("digits-distinct")  # faces for digits
    with pytest.raises(TermsError, match="the data set att64 has terms of use"):
        publish(split, tmp_path / "public")
    assert not (tmp_path / "public").exists()
    card = json.loads((publish(split, tmp_path / "public", accept_terms=True) / "card.json").read_text())
    assert (card["shape"], card["published_data"], card["terms_accepted"]) == ([1, 32, 32], "att64", True)


def test_the_card_names_another_data_set_only_then(tmp_path: Path) -> None:
    card = json.loads((publish(split_named("digits-same-k3"), tmp_path) / "card.json").read_text())
    assert "published_data" not in card
    assert (card["images"], card["shape"], card["data"]) == (2250, [1, 32, 32], "digits")


@pytest.mark.parametrize("name", ["publish", "train"])
def test_the_command_line_names_the_data_root_and_the_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(DATA_ROOT_VARIABLE, "")  # restored after the test: the command sets it
    command = next(command for command in MODEL_COMMANDS if command.name == name)
    (tmp_path / "data").mkdir()
    place = {"publish": ["mnist-five", "--out"], "train": ["mlp", "--split", "mnist-five", "--root"]}[name]
    missing = CliRunner().invoke(command, [*place, str(tmp_path / "out")])
    assert missing.exit_code == 1
    assert f"set {DATA_ROOT_VARIABLE} (or --data-root)" in missing.output
    empty = CliRunner().invoke(command, [*place, str(tmp_path / "out"), "--data-root", str(tmp_path / "data")])
    assert empty.exit_code == 1
    assert "MNIST is incomplete" in empty.output
    assert data_root() == tmp_path / "data"
    assert not (tmp_path / "out").exists()
    helped = "".join(CliRunner().invoke(command, ["--help"]).output.split())  # as lines break anywhere
    assert "digits-same" in helped
    assert "att20-k10" in helped
