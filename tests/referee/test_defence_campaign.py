"""A campaign on defences in small: victims, keys, attacks and the report, from the real processes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from referee.campaign import read_plan
from referee.cli import main
from referee.figures import defences
from referee.report.summary import read
from referee.run import report_campaign, run_campaign

TEXT = """
title = "Defences in small"
figures = "defences"
seeds = [0]
[priors.eigenfaces]
kind = "pca"
parameters = { latent = 8 }
[victims.v]
architecture = "softmax_regression"
split = "att20"
[contracts."r=0.05"]
access = "scores"
round_to = 0.05
[contracts.fresh]
access = "scores"
defences = [["gaussian_noise", [["sigma", 0.05]]]]
[[cells]]
name = "numeric_small_probe"
victim = "v"
method = "numeric"
targets = "0-1"
contracts = ["r=0.05"]
parameters = { max_steps = 1 }
[[cells]]
name = "single"
victim = "v"
method = "random_draws"
prior = "eigenfaces"
targets = "0-1"
contracts = ["fresh"]
parameters = { draws = 20 }
[[cells]]
name = "averaged"
victim = "v"
method = "random_draws"
prior = "eigenfaces"
targets = "0-1"
repeats = 3
contracts = ["fresh"]
parameters = { draws = 20 }
[defences.label_smoothing]
kind = "training"
strengths = [ { alpha = -0.05 } ]
[defences.temperature]
kind = "response"
strengths = [ { temperature = 3.0 } ]
[defences.keyed_noise]
kind = "response"
strengths = [ { sigma = 0.05 } ]
[defences.label]
kind = "contract"
strengths = [ { access = "label" } ]
[[matrix]]
task = "att20"
split = "att20"
architecture = "softmax_regression"
targets = "0-4"
[[matrix.attacks]]
name = "margin"
method = "latent_gradient"
access = "weights"
prior = "eigenfaces"
parameters = { steps = 20, starts = 2 }
own = 0.5
[[matrix.attacks]]
name = "yoshimura"
access = "scores"
prior = "eigenfaces"
public = true
parameters = { starts = 2, rows = 60, perturbations = 8, sizes = 2 }
[[matrix.attacks]]
name = "brep"
method = "brep_mi"
access = "label"
prior = "eigenfaces"
parameters = { rows = 120 }
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_defences_strengths_and_attacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second evaluation network, which takes minutes, is the first one here."""
    monkeypatch.setattr(defences, "other_network", lambda results, split: (results.judge(split).network, 1.0))
    (tmp_path / "c.toml").write_text(TEXT)
    plan, out = read_plan(tmp_path / "c.toml"), tmp_path / "out"
    run_campaign(plan, out, command="referee run", device="cpu", jobs=2)
    figures = read(out / "summary.json")
    named = {
        "defences/undefended/att20/margin",
        "defences/undefended/att20/margin/over_own_campaign",
        "defences/undefended/att20/accuracy",
        "defences/label_smoothing/alpha=-0.05/att20/accuracy",
        "defences/label_smoothing/alpha=-0.05/att20/recognition",
        "defences/label_smoothing/negative",
        "defences/temperature/temperature=3/att20/recognition",
        "defences/keyed_noise/sigma=0.05/att20/accuracy",
        "defences/label/access=label/att20/recognition",
        "defences/argmax_keeping/brep_change",
        "defences/rounding_0.05/numeric_small_probe",
        "defences/fresh_noise/averaging_gain",
        "defences/seconds",
        "defences/counts_equal",
    }
    assert named <= set(figures)
    assert figures["defences/counts_equal"]["value"] == 1.0
    assert figures["defences/argmax_keeping/brep_change"]["value"] == 0.0  # the very same labels
    assert figures["defences/argmax_keeping/brep_change"]["contains_zero"]
    label = figures["defences/label/access=label/att20/recognition"]["attacks"]
    assert (label["yoshimura"]["refused"], label["brep"]["refused"]) == (True, False)
    assert figures["defences/temperature/temperature=3/att20/accuracy"]["agreement"] == 1.0
    rows = pq.read_table(out / "results.parquet").to_pylist()
    assert {row["defence"] for row in rows} == {None, "none", "label_smoothing", "temperature", "keyed_noise", "label"}
    page = (out / "report.html").read_text()
    for words in ("Defences: att20", "What is not covered", "Every attack against every defence", "Accuracy against"):
        assert words in page

    # Half-way: the undefended model's cells of one attack, and all that stand behind labels, are not there yet.
    for folder in (out / "referee" / "cells").iterdir():
        if folder.name.startswith(("margin@att20-none", "yoshimura@att20-none-s0+scores-label", "single")):
            shutil.rmtree(folder)
    report_campaign(plan, out, command="referee report", device="cpu")
    half = read(out / "summary.json")
    assert "change" not in half["defences/label_smoothing/alpha=-0.05/att20/recognition"]
    assert "defences/fresh_noise/averaging_gain" not in half
    said = CliRunner().invoke(
        main, ["report", str(tmp_path / "c.toml"), "--out", str(out), "--device", "cpu", "--markdown"]
    )
    assert said.exit_code == 0, said.output
    assert "## Defences: att20" in said.output
    assert "| undefended" in said.output
