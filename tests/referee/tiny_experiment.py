"""An attribute experiment on a table of sixty people who do not exist."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from referee.attribute_plan import Experiment
from referee.campaign import Plan, read_plan

__all__ = ["EXPERIMENT", "PEOPLE", "SCHEMA", "plan_of", "tiny_experiment"]

PEOPLE = 60
SCHEMA = """
[table]
name = "tiny"
response = "mood"
sensitive = ["secret"]
[features.secret]
kind = "nominal"
levels = ["no", "yes"]
[features.habit]
kind = "nominal"
levels = ["tea, green", "coffee"]
[features.age]
kind = "numeric"
[features.mood]
kind = "nominal"
levels = ["low", "calm", "busy", "high"]
"""
EXPERIMENT = """
title = "Tiny"
[[attributes]]
name = "tiny"
table = "{schema}"
model = "unpruned"
unknown = ["secret"]
samples = 2
fraction = 0.5
methods = [
  {{ method = "white_box_counts", name = "whitebox" }},
  {{ method = "map_inversion", name = "blackbox" }},
  {{ method = "marginal_mode", name = "baseline" }},
  {{ method = "ideal_model", name = "ideal" }},
]
"""


def plan_of(folder: Path, text: str) -> Plan:
    (folder / "c.toml").write_text(text)
    return read_plan(folder / "c.toml")


def tiny_experiment(folder: Path) -> Experiment:
    """An experiment on a table of sixty people, whose mood tells habit and secret."""
    generator = np.random.default_rng(3)
    secret, habit = generator.random(PEOPLE) < 0.3, generator.random(PEOPLE) < 0.5
    age = generator.integers(20, 60, PEOPLE) + 0.25
    lines = ["secret,habit,age,mood"]
    moods = np.array(["low", "calm", "busy", "high"])[2 * secret + habit]
    for s, h, a, mood in zip(secret, habit, age, moods, strict=True):
        words = ("yes" if s else "no", "coffee" if h else '"tea, green"', str(a), mood)
        lines.append(",".join(words))
    (folder / "tiny.csv").write_text("\n".join(lines) + "\n")
    (folder / "tiny.toml").write_text(SCHEMA)
    return plan_of(folder, EXPERIMENT.format(schema=folder / "tiny.toml")).attributes[0]
