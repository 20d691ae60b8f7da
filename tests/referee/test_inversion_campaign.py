"""Somebody else's answers, a developer's data, cells side by side: a small campaign through the real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from oracle_server.operator import open_operator
from oracle_server.victims.splits import load, split_named
from protos.mirage.v1 import admin_pb2
from referee.campaign import read_plan
from referee.cell import Cell
from referee.given import GivenAnswers
from referee.metrics import mse
from referee.results import Results

CAMPAIGN = """
title = "Inversion in small"
[victims.softmax]
architecture = "softmax_regression"
split = "att20-k5"
[victims.absent]
architecture = "softmax_regression"
split = "facescrub-same"
[contracts.full]
access = "scores"
[contracts.m2]
access = "scores"
top_k = 2
[contracts.label]
access = "label"
[contracts.weights]
access = "weights"
[[cells]]
victim = "softmax"
method = "inversion_network"
contracts = ["full"]
public = true
parameters = { epochs = 1, width = 1 }
given = { photos = 4, answers = ["full", "m2", "label"] }
[[cells]]
victim = "softmax"
method = "inversion_network"
name = "developer"
contracts = ["m2"]
public = "developer"
seeds = [3]
parameters = { epochs = 1, width = 1 }
given = { photos = 4, answers = ["m2"] }
[[cells]]
victim = "softmax"
method = "inversion_network"
name = "classes"
contracts = ["label"]
public = "developer+published"
parameters = { epochs = 1, width = 1 }
[[cells]]
victim = "softmax"
method = "deblur"
contracts = ["weights"]
parameters = { max_steps = 1 }
given = { people = "0-1", sigma = 8.0 }
[[cells]]
victim = "absent"
method = "random_draws"
contracts = ["label"]
"""


def run(folder: Path, *more: str, text: str = CAMPAIGN) -> str:
    (folder / "campaign.toml").write_text(text)
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("MIRAGE_DATA_ROOT", None)
    done = subprocess.run(
        [sys.executable, "-m", "referee", "run", "campaign.toml", "--out", "out", "--device", "cpu", *more],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("i")
    return folder, run(folder, "--jobs", "2")


@pytest.fixture(scope="module")
def results(finished) -> Results:
    folder, _ = finished
    return Results(read_plan(folder / "campaign.toml"), (folder / "out").resolve(), "cpu")


def cell_of(results: Results, name: str) -> Cell:
    (planned,) = (planned for planned in results.plan.cells if planned.name == name)
    cell = results.finished(planned)
    assert cell is not None
    assert (cell.status, cell.sentence) == ("done", "")
    return cell


def keys_of(folder: Path) -> dict[str, tuple[int, int, bool]]:
    """For each label how many keys there are, the rows charged to them, and whether all are revoked."""
    with open_operator(folder / "out/victim") as operator:
        keys = operator.list_keys(admin_pb2.ListKeysRequest()).keys
    found: dict[str, tuple[int, int, bool]] = {}
    for key in keys:
        count, rows, revoked = found.get(key.label, (0, 0, True))
        found[key.label] = (count + 1, rows + key.usage.spent, revoked and key.HasField("revoked"))
    return found


def test_each_image_is_compared_with_the_photo_behind_its_answer(results):
    cell = cell_of(results, "inversion_network/full")
    given = results.given(results.planned(cell))
    assert isinstance(given, GivenAnswers)
    assert given.contracts.tolist() == ["full"] * 8 + ["m2"] * 8 + ["label"] * 8
    assert given.kinds.tolist() == (["training"] * 4 + ["unseen"] * 4) * 3
    np.testing.assert_array_equal(cell.targets, given.people)
    np.testing.assert_allclose(cell.mse[-1], mse(cell.images[-1], given.photos))
    assert np.isfinite(cell.ssim).all()
    assert np.isfinite(cell.psnr).all()
    assert cell.counts_equal


def test_the_answers_are_those_that_the_model_gives_under_each_contract(results):
    cell = cell_of(results, "inversion_network/full")
    planned = results.planned(cell)
    given = results.given(planned)
    assert isinstance(given, GivenAnswers)
    with np.load(results.attacker_folder(planned) / "answers.npz") as file:
        answers = file["answers"]
    np.testing.assert_array_equal(answers, given.answers)
    full, two, label = answers.reshape(3, 8, 5)
    np.testing.assert_allclose(full.sum(axis=1), 1, rtol=1e-6)
    best = np.sort(full, axis=1)[:, -2:]
    np.testing.assert_allclose(np.sort(two, axis=1)[:, :2], best, rtol=1e-6)
    assert np.isnan(two).sum() == 8 * 3
    np.testing.assert_array_equal(np.nan_to_num(label), np.arange(5) == full.argmax(axis=1)[:, None])
    assert np.isnan(label).sum() == 8 * 4
    assert full.argmax(axis=1)[:4].tolist() == given.people[:4].tolist()  # of training photos the model is sure


def test_benign_keys_are_charged_once_and_shared_by_cells(finished):
    folder, _ = finished
    keys = keys_of(folder)
    for name in ("full", "m2", "label"):
        assert keys[f"benign {name}"] == (1, 8, True)
    assert all(revoked for _, _, revoked in keys.values())
    assert not list((folder / "out/referee/benign").glob("*/key.json"))


def test_a_class_is_no_particular_image(results):
    cell = cell_of(results, "classes/label")
    assert np.isnan([cell.mse, cell.psnr, cell.ssim]).all()
    assert cell.targets.tolist() == list(range(5))


def test_deblurred_photos_are_compared_as_well(results):
    cell = cell_of(results, "deblur/weights")
    given = results.given(results.planned(cell))
    np.testing.assert_allclose(cell.mse[-1], mse(cell.images[-1], given.photos))


def test_a_developer_has_the_training_photos_and_with_them_the_published(finished, results):
    folder, _ = finished
    split = split_named("att20-k5")
    private = load(split).images[list(split.target)]
    published = np.load(folder / "out/public/att20-k5/images.npy")
    for name, expected in (("developer/m2", private), ("classes/label", np.concatenate([private, published]))):
        cell = cell_of(results, name)
        place = results.attacker_folder(results.planned(cell)) / "developer"
        np.testing.assert_array_equal(np.load(place / "images.npy"), expected)
        card = {"kind": "developer's own data", "split": "att20-k5", "images": len(expected)}
        assert json.loads((place / "card.json").read_text()) == card
        assert cell.rows_ledger == len(expected)
    assert not (results.attacker_folder(results.plan.cells[0]) / "developer").exists()


def test_what_is_not_here_is_left_out_with_a_note(finished, results):
    folder, said = finished
    assert "of 4: " in said  # cells
    assert [victim.name for victim in results.plan.victims] == ["softmax"]
    page = (folder / "out/report.html").read_text()
    assert "Not run: absent (" in page
    assert "MIRAGE_DATA_ROOT" in page


def test_the_tables_have_the_measures_where_there_are_some(finished):
    folder, said = finished
    page = (folder / "out/report.html").read_text()
    assert ">MSE</th>" in page
    assert "MSE" in said
    rows = pq.read_table(folder / "out/results.parquet").to_pylist()
    assert all((row["mse"] is None) == row["cell"].startswith("classes") for row in rows)


AGAIN = """
[[cells]]
victim = "softmax"
method = "inversion_network"
name = "again"
contracts = ["full"]
public = true
parameters = { epochs = 1, width = 1, rows = 20 }
given = { photos = 4, answers = ["m2"] }
"""


def test_a_later_cell_finds_the_answers_and_nobody_is_charged_again(finished):
    folder, _ = finished
    keys = keys_of(folder)
    said = run(folder, text=CAMPAIGN + AGAIN)
    assert "cell 1 of 1: again/full" in said
    assert keys_of(folder) == keys | {"again/full": (1, 20, True)}
