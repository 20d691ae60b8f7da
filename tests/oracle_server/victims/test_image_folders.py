"""Folders of photos by identity, the data root, and CIFAR-10: what is read, and what is said when it is not there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from oracle_server.victims import cifar, image_folders
from oracle_server.victims.data import DATA, DATA_ROOT_VARIABLE, data_available, data_root
from oracle_server.victims.images import ImagesUnavailableError
from oracle_server.victims.splits import class_of, load, split_named


def photo(path: Path, grey: int, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (80, 80), grey if mode == "L" else (grey,) * 3).save(path)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FaceScrub with ann and bob, CelebA with bob and carl; every photo is flat."""
    for number in range(10):
        photo(tmp_path / "facescrub" / "bob" / f"{number}.png", 100 + number)
        photo(tmp_path / "facescrub" / "ann" / f"{number}.PGM", 50 + number)
        photo(tmp_path / "celeba" / "bob" / f"{number}.png", 200 + number)
        photo(tmp_path / "celeba" / "carl" / f"{number}.png", 150 + number, "RGB")
    (tmp_path / "facescrub" / "README").write_text("no photo")
    (tmp_path / "facescrub" / "empty").mkdir()
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path))
    return tmp_path


def test_identities_are_sorted_and_photos_grey_and_64x64(root: Path) -> None:
    photos = DATA["facescrub"]()
    assert image_folders.identities(root, "facescrub") == ("ann", "bob")
    assert (photos.images.shape, photos.images.dtype) == ((20, 1, 64, 64), np.float32)
    assert photos.labels.tolist() == [0] * 10 + [1] * 10
    np.testing.assert_allclose(photos.images.mean((1, 2, 3)) * 255, [*range(50, 60), *range(100, 110)], atol=1e-3)
    assert photos.terms
    assert "FaceScrub" in photos.credit


def test_loaded_sets_are_shared_and_read_only(root: Path) -> None:
    photos = DATA["celeba"]()
    assert photos is DATA["celeba"]()
    with pytest.raises(ValueError, match="read-only"):
        photos.images[0] = 0


def test_an_unreadable_photo_is_named(root: Path) -> None:
    (root / "facescrub" / "ann" / "7.PGM").write_bytes(b"P5 broken")
    with pytest.raises(ImagesUnavailableError, match=r"cannot read the photo .*7\.PGM: replace or remove it"):
        image_folders.photos(root, "facescrub")


def test_what_is_missing_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    assert data_root() is None
    for name in ("mnist", "cifar10", "facescrub", "celeba"):
        assert not data_available(name)
        with pytest.raises(ImagesUnavailableError, match=rf"{name} is read from a folder.*set {DATA_ROOT_VARIABLE}"):
            DATA[name]()
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path))
    for name in ("mnist", "cifar10", "facescrub", "celeba"):
        assert not data_available(name)
        with pytest.raises(ImagesUnavailableError, match=str(tmp_path)):
            DATA[name]()
    (tmp_path / "celeba").mkdir()
    with pytest.raises(ImagesUnavailableError, match="no photos in"):
        DATA["celeba"]()
    assert data_available("celeba")
    assert data_available("att64")
    with pytest.raises(ValueError, match=r"unknown data set 'lfw': choose one of att, att64, digits, mnist"):
        data_available("lfw")


def test_celeba_for_facescrub_leaves_out_who_is_in_both(root: Path) -> None:
    split = split_named("facescrub-celeba")
    assert (split.private, split.public, split.published_data) == ((0, 1), (), "celeba")
    assert (len(split.target), len(split.test)) == (16, 4)
    published = DATA["celeba"]().images[list(split.published)]
    np.testing.assert_allclose(published.mean((1, 2, 3)) * 255, range(150, 160), atol=1e-3)  # carl, not bob
    assert class_of(load(split), split.target, split.private).tolist() == [0] * 8 + [1] * 8


def test_facescrub_same_leaves_no_part_empty(root: Path) -> None:
    split = split_named("facescrub-same")
    assert (len(split.target), len(split.published), len(split.test)) == (10, 8, 2)
    for number in range(2, 10):
        (root / "facescrub" / "ann" / f"{number}.PGM").unlink()
    image_folders_again = root.rename(root.with_name("other"))  # remembered sets go by the root
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATA_ROOT_VARIABLE, str(image_folders_again))
        with pytest.raises(ValueError, match="class 0 has 2 images: it needs at least 3"):
            split_named("facescrub-same")


def test_cifar10_is_made_grey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]], dtype=np.uint8)

    def fake(root: Path, train: bool, download: bool) -> SimpleNamespace:
        assert (root, download) == (tmp_path, False)
        chosen = colours[:3] if train else colours[3:]
        return SimpleNamespace(
            data=np.broadcast_to(chosen[:, None, None], (len(chosen), 32, 32, 3)), targets=[1] * len(chosen)
        )

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fake)
    photos = cifar.photos(tmp_path)
    assert (photos.images.shape, photos.images.dtype, photos.labels.tolist()) == ((4, 1, 32, 32), np.float32, [1] * 4)
    assert np.rint(photos.images[:, 0, 5, 5] * 255).tolist() == [76, 150, 29, 90]


def test_cifar10_of_other_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / cifar.FOLDER).mkdir()
    (tmp_path / cifar.FOLDER / "data_batch_1").write_bytes(b"")
    assert cifar.available(tmp_path)
    with pytest.raises(ImagesUnavailableError, match=r"unpack cifar-10-python\.tar\.gz"):
        cifar.photos(tmp_path)
