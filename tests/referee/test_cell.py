"""A cell survives the disk bit for bit, and half a cell is no cell."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest

from referee import atomic
from referee.cell import BrokenCellError, contract_hash, find, load, save


def assert_same(one, other):
    for field in fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
        else:
            assert left == right


def test_round_trip(make_cell, make_refused, tmp_path):
    for i, cell in enumerate((make_cell(), make_refused())):
        save(cell, tmp_path / str(i))
        assert_same(load(tmp_path / str(i)), cell)
        assert sorted(path.name for path in (tmp_path / str(i)).iterdir()) == ["arrays.npz", "cell.json"]


def test_a_figure_that_is_not_known_comes_back_as_nan(make_cell, tmp_path):
    save(make_cell(capacity_bits=float("nan")), tmp_path)
    assert "NaN" not in (tmp_path / "cell.json").read_text()
    assert np.isnan(load(tmp_path).capacity_bits)


def test_the_same_cell_gives_the_same_bytes(make_cell, tmp_path):
    for name in "ab":
        save(make_cell(), tmp_path / name)
    for file in ("cell.json", "arrays.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_run_killed_between_the_two_files_is_not_finished(make_cell, tmp_path, monkeypatch):
    def killed_before_json(path, data):
        if path.name == "cell.json":
            raise KeyboardInterrupt
        atomic.write_atomically(path, data)

    monkeypatch.setattr("referee.cell.write_atomically", killed_before_json)
    with pytest.raises(KeyboardInterrupt):
        save(make_cell(), tmp_path)
    assert find(tmp_path) is None
    # The same over an older, finished cell: new arrays with the old head are refused, not mixed.
    monkeypatch.undo()
    save(make_cell(), tmp_path)
    assert find(tmp_path) is not None
    monkeypatch.setattr("referee.cell.write_atomically", killed_before_json)
    with pytest.raises(KeyboardInterrupt):
        save(make_cell(seed=1), tmp_path)
    with pytest.raises(BrokenCellError, match="don't belong together"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "arrays.npz").unlink(), "arrays.npz is missing"),
        (lambda folder: (folder / "cell.json").unlink(), "cell.json is missing"),
        (lambda folder: (folder / "cell.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "cell.json").write_text('{"format": 99}'), "another version"),
        (lambda folder: (folder / "arrays.npz").write_bytes(b"PK"), "don't belong together"),
    ],
)
def test_a_damaged_folder_is_run_again(make_cell, tmp_path, damage, sentence):
    save(make_cell(), tmp_path)
    damage(tmp_path)
    with pytest.raises(BrokenCellError, match=sentence):
        load(tmp_path)
    assert find(tmp_path) is None


def test_a_head_without_a_field_is_refused(make_cell, tmp_path):
    save(make_cell(), tmp_path)
    head = json.loads((tmp_path / "cell.json").read_text())
    del head["method"]
    (tmp_path / "cell.json").write_text(json.dumps(head))
    with pytest.raises(BrokenCellError, match="can't be read"):
        load(tmp_path)


def test_an_infinite_figure_is_refused_and_nothing_is_written(make_cell, tmp_path):
    with pytest.raises(ValueError, match="can't be written as JSON"):
        save(make_cell(capacity_bits=float("inf")), tmp_path / "cell")
    assert not (tmp_path / "cell").exists()


def test_shapes_and_statuses_are_checked(make_cell):
    with pytest.raises(ValueError, match=r"top5 has shape \(2, 3\)"):
        make_cell(top5=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="images has shape"):
        make_cell(images=np.zeros((2, 4, 6, 5)))
    with pytest.raises(ValueError, match="status 'fine'"):
        make_cell(status="fine")


def test_the_contract_hash_ignores_order_and_sees_every_value():
    assert contract_hash({"a": 1, "b": None}) == contract_hash({"b": None, "a": 1})
    assert contract_hash({"round_to": 0.01}) != contract_hash({"round_to": 0.05})


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic.write_atomically(path, b"old")

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
