"""The campaign on Yang et al. in small: every figure and section, from the real processes. Nothing is well trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from referee.report.summary import read
from tests.referee.test_inversion_campaign import run

pytestmark = pytest.mark.slow

HEAD = """
title = "Yang in small"
figures = "yang"
[victims.plain]
architecture = "softmax_regression"
split = "att20-k5"
[victims.joint]
architecture = "softmax_regression"
split = "att20-k5"
joint = { width = 1, epochs = 1 }
[contracts.full]
access = "scores"
[contracts.m1]
access = "scores"
top_k = 1
[contracts.weights]
access = "weights"
"""
GIVEN = [  # label, victims, contract, answers, public, parameters
    ("generic", ["plain", "joint"], "full", ["full"], "true", {}),
    ("ours", ["plain"], "m1", ["m1"], "true", {}),
    ("ours", ["plain"], "full", ["full"], "true", {}),
    ("prior", ["plain"], "full", ["full", "m1"], "true", {"withheld": "zero"}),
    ("k", ["plain"], "full", ["full"], "true", {}),
    ("developer", ["plain"], "full", ["full"], '"developer"', {}),
    ("developer_generic", ["plain"], "full", ["full"], '"developer+published"', {}),
]
CLASSES = [("classes", "m1", {}), ("classes_prior", "full", {"withheld": "zero"})]


def table(values: dict[str, object]) -> str:
    words = {name: f'"{value}"' if isinstance(value, str) else value for name, value in values.items()}
    return "{ " + ", ".join(f"{name} = {value}" for name, value in words.items()) + " }"


def campaign() -> str:
    fast = {"epochs": 1, "width": 1, "hidden": 4}
    text = HEAD
    for label, victims, contract, answers, public, more in GIVEN:
        text += f'[[cells]]\nname = "{label}"\nvictim = {victims}\nmethod = "inversion_network"\n'
        text += f'contracts = ["{contract}"]\npublic = {public}\nparameters = {table(fast | more)}\n'
        text += f"given = {{ photos = 3, answers = {answers} }}\n"
    for label, contract, more in CLASSES:
        text += f'[[cells]]\nname = "{label}"\nvictim = ["plain"]\nmethod = "inversion_network"\n'
        text += f'contracts = ["{contract}"]\npublic = true\nparameters = {table(fast | more)}\n'
    text += '[[cells]]\nvictim = ["plain"]\nmethod = "mi_face"\ncontracts = ["weights"]\n'
    return text + 'parameters = { max_steps = 2, process = "denoise" }\n'


@pytest.mark.timeout(400)
def test_every_figure_and_section_of_a_campaign(tmp_path: Path) -> None:
    said = run(tmp_path, "--jobs", "2", text=campaign())
    figures = read(tmp_path / "out" / "summary.json")
    named = [
        "yang/faces/generic/unseen_mse",
        "yang/faces/generic/training_mse",
        "yang/faces/generic/recognised",
        "yang/faces/m=1/ours_over_prior",
        "yang/faces/m=5/ours_over_prior",
        "yang/faces/k=5/mse",
        "yang/faces/joint/joint_mse",
        "yang/faces/joint/mse_over_blackbox",
        "yang/faces/joint/mse_over_blackbox_generic",
        "yang/faces/joint/accuracy_cost",
        "yang/faces/class_inference/top1_minus_mi_face",
        "yang/faces/class_inference/top1_minus_prior",
        "yang/faces/classes_estimated",
        "yang/counts_equal",
    ]
    assert set(named) <= set(figures)
    assert figures["yang/counts_equal"]["value"] == 1.0
    floors = figures["yang/faces/generic/unseen_mse"]
    assert 0 < floors["class_means"] < floors["mean_image"] < floors["value"]  # one epoch makes nothing of it
    assert abs(figures["yang/faces/m=5/ours_over_prior"]["value"] - 1) < 1e-6  # same method, same seed
    page = (tmp_path / "out" / "report.html").read_text()
    for title in ("Auxiliary sets (Table 2)", "Truncation (Figure 8)", "Training class inference (Figure 14)",
                  "Joint training by a malicious developer (Table 3)"):  # fmt: skip
        assert title in page
        assert title in said
    assert "developer&#39;s own network" in page
