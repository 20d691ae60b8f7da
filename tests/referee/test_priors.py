"""Priors of a campaign: what its file may say, and that a process of the attacker learns each of them once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from referee.campaign import CampaignError, read_plan
from referee.priors import PlannedPrior, learn_priors
from referee.processes import ProcessError, denied_folders
from referee.results import Results

TEXT = """
title = "t"
[victims.v]
architecture = "softmax_regression"
split = "att20"
[priors.faces]
kind = "pca"
parameters = { latent = 5 }
[contracts.label]
access = "label"
[[cells]]
victim = "v"
method = "brep_mi"
contracts = ["label"]
prior = "faces"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(text)
    return path


def test_a_cell_names_its_prior_and_says_how_it_was_made(tmp_path: Path) -> None:
    (cell,) = read_plan(write(tmp_path, TEXT)).cells
    assert cell.prior == PlannedPrior("faces", "pca", 0, {"latent": 5})
    assert cell.described == {"prior": {"kind": "pca", "seed": 0, "latent": 5}}
    (other,) = read_plan(write(tmp_path, TEXT.replace("latent = 5", "latent = 6"))).cells
    assert cell.attempt != other.attempt


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('prior = "faces"', 'prior = "cats"', "no prior 'cats'; there is faces"),
        ('kind = "pca"', 'kind = "cats"', "prior faces: no kind 'cats'; there is pca, vae, dcgan"),
        ("latent = 5", "latents = 5", "prior faces: --set latents=5: pca has the parameters latent, mirrored"),
        ('kind = "pca"', 'kind = "pca"\nsplit = "att20"', "prior faces has no field 'split'"),
        ('method = "brep_mi"', 'method = "mi_face"', "mi_face uses no image prior"),
    ],
)
def test_what_a_file_says_wrongly(old: str, new: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match=said):
        read_plan(write(tmp_path, TEXT.replace(old, new)))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    plan = read_plan(write(tmp_path, TEXT))
    made = Results(plan, tmp_path / "out", "cpu")
    made.public("att20")  # with the evaluation network from the cache that all tests share
    monkeypatch.setenv("MIRAGE_CACHE", str(tmp_path / "cache"))
    return made


def test_a_prior_is_learned_once_and_found_by_what_made_it(results: Results) -> None:
    (cell,) = results.plan.cells
    said: list[str] = []
    learn_priors(results, said.append)
    folder = results.prior(cell)
    assert folder is not None
    assert json.loads((folder / "card.json").read_text())["latent"] == 5
    assert (folder / "samples.png").exists()
    learn_priors(results, said.append)
    assert said == ["learning the prior faces from the public images of att20"]
    assert cell.prior is not None
    other = dataclasses.replace(cell, prior=PlannedPrior("faces", "pca", 1, {"latent": 5}))
    assert results.prior(other) != folder
    assert results.prior(dataclasses.replace(cell, prior=None)) is None


def test_a_prior_that_cannot_be_learned_says_why(results: Results) -> None:
    (cell,) = results.plan.cells
    folder = results.prior(cell)
    assert folder is not None
    folder.parent.mkdir(parents=True)
    folder.write_text("no folder")
    with pytest.raises((ProcessError, OSError)):
        learn_priors(results, lambda line: None)


def test_trained_victims_are_fenced_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRAGE_CACHE", str(tmp_path))
    assert tmp_path.resolve() / "victims" in denied_folders()
    assert tmp_path.resolve() / "priors" not in denied_folders()
