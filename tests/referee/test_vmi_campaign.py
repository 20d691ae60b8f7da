"""The campaign on VMI in small: every figure and section from the real processes, and their parts by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from referee.campaign import read_plan
from referee.figures import latent, sampled, vmi
from referee.figures.latent import Way
from referee.figures.parity import parities
from referee.figures.sampled import Sampled, paired
from referee.figures.vmi_front import flow_minus_gaussian, front
from referee.report.scatter import Dots, scatter
from referee.report.summary import read
from referee.run import run_campaign

HEAD = """
title = "VMI in small"
figures = "vmi"
[victims.f0]
architecture = "softmax_regression"
split = "att20"
[victims.f1]
architecture = "softmax_regression"
split = "att20"
seed = 1
[priors.gan]
kind = "dcgan"
parameters = { latent = 8, steps = 2, width = 8, batch_size = 8 }
[priors.style]
kind = "style"
parameters = { latent = 8, style = 8, steps = 2, width = 8, batch_size = 4 }
[contracts.weights]
access = "weights"
"""
VMI = "steps = 3, batch = 4, samples = 8"
CELLS = [
    ("vmi", "vmi", "gan", f'family = "mixture", components = 4, explore = 20, {VMI}'),
    ("gmi", "gmi", "gan", "steps = 3, starts = 8"),
    ("ked_mi", "ked_mi", "", "latent = 8, width = 8, training_steps = 2, batch_size = 8, steps = 3, samples = 8"),
    ("gan_z_gaussian", "vmi", "gan", f'family = "gaussian", weight = 0.03, {VMI}'),
    ("style_extended_flow", "vmi", "style", f'family = "flow", extended = true, {VMI}'),
    ("adversarial", "adversarial", "", "steps = 5, starts = 4"),
]


def campaign() -> str:
    text = HEAD
    for name, method, prior, parameters in CELLS:
        victims = '["f0", "f1"]' if name in ("vmi", "gmi") else '["f0"]'
        text += f'[[cells]]\nname = "{name}"\nvictim = {victims}\nmethod = "{method}"\ncontracts = ["weights"]\n'
        text += f'prior = "{prior}"\n' if prior else "public = true\n"
        text += f"parameters = {{ {parameters} }}\n"
    return text


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_one_image_or_a_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second evaluation network, which takes minutes, is the first one here, and the faces stand for the digits."""
    monkeypatch.setattr(sampled, "other_network", lambda results, split: (results.judge(split).network, 1.0))
    monkeypatch.setattr(latent, "_STEPS", 2)
    monkeypatch.setattr(vmi, "_SAME", "att20")
    (tmp_path / "c.toml").write_text(campaign())
    run_campaign(read_plan(tmp_path / "c.toml"), tmp_path / "out", command="referee run", device="cpu", jobs=2)
    figures = read(tmp_path / "out" / "summary.json")
    named = {
        "vmi/att20/top1_minus_gmi",
        "vmi/att20/recall_minus_gmi",
        "vmi/att20/coverage_minus_gmi",
        "vmi/att20/top1_minus_ked_mi",
        "vmi/front",
        "whitebox/att20/best_top1",
        "whitebox/batched_over_single",
        "control/adversarial/top1",
        "metrics/prdc_parity",
        "metrics/kl_parity",
        "metrics/flow_inverse",
        "vmi/counts_equal",
    }
    assert named <= set(figures)
    assert figures["vmi/counts_equal"]["value"] == 1.0
    ours = figures["vmi/att20/vmi/top1"]
    assert (ours["victims"], ours["samples_a_target"], ours["k"]) == (2, 8, 3)
    assert ours["evaluations_a_target"] == 3 * 4 + 20 / 20
    assert figures["vmi/att20/gmi/top1"]["best_of_five_restarts"] is not None
    assert ours["best_of_five_restarts"] is None
    assert figures["vmi/att20/top1_minus_gmi"]["victims"] == 2
    assert figures["vmi/front"]["points"] == 2
    page = (tmp_path / "out" / "report.html").read_text()
    for title in (
        "Samples of each class: att20",
        "Recognition against diversity",
        "Which component",
        "Control: images",
    ):
        assert title in page
    assert page.count("held-out photos") >= 1


def test_measures_agree_with_their_references() -> None:
    found = {figure.name: figure for figure in parities()}
    assert set(found) == {"metrics/prdc_parity", "metrics/kl_parity", "metrics/flow_inverse"}
    assert all(figure.passed for figure in found.values())
    told = found["metrics/kl_parity"].extra
    assert abs(told["from_draws"] - told["closed_form"]) < 4 * told["standard_error"]


def one(make_cell: Any, label: str, hits: list[list[bool]], cover: list[float], **rest: Any) -> Sampled:
    """A way of one victim, named `victim`, with n samples of each target."""
    found, targets = np.array(hits), len(hits)
    cell = make_cell(
        hits=tuple(found[:, 0]), marks=np.array([1.0]), top1=found[None, :, 0], top5=found[None, :, 0],
        targets=np.arange(targets), images=np.zeros((1, targets, 1, 2, 2)), victim=rest.pop("victim", "v"),
        **{name: np.zeros((1, targets)) for name in ("own", "others", "confidence", "mse", "psnr", "ssim")},
    )  # fmt: skip
    zero, fit = np.zeros(found.shape), {"coverage": np.array(cover), "recall": np.array(cover)}
    values, divergence = rest.pop("values", None), rest.pop("divergence", None)
    way = Way(label, "weights", "digits-same", (cell,))
    return Sampled(way, found, found, found, zero, zero, zero, zero, fit, 0.0, values, divergence)


