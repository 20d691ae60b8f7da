"""Campaign files: what they say, and one clear sentence for each that cannot be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from oracle_server.threat_model import Access, Contract
from referee.campaign import CampaignError, read_plan

ROOT = Path(__file__).parents[2]

SMALL = """
title = "t"
seeds = [0, 1]
[victims.v]
architecture = "softmax_regression"
split = "att40"
[contracts.full]
access = "scores"
[contracts."r=0.1"]
access = "scores"
round_to = 0.1
[[cells]]
victim = "v"
method = "numeric"
contracts = ["full", "r=0.1"]
budget = 100
parameters = { probe = 0.5 }
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(text)
    return path


def test_every_cell_is_one_method_contract_and_seed(tmp_path):
    plan = read_plan(write(tmp_path, SMALL))
    assert [(cell.name, cell.seed) for cell in plan.cells] == [
        ("numeric/full", 0),
        ("numeric/full", 1),
        ("numeric/r=0.1", 0),
        ("numeric/r=0.1", 1),
    ]
    assert plan.cells[-1].contract == Contract(Access.SCORES, round_to=0.1, budget=100)
    assert plan.cells[0].settings() == ["probe=0.5"]
    assert len({cell.folder for cell in plan.cells}) == 4


def test_a_cell_for_several_victims_is_one_for_each(tmp_path):
    text = SMALL.replace("[contracts.full]", '[victims.w]\narchitecture = "mlp"\nsplit = "att30"\n[contracts.full]')
    plan = read_plan(write(tmp_path, text.replace('victim = "v"', 'victim = ["v", "w"]')))
    assert [(cell.name, cell.victim.split) for cell in plan.cells if cell.seed == 0] == [
        ("numeric@v/full", "att40"),
        ("numeric@v/r=0.1", "att40"),
        ("numeric@w/full", "att30"),
        ("numeric@w/r=0.1", "att30"),
    ]
    with pytest.raises(CampaignError, match="no victim 'x'"):
        read_plan(write(tmp_path, text.replace('victim = "v"', 'victim = ["v", "x"]')))


def test_how_long_a_victim_learns_may_be_said(tmp_path):
    text = SMALL.replace('split = "att40"', 'split = "att40"\nmax_steps = 7')
    assert read_plan(write(tmp_path, text)).victims[0].max_steps == 7
    for wrong in ("0", "1.5", "true", '7\nkind = "features"'):
        with pytest.raises(CampaignError, match="victim v: "):
            read_plan(write(tmp_path, text.replace("max_steps = 7", f"max_steps = {wrong}")))


def test_the_campaign_of_2019_is_read_whether_its_data_is_here_or_not(monkeypatch):
    monkeypatch.delenv("MIRAGE_DATA_ROOT", raising=False)
    plan = read_plan(ROOT / "campaigns" / "yang2019.toml")
    assert {victim.split.partition("-")[0] for victim in plan.victims} == {"mnist", "digits", "att20"}


def test_the_demo_is_a_campaign_that_asks_for_every_contract():
    plan = read_plan(ROOT / "campaigns" / "demo.toml")
    kinds = {(c.contract.access, c.contract.top_k, c.contract.round_to) for c in plan.cells}
    assert {r for _, _, r in kinds} >= {None, 0.001, 0.005, 0.01, 0.05, 0.1}
    assert (Access.WEIGHTS, None, None) in kinds
    assert (Access.SCORES, 1, None) in kinds
    assert (Access.LABEL, None, None) in kinds


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('title = "t"', "", "'title' is missing"),
        ('title = "t"', "title =", "is no TOML"),
        ('title = "t"', 'title = "t"\ntitel = "t"', "has no field 'titel'"),
        ('"softmax_regression"', '"perceptron"', "architecture must be one of"),
        ('"att40"', '"att41"', "unknown split 'att41'"),
        ("round_to = 0.1", "round_to = 2.0", "round_to=2.0 must lie in"),
        ("round_to = 0.1", "rounding = 0.1", "a contract has no field rounding"),
        ('method = "numeric"', 'method = "magic"', "no method 'magic'"),
        ('victim = "v"', 'victim = "w"', "no victim 'w'"),
        ('["full", "r=0.1"]', '["full", "half"]', "no contract 'half'"),
        ('["full", "r=0.1"]', '["full", "full"]', "two cells are called"),
        ("probe = 0.5", "prob = 0.5", "numeric has the parameters"),
        ("probe = 0.5", 'probe = "wide"', "probe is a float"),
        ("budget = 100", "budget = -1", "budget=-1 must not be negative"),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_sentence(tmp_path, old, new, sentence):
    assert old in SMALL
    with pytest.raises(CampaignError, match=sentence):
        read_plan(write(tmp_path, SMALL.replace(old, new, 1)))


def test_no_file(tmp_path):
    with pytest.raises(CampaignError, match="no campaign file"):
        read_plan(tmp_path / "none.toml")


