"""The campaigns on latent-space attacks in small: every figure and section, from the real processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from referee.campaign import read_plan
from referee.figures import brep, latent, yoshimura
from referee.figures.latent import Way
from referee.report.summary import read
from referee.run import run_campaign

HEAD = """
title = "Latent in small"
figures = "{figures}"
[victims.f0]
architecture = "softmax_regression"
split = "att20"
[victims.f1]
architecture = "softmax_regression"
split = "att20"
seed = 1
[priors.faces]
kind = "pca"
parameters = {{ latent = 8 }}
[contracts.weights]
access = "weights"
[contracts.full]
access = "scores"
[contracts."top_k=1"]
access = "scores"
top_k = 1
[contracts.label]
access = "label"
"""
BREP = [
    ("brep", "brep_mi", "label", "rows = 120"),
    ("brep_compatible", "brep_mi", "label", "rows = 120, compatible = true, draws = 20"),
    ("brep_first_draw", "brep_mi", "label", 'rows = 120, first = "draw"'),
    ("draws", "random_draws", "label", "draws = 2000"),
    ("gmi_ce", "latent_gradient", "weights", "steps = 5, starts = 2"),
]
YOSHIMURA = [
    ("black", "yoshimura", "full", "starts = 2, rows = 60, perturbations = 8, sizes = 2"),
    ("white", "yoshimura_white", "weights", "starts = 2, rows = 4"),
    ("equal_least_squares", "yoshimura", "full", "rows = 60, perturbations = 8, sizes = 2"),
    ("equal_central", "yoshimura", "full", 'rows = 60, estimator = "central"'),
    ("withheld", "yoshimura", "top_k=1", "rows = 40, perturbations = 8, sizes = 2"),
    ("table", "yoshimura", "full", "starts = 3, rows = 40, perturbations = 8, sizes = 2"),
    ("table_white", "yoshimura_white", "weights", "starts = 3, rows = 4"),
]


def campaign(figures: str, cells: list[tuple[str, str, str, str]]) -> str:
    text = HEAD.format(figures=figures)
    for name, method, contract, parameters in cells:
        victims = '["f0", "f1"]' if name in ("brep", "black", "white") else '["f0"]'
        text += f'[[cells]]\nname = "{name}"\nvictim = {victims}\nmethod = "{method}"\ncontracts = ["{contract}"]\n'
        text += f'prior = "faces"\nparameters = {{ {parameters} }}\n'
        text += "public = true\n" if method.startswith("yoshimura") else ""
        text += 'targets = "0-4"\n' if name.startswith("table") else ""
    return text


@pytest.fixture
def finished(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict, str]:
    """The figures and the page of a campaign; the second evaluation network, which takes minutes, is the first."""
    figures, cells = request.param
    for module in (brep, yoshimura):
        monkeypatch.setattr(module, "other_network", lambda results, split: (results.judge(split).network, 1.0))
    monkeypatch.setattr(latent, "_STEPS", 2)
    (tmp_path / "c.toml").write_text(campaign(figures, cells))
    run_campaign(read_plan(tmp_path / "c.toml"), tmp_path / "out", command="referee run", device="cpu", jobs=2)
    return read(tmp_path / "out" / "summary.json"), (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("finished", [("brep", BREP)], indirect=True, ids=["brep"])
def test_labels_alone(finished: tuple[dict[str, Any], str]) -> None:
    figures, page = finished
    named = {
        "brep/att20/top1@3000",
        "brep/att20/brep_compatible/label/top1",
        "brep/att20/top1_minus_gmi_ce",
        "brep/att20/top1_minus_best_of_n",
        "brep/improved_over_compatible/rows",
        "brep/options/first_draw/rows",
        "brep/linear/cosine",
        "latent/batched_over_single",
        "brep/counts_equal",
    }
    assert named <= set(figures)
    assert figures["brep/counts_equal"]["value"] == 1.0
    assert 0.95 <= figures["brep/linear/cosine"]["value"] <= 1.05
    assert figures["brep/att20/top1@3000"]["victims"] == 2
    assert figures["brep/att20/top1@3000"]["rows_a_target"] <= 120
    assert figures["latent/batched_over_single"]["model"] == "softmax_regression"
    for title in ("Labels alone: att20", "What makes it cheaper", "Recognition against rows"):
        assert title in page


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("finished", [("yoshimura", YOSHIMURA)], indirect=True, ids=["yoshimura"])
def test_released_scores(finished: tuple[dict[str, Any], str]) -> None:
    figures, page = finished
    named = {
        "yoshimura/att20/black_minus_white",
        "yoshimura/att20/white/top1",
        "yoshimura/least_squares_minus_central",
        "yoshimura/top_k=1",
        "yoshimura/table1/black",
        "yoshimura/table2/white",
        "yoshimura/cosine/rank_correlation_with_C",
        "yoshimura/counts_equal",
    }
    assert named <= set(figures)
    assert figures["yoshimura/counts_equal"]["value"] == 1.0
    assert figures["yoshimura/att20/black_minus_white"]["starts"] == 2 * 20 * 2
    assert figures["yoshimura/table1/black"]["starts"] == 3
    assert len(figures["yoshimura/table1/black"]["each"]) == 5
    for title in ("Released scores: att20", "Tables I and II", "Gradients (Figure 7)", "Fewer and rounded scores"):
        assert title in page


def test_the_theory_of_the_direction_is_the_measured_one_and_no_other() -> None:
    assert abs(brep.linear_cosine().value - 1) < 0.05
    assert brep.expected_cosine(1, 2) == pytest.approx(0.5 * 2 / np.pi)  # one point, outside half of the time
    assert brep.expected_cosine(32, 60) / brep.expected_cosine(8, 60) > 1.5  # more points point better


def way(make_cell: Any, marks: list[float], top1: list[list[bool]], **changes: Any) -> Way:
    hits = np.array(top1)
    rest = {name: np.zeros(hits.shape) for name in ("own", "others", "confidence", "mse", "psnr", "ssim")}
    targets = np.arange(hits.shape[1])
    cell = make_cell(
        hits=tuple(top1[-1]), marks=np.array(marks), top1=hits, top5=hits, targets=targets,
        images=np.zeros((*hits.shape, 1, 2, 2)), **rest, **changes,
    )  # fmt: skip
    return Way("brep", "label", "att20", (cell,))


def test_nobody_is_recognised_before_the_first_reconstruction(make_cell: Any) -> None:
    one = way(make_cell, [100.0, 300.0], [[True, False], [True, True]])
    assert one.at(50).tolist() == [False, False]
    assert one.at(100).tolist() == [True, False]
    assert one.at(250).tolist() == [True, False]
    assert one.at().tolist() == [True, True]


def test_rows_to_a_share_are_those_of_the_first_mark_that_has_it(make_cell: Any) -> None:
    one = way(make_cell, [100.0, 300.0], [[True, False], [True, True]])
    assert brep.rows_to(one, 0.5) == 100
    assert brep.rows_to(one, 0.75) == 300
    assert brep.rows_to(way(make_cell, [100.0], [[True, False]]), 0.75) is None


def test_a_difference_is_taken_on_the_victims_that_both_attacked(make_cell: Any) -> None:
    ours = Way("a", "label", "att20", (*way(make_cell, [1.0], [[True, True]], victim="v").cells,
                                       *way(make_cell, [1.0], [[False, False]], victim="w").cells))  # fmt: skip
    other = way(make_cell, [1.0], [[False, True]], victim="v")
    figure = latent.difference("d", ours, other)
    assert (figure.value, figure.extra["victims"]) == (0.5, 1)
