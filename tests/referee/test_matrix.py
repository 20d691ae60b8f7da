"""The matrix of a campaign: which victims, contracts and cells a short text stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from oracle_server.threat_model import Access, Contract
from referee.campaign import CampaignError, Plan, PlannedCell, read_plan

TEXT = """
title = "m"
seeds = [0, 3]
[priors.eigenfaces]
kind = "pca"
[defences.none]
[defences.smooth]
method = "label_smoothing"
kind = "training"
strengths = [ { alpha = 0.1 }, { alpha = -0.05 } ]
[defences.temperature]
kind = "response"
strengths = [ { temperature = 2.0 }, { temperature = 8 } ]
[defences.rounding]
kind = "contract"
strengths = [ { round_to = 0.05 } ]
[defences.label]
kind = "contract"
strengths = [ { access = "label" } ]
[defences.few]
kind = "contract"
strengths = [ { budget = 100 } ]
[[matrix]]
task = "faces"
split = "att20"
architecture = "softmax_regression"
targets = "0-9"
[[matrix.attacks]]
name = "margin"
method = "latent_gradient"
access = "weights"
prior = "eigenfaces"
parameters = { steps = 5 }
[[matrix.attacks]]
name = "numeric"
access = "scores"
own = 0.5
budget = 1000
[[matrix.attacks]]
name = "brep"
method = "brep_mi"
access = "label"
prior = "eigenfaces"
only = ["temperature", "few", "label"]
"""


@pytest.fixture
def plan_of(tmp_path: Path) -> Callable[[str], Plan]:
    def read(text: str) -> Plan:
        (tmp_path / "c.toml").write_text(text)
        return read_plan(tmp_path / "c.toml")

    return read


def met(plan: Plan, attack: str, seed: int = 0) -> dict[tuple[str, str], PlannedCell]:
    """The cells of an attack, by defence and strength."""
    mine = [cell for cell in plan.cells if cell.matrix and cell.matrix.attack == attack and cell.seed == seed]
    return {(cell.matrix.defence, cell.matrix.strength): cell for cell in mine if cell.matrix}


def test_who_has_the_weights_meets_defences_of_training_alone(plan_of: Callable[[str], Plan]) -> None:
    cells = met(plan_of(TEXT), "margin")
    assert set(cells) == {("none", ""), ("smooth", "alpha=0.1"), ("smooth", "alpha=-0.05")}
    assert {cell.contract for cell in cells.values()} == {Contract(Access.WEIGHTS)}
    assert cells["none", ""].victim.name == "faces-none-s0"
    assert cells["smooth", "alpha=-0.05"].victim.name == "faces-smooth-alpha-0.05-s0"
    assert cells["smooth", "alpha=-0.05"].victim.defence == ("label_smoothing", (("alpha", -0.05),))
    assert cells["none", ""].victim.defence is None
    assert cells["none", ""].targets == "0-9"
    assert cells["none", ""].parameters == {"steps": 5}


def test_attacks_on_scores_meet_every_defence(plan_of: Callable[[str], Plan]) -> None:
    cells = met(plan_of(TEXT), "numeric")
    assert len(cells) == 1 + 2 + 2 + 3
    warm = cells["temperature", "temperature=8"]
    assert warm.victim == cells["none", ""].victim
    assert warm.contract == Contract(Access.SCORES, defences=(("temperature", (("temperature", 8.0),)),), budget=1000)
    assert cells["rounding", "round_to=0.05"].contract == Contract(Access.SCORES, round_to=0.05, budget=1000)
    assert cells["label", "access=label"].contract == Contract(Access.LABEL, budget=1000)
    assert cells["few", "budget=100"].contract == Contract(Access.SCORES, budget=100)
    assert cells["smooth", "alpha=0.1"].contract == Contract(Access.SCORES, budget=1000)
    assert {cell.matrix.own for cell in cells.values() if cell.matrix} == {0.5}


def test_attacks_on_labels_meet_what_changes_labels_or_rows(plan_of: Callable[[str], Plan]) -> None:
    cells = met(plan_of(TEXT), "brep")
    assert set(cells) == {
        ("none", ""),
        ("temperature", "temperature=2"),
        ("temperature", "temperature=8"),
        ("few", "budget=100"),
    }
    assert cells["temperature", "temperature=2"].contract == Contract(
        Access.LABEL, defences=(("temperature", (("temperature", 2.0),)),)
    )
    assert cells["few", "budget=100"].contract == Contract(Access.LABEL, budget=100)


def test_cells_come_seed_by_seed_and_their_seed_is_their_victims(plan_of: Callable[[str], Plan]) -> None:
    cells = plan_of(TEXT).cells
    seeds = [cell.seed for cell in cells]
    assert seeds == sorted(seeds)
    assert set(seeds) == {0, 3}
    assert all(cell.victim.seed == cell.seed for cell in cells)
    assert len({cell.folder for cell in cells}) == len(cells)


def test_the_place_in_the_matrix_changes_nothing_of_what_is_run(plan_of: Callable[[str], Plan]) -> None:
    cell = plan_of(TEXT).cells[0]
    assert cell.matrix is not None
    assert replace(cell, matrix=None).attempt == cell.attempt
    assert replace(cell, matrix=None).described == cell.described


def test_ordinary_cells_stand_beside_the_matrix(plan_of: Callable[[str], Plan]) -> None:
    beside = """