def test_a_cell_whose_settings_change_is_another_attempt(tmp_path):
    attempts = [
        read_plan(write(tmp_path, SMALL.replace(old, new))).cells[0].attempt
        for old, new in (("", ""), ("probe = 0.5", "probe = 0.6"), ("budget = 100", "budget = 99"))
    ]
    assert len(set(attempts)) == 3
    assert attempts[0] == read_plan(write(tmp_path, SMALL)).cells[0].attempt


GIVEN = """
[[cells]]
victim = "v"
method = "deblur"
contracts = ["full"]
given = { people = "3-5", sigma = 4.0 }
"""


def test_a_cell_may_be_given_photos(tmp_path):
    plan = read_plan(write(tmp_path, SMALL + GIVEN))
    assert plan.cells[-1].described == {"given": {"people": "3-5", "sigma": 4.0}}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('given = { people = "3-5", sigma = 4.0 }', "", r"needs a \[cells.given\] table"),
        ('method = "deblur"', 'method = "numeric"', "takes nothing given"),
        ("sigma = 4.0", "sigma = 0.0", "must be above 0"),
        ('"3-5"', '"39-40"', "the split att40 has people 0 to 39"),
    ],
)
def test_given_photos_that_are_none(tmp_path, old, new, sentence):
    with pytest.raises(CampaignError, match=sentence):
        read_plan(write(tmp_path, SMALL + GIVEN.replace(old, new)))


def test_the_campaign_of_2015_names_its_figures_and_models():
    plan = read_plan(ROOT / "campaigns" / "fredrikson2015.toml")
    assert plan.figures == "fredrikson"
    assert {victim.architecture for victim in plan.victims} == {"softmax_regression", "mlp", "autoencoder"}
    assert {experiment.table for experiment in plan.attributes} == {"affairs601", "gss", "steak", "diabetes"}
    assert [
        experiment.samples for experiment in plan.attributes if experiment.name == "affairs601/halves/unpruned"
    ] == [100]


INVERSION = """
[contracts.m3]
access = "scores"
top_k = 3
[[cells]]
victim = "v"
method = "inversion_network"
contracts = ["full"]
public = "developer"
seeds = [7]
given = { photos = 3, answers = ["full", "m3"] }
"""


def test_a_cell_may_be_given_answers_and_have_seeds_and_data_of_its_own(tmp_path):
    cell = read_plan(write(tmp_path, SMALL + INVERSION)).cells[-1]
    assert cell.seed == 7
    assert cell.described == {"given": {"photos": 3, "answers": ["full", "m3"]}, "public": "developer"}
    assert list(cell.asked) == ["full", "m3"]
    assert cell.asked["m3"] == Contract(Access.SCORES, top_k=3)
    without = INVERSION.replace('given = { photos = 3, answers = ["full", "m3"] }', "")
    assert read_plan(write(tmp_path, SMALL + without)).cells[-1].given == {}


def test_another_contract_of_the_answers_is_another_attempt(tmp_path):
    one, two = (
        read_plan(write(tmp_path, SMALL + INVERSION.replace("top_k = 3", top_k))).cells[-1].attempt
        for top_k in ("top_k = 3", "top_k = 2")
    )
    assert one != two


FEATURES = """
[victims.f]
kind = "features"
split = "att40"
[contracts.pose]
access = "scores"
features = ["pose"]
"""


def test_victims_of_other_kinds(tmp_path):
    joint = 'split = "att40"\njoint = { weight = 0.5, top_k = 3 }'
    plan = read_plan(write(tmp_path, SMALL.replace('split = "att40"', joint) + FEATURES))
    assert [victim.kind for victim in plan.victims] == ["classifier", "features"]
    assert plan.victims[0].joint == {"weight": 0.5, "top_k": 3}
    assert plan.victims[1].joint is None


def test_a_victim_without_its_data_is_read_all_the_same(tmp_path, monkeypatch):
    monkeypatch.delenv("MIRAGE_DATA_ROOT", raising=False)
    text = (SMALL + INVERSION).replace('"att40"', '"facescrub-same"')
    assert read_plan(write(tmp_path, text)).victims[0].split == "facescrub-same"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('public = "developer"', 'public = "mine"', "public = 'mine' must be"),
        ("seeds = [7]", "seeds = []", "must be a list of whole numbers"),
        ("seeds = [7]", "seeds = [0.5]", "must be a list of whole numbers"),
        ('"m3"] }', '"m4"] }', "no contract 'm4'"),
        ('victim = "v"\nmethod = "inv', 'victim = "f"\nmethod = "inv', "release different features"),
        ('kind = "features"', 'kind = "faces"', "kind must be one of classifier, features"),
        ('kind = "features"', 'kind = "features"\narchitecture = "mlp"', "has no architecture"),
        ('kind = "features"', 'architecture = "mlp"\njoint = 3', "must be a table of numbers"),
        ('kind = "features"', 'architecture = "mlp"\njoint = { weight = "x" }', "must be a table of numbers"),
    ],
)
def test_inversions_that_cannot_be_run(tmp_path, old, new, sentence):
    text = INVERSION + FEATURES
    if "different features" in sentence:
        text = text.replace('"m3"] }', '"pose"] }')
    assert old in text
    with pytest.raises(CampaignError, match=sentence):
        read_plan(write(tmp_path, SMALL + text.replace(old, new, 1)))