def test_a_point_is_dominated_by_one_that_is_as_good_in_both(make_cell: Any) -> None:
    half, full, none = [[True, False]], [[True, True]], [[False, False]]
    measured = {
        "vmi": one(make_cell, "vmi", half, [0.5]),
        "gmi": one(make_cell, "gmi", half, [0.4]),
        "gmi_1": one(make_cell, "gmi_1", half, [0.5]),  # the same point is not better
        "ked_mi": one(make_cell, "ked_mi", full, [0.1]),
        "ked_mi_10": one(make_cell, "ked_mi_10", none, [0.0]),
        "style_z_flow": one(make_cell, "style_z_flow", full, [0.9]),  # another prior: not in this comparison
    }
    (whole,) = front(measured)
    assert whole.value == 0.5
    assert whole.extra["dominated"] == ["gmi", "ked_mi_10"]
    assert front({"vmi": measured["vmi"]}) == []


def test_points_stand_on_the_victims_that_all_attacked(make_cell: Any) -> None:
    measured = {
        "vmi": one(make_cell, "vmi", [[True, True]], [0.5], victim="v"),
        "gmi": one(make_cell, "gmi", [[True, True]], [0.4], victim="w"),
    }
    assert front(measured) == []


@pytest.mark.parametrize(("nats", "expected"), [((4.0, 8.0), 0.25), ((2.0, 6.0), 0.0), ((7.0, 9.0), 0.5)])
def test_a_flow_is_compared_at_its_own_divergence(nats: tuple[float, float], expected: float, make_cell: Any) -> None:
    """The Gaussian recognises half at the lower divergence and all at the higher; the flow all at 6 nats."""
    half, full = [[True, True, False, False]], [[True, True, True, True]]
    measured = {
        "gan_z_gaussian": one(make_cell, "gan_z_gaussian", full, [0.1], divergence=np.array([nats[1]])),
        "gan_z_gaussian_0.1": one(make_cell, "gan_z_gaussian_0.1", half, [0.1], divergence=np.array([nats[0]])),
        "gan_z_flow": one(make_cell, "gan_z_flow", full, [0.1], divergence=np.array([6.0])),
    }
    (figure,) = flow_minus_gaussian(measured)
    assert figure.value == pytest.approx(expected)


def test_a_flow_is_compared_on_the_victims_that_all_weights_attacked(make_cell: Any) -> None:
    """A campaign that is half done has some weights on one victim and others on two."""

    def two(label: str, nats: float, first: list[bool], second: list[bool]) -> Sampled:
        a = one(make_cell, label, [first], [0.1], divergence=np.array([nats, nats]))
        b = one(make_cell, label, [second], [0.1], victim="w")
        hits = np.concatenate([a.hits, b.hits])
        return replace(a, way=replace(a.way, cells=(*a.way.cells, *b.way.cells)), hits=hits)

    half, full = [True, False], [True, True]
    measured = {
        "gan_z_gaussian": two("gan_z_gaussian", 8.0, full, [False, False]),
        "gan_z_gaussian_0.1": one(make_cell, "gan_z_gaussian_0.1", [half], [0.1], divergence=np.array([4.0])),
        "gan_z_flow": two("gan_z_flow", 6.0, full, [False, False]),
    }
    (figure,) = flow_minus_gaussian(measured)
    assert figure.value == pytest.approx(0.25)


def test_a_difference_is_paired_by_target_on_common_victims(make_cell: Any) -> None:
    ours = one(make_cell, "vmi", [[True, True], [True, False]], [0.5, 0.5])
    other = one(make_cell, "gmi", [[True, False], [False, False]], [0.1, 0.3])
    interval, victims = paired(ours, other, "top1")
    assert (interval.value, victims) == (0.5, 1)
    interval, _ = paired(ours, other, "coverage")
    assert interval.value == pytest.approx(0.3)


def test_the_best_of_five_restarts_is_the_one_with_the_least_value(make_cell: Any) -> None:
    hits = [[True, False, False, False, False, False, False, True, False, False]]
    best = np.array([[0.0, 1, 1, 1, 1, 1, 1, 0.0, 1, 1]])
    assert one(make_cell, "gmi", hits, [0.0], values=best).best_of_tries() == 1.0
    assert one(make_cell, "gmi", hits, [0.0], values=-best).best_of_tries() == 0.0  # a control
    assert one(make_cell, "gmi", hits, [0.0]).best_of_tries() is None


def test_a_chart_of_points_escapes_its_words_and_keeps_its_scale() -> None:
    drawn = scatter([Dots("<a>", 0, ((0.5, 0.25, "x & y"), (0.9, 0.1, "z")), joined=True)], "recognised", "coverage")
    assert "&lt;a&gt;" in drawn
    assert "x &amp; y" in drawn
    assert drawn.count("<circle") == 3  # two points and their name's
    assert ">0.3<" in drawn  # the upper axis ends above the highest point
    assert scatter([], "recognised", "coverage").count("<circle") == 0