[victims.v]
architecture = "softmax_regression"
split = "att20"
[contracts.full]
access = "scores"
[[cells]]
victim = "v"
method = "numeric"
contracts = ["full"]
"""
    plan = plan_of(TEXT + beside)
    assert [cell.name for cell in plan.cells if cell.matrix is None] == ["numeric/full", "numeric/full"]
    assert plan.victims[0].name == "v"
    with pytest.raises(CampaignError, match="the matrix makes a 'scores' of its own"):
        plan_of(TEXT + beside.replace("contracts.full", "contracts.scores").replace("access =", "top_k = 1\naccess ="))


def test_a_long_name_of_a_victim_is_shortened_and_stays_its_own(plan_of: Callable[[str], Plan]) -> None:
    long = "a_task_whose_name_is_so_long_that_no_more_than_a_few_letters_fit"[:40]
    victims = plan_of(TEXT.replace('task = "faces"', f'task = "{long}"')).victims
    assert all(len(victim.name) <= 64 for victim in victims)
    assert len({victim.name for victim in victims}) == 2 * 3


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('only = ["temperature"', 'only = ["heat"', "attack brep: no defence 'heat'"),
        ('targets = "0-9"', 'defences = ["heat"]', "task faces of the matrix: no defence 'heat'"),
        ('kind = "response"', 'kind = "magic"', "defence temperature: kind must be one of"),
        ('kind = "response"', "", "'kind' is missing"),
        ("[ { round_to = 0.05 } ]", "[]", "defence rounding: strengths must be"),
        ("[ { round_to = 0.05 } ]", "[ 0.05 ]", "defence rounding: strengths must be"),
        ("{ temperature = 8 }", "{ temperature = 2 }", "defence temperature: two strengths are the same"),
        ("{ temperature = 8 }", "{ heat = 8 }", "defence temperature: .*heat"),
        ("{ temperature = 8 }", "{ temperature = -8 }", "defence temperature: temperature=-8"),
        ("[defences.temperature]", '[defences.temperature]\nmethod = "heat"', "no response defence 'heat'"),
        ("[defences.none]", "[defences.none]\nkind = 1", "defence none: it is the model as it is"),
        ('method = "latent_gradient"', 'method = "magic"', "attack margin: no method 'magic'"),
        (
            'method = "latent_gradient"\naccess = "weights"',
            'method = "gmi"\naccess = "scores"',
            "gmi needs the weights",
        ),
        ('access = "label"\nprior', 'access = "lable"\nprior', "attack brep: access must be one of"),
        ('name = "brep"', 'name = "numeric"', "two attacks are called numeric"),
        ("parameters = { steps = 5 }", "seeds = [1]", "attack margin: seeds follows from the matrix"),
        ("parameters = { steps = 5 }", "parameters = { stepps = 5 }", "latent_gradient has the parameters"),
        ("round_to = 0.05", "rounding = 0.05", "a contract has no field rounding"),
        ('targets = "0-9"', 'people = "0-9"', "task faces of the matrix has no field 'people'"),
        ("seeds = [0, 3]", 'seeds = ["a"]', "must be a list of whole numbers"),
    ],
)
def test_a_matrix_that_cannot_be_run(old: str, new: str, sentence: str, plan_of: Callable[[str], Plan]) -> None:
    assert old in TEXT
    with pytest.raises(CampaignError, match=sentence):
        plan_of(TEXT.replace(old, new, 1))


def test_a_matrix_without_attacks_or_with_a_task_twice(plan_of: Callable[[str], Plan]) -> None:
    with pytest.raises(CampaignError, match=r"has no \[\[matrix.attacks\]\]"):
        plan_of(TEXT[: TEXT.index("[[matrix.attacks]]")])
    with pytest.raises(CampaignError, match="two tasks of the matrix are called faces"):
        plan_of(TEXT + TEXT[TEXT.index("[[matrix]]") :])
