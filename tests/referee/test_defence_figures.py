"""Figures on defences, from a made-up matrix whose every figure is worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from referee.campaign import PlannedCell
from referee.figures import defences, defences_cost
from referee.figures.defences_cells import change_of, stands_of
from referee.figures.defences_floors import floor_figures, floor_words
from referee.report import Figure
from tests.referee.defence_world import TEXT, World, by_table, without_training, world


@pytest.fixture
def small(tmp_path: Path, make_cell: Any) -> World:
    return world(tmp_path, make_cell, by_table)


@pytest.fixture(autouse=True)
def second_network(monkeypatch: pytest.MonkeyPatch) -> None:
    without_training(monkeypatch)


@pytest.fixture
def found(small: World) -> dict[str, Figure]:
    return {figure.name: figure for figure in defences.figures(small.results, small.cells)}


def test_the_best_attack_against_each_defence_is_its_leakage(found: dict[str, Figure]) -> None:
    one = found["defences/label_smoothing/alpha=-0.05/faces/recognition"]
    assert (one.value, one.extra["attack"]) == (3 / 8, "margin")
    assert one.low is not None
    assert one.low < 3 / 8
    two = found["defences/label_smoothing/alpha=-0.1/faces/recognition"]
    assert (two.value, two.extra["attack"]) == (2 / 8, "face")  # another attack than on the undefended
    assert (two.extra["undefended"], two.extra["undefended_attack"]) == (6 / 8, "margin")
    assert two.extra["change"] == 2 / 8 - 6 / 8
    assert two.extra["weights"]["share"] == 2 / 8
    assert (two.extra["interface"]["attack"], two.extra["interface"]["share"]) == ("brep", 1 / 8)
    assert two.extra["interface"]["change"] == 1 / 8 - 3 / 8


def test_nobody_with_the_weights_meets_a_response_defence(found: dict[str, Figure]) -> None:
    warm = found["defences/temperature/temperature=2/faces/recognition"].extra
    assert "weights" not in warm
    assert warm["interface"]["share"] == 4 / 8
    assert warm["undefended"] == 3 / 8  # of the attacks that were run behind it
    assert set(warm["attacks"]) == {"numeric", "brep"}


def test_a_refused_attack_recognises_nobody_and_labels_can_still_be_asked(found: dict[str, Figure]) -> None:
    label = found["defences/label/access=label/faces/recognition"]
    assert label.extra["attacks"]["numeric"]["refused"]
    assert label.extra["attacks"]["numeric"]["share"] == 0.0
    assert label.extra["attacks"]["numeric"]["high"] == pytest.approx(1 - 0.025 ** (1 / 4))  # of the four it was for
    assert (label.value, label.extra["attack"]) == (3 / 8, "brep")


def test_each_attack_says_its_own_change_bits_and_rows(small: World, found: dict[str, Figure]) -> None:
    told = found["defences/label_smoothing/alpha=-0.05/faces/recognition"].extra["attacks"]
    assert told["face"]["change"] == 3 / 8 - 1 / 8
    assert told["face"]["marks_are"] == "steps"
    assert told["numeric"]["marks_are"] == "rows"
    assert told["numeric"]["capacity_bits"] == 123_456.0
    assert told["numeric"]["rows_to_half"] is None  # 1/8 is less than half of 3/8
    assert told["margin"]["rows_to_half"] == 3000.0  # 3/8 is just half of 6/8, at the second mark
    assert told["margin"]["other_network"] == 0.0
    assert told["margin"]["seeds"] == 2


def test_undefended_rows_and_what_their_own_campaigns_reached(found: dict[str, Figure]) -> None:
    assert found["defences/undefended/faces/margin"].value == 6 / 8
    over = found["defences/undefended/faces/numeric/over_own_campaign"]
    assert over.value == pytest.approx(3 / 8 / 0.8)
    assert over.passed is False
    assert over.low is not None
    assert over.low == pytest.approx((found["defences/undefended/faces/numeric"].low or 0) / 0.8)
    assert "defences/undefended/faces/margin/over_own_campaign" not in found


def test_honest_clients(found: dict[str, Figure]) -> None:
    """Of twelve photos 1, 3 or none is named wrongly by the victims; the undefended one is always right."""
    plain = found["defences/undefended/faces/accuracy"]
    assert (plain.value, plain.extra["loss"], plain.extra["agreement"]) == (1.0, 0.0, 1.0)
    one = found["defences/label_smoothing/alpha=-0.05/faces/accuracy"]
    assert one.value == pytest.approx(11 / 12)
    assert one.extra["loss"] == pytest.approx(1 / 12)
    assert one.extra["agreement"] == pytest.approx(11 / 12)
    assert found["defences/label_smoothing/alpha=-0.1/faces/accuracy"].extra["loss"] == pytest.approx(3 / 12)
    assert one.extra["top5"] == 1.0  # of four classes
    assert (one.extra["photos"], one.extra["classes"], one.extra["seeds"]) == (12, 4, 2)
    assert one.extra["loss_low"] <= one.extra["loss"] <= one.extra["loss_high"]
    label = found["defences/label/access=label/faces/accuracy"]
    assert (label.value, label.extra["top5"], label.extra["calibration_error"]) == (1.0, None, None)
    warm = found["defences/temperature/temperature=2/faces/accuracy"]
    sure, less = (float(np.exp(logit) / (np.exp(logit) + 3)) for logit in (4.0, 2.0))
    assert plain.extra["calibration_error"] == pytest.approx(1 - sure)
    assert warm.extra["calibration_error"] == pytest.approx(1 - less)
    assert (warm.value, warm.extra["agreement"]) == (1.0, 1.0)


def test_honest_clients_have_scores_whichever_attack_came_first(small: World) -> None:
    found = {figure.name: figure for figure in defences.figures(small.results, small.cells[::-1])}
    assert found["defences/temperature/temperature=2/faces/accuracy"].extra["calibration_error"] is not None


def test_what_keeps_the_arg_max_is_compared_with_brep_alone(found: dict[str, Figure]) -> None:
    """With the second seed one more is recognised behind a temperature; noise may move the arg max."""
    change = found["defences/argmax_keeping/brep_change"]
    assert change.value == 1 / 8
    assert list(change.extra["each"]) == ["temperature temperature=2 on faces"]
    assert change.extra["contains_zero"]
    assert change.low == 0.0


def test_another_attack_on_labels_is_not_brep(tmp_path: Path, make_cell: Any) -> None:
    text = TEXT.replace('method = "brep_mi"', 'method = "random_draws"')
    other = world(tmp_path, make_cell, by_table, text)
    names = [figure.name for figure in defences.figures(other.results, other.cells)]
    assert "defences/argmax_keeping/brep_change" not in names


def test_the_sign_of_smoothing_and_the_best_white_box_attack(found: dict[str, Figure]) -> None:
    negative, positive = (found[f"defences/label_smoothing/{sign}"] for sign in ("negative", "positive"))
    alone = {name: told["change"] for name, told in negative.extra["by_attack"].items()}
    assert alone == {"face": 3 / 16, "margin": -9 / 16}
    assert positive.extra["by_attack"]["margin"]["change"] == 2 / 8
    assert negative.value == pytest.approx(((3 - 6) / 8 + (2 - 6) / 8) / 2)
    assert positive.value == pytest.approx((8 - 6) / 8)
    told = negative.extra["each"]
    assert told["faces, alpha=-0.1"]["attack"] == "face"
    assert told["faces, alpha=-0.1"]["undefended_attack"] == "margin"
    assert told["faces, alpha=-0.05"]["change"] == -3 / 8
    assert negative.low is not None
    assert negative.low < negative.value


def test_an_interval_beside_zero_does_not_contain_it(tmp_path: Path, make_cell: Any) -> None:
    def nobody(planned: PlannedCell) -> str:
        assert planned.matrix is not None
        return "xxxx" if planned.matrix.defence == "none" else "...."

    some = world(tmp_path, make_cell, nobody)
    found = {figure.name: figure for figure in defences.figures(some.results, some.cells)}
    negative = found["defences/label_smoothing/negative"]
    assert (negative.value, negative.high, negative.extra["contains_zero"]) == (-1.0, -1.0, False)
    assert not found["defences/argmax_keeping/brep_change"].extra["contains_zero"]


def test_targets_of_one_task_are_the_same_people_at_every_strength() -> None:
    """Two strengths are no further evidence: what is pooled has the interval of one, not a narrower one."""
    ours, other = {(0, 0): True, (0, 1): False, (0, 2): True}, {(0, 0): False, (0, 1): False, (0, 2): False}
    once = change_of(("faces", ours, other))
    assert once is not None
    assert once == change_of(("faces", ours, other), ("faces", ours, other))
    assert once != change_of(("faces", ours, other), ("digits", ours, other))
    assert once.value == pytest.approx(2 / 3)
    twice = [{(seed, target): hit for seed in (0, 1) for (_, target), hit in one.items()} for one in (ours, other)]
    assert once == change_of(("faces", *twice))  # nor is a second seed


def test_pairs_are_of_one_seed_and_target() -> None:
    assert change_of(("faces", {(0, 0): True}, {(1, 0): False})) is None
    assert change_of(("faces", {(0, 0): True}, {(0, 1): False})) is None
    some = change_of(("faces", {(0, 0): True, (1, 0): False}, {(0, 0): True, (1, 0): False, (1, 1): True}))
    assert some is not None
    assert some.value == 0.0


BESIDE = """
[victims.v]
architecture = "softmax_regression"
split = "att20"
[contracts.full]
access = "scores"
[contracts."r=0.05"]
access = "scores"
round_to = 0.05
[contracts.fresh]
access = "scores"
defences = [["gaussian_noise", [["sigma", 0.1]]]]
[contracts.keyed]
access = "scores"
defences = [["keyed_noise", [["sigma", 0.1]]]]
[contracts.noisy]
access = "scores"
round_to = 0.05
defences = [["temperature", [["temperature", 2.0]]]]
[contracts.warm]
access = "scores"
defences = [["temperature", [["temperature", 2.0]]]]
[contracts.small]
access = "scores"
defences = [["gaussian_noise", [["sigma", 0.05]]]]
[[cells]]
name = "numeric_small_probe"
victim = "v"
method = "numeric"
contracts = ["full", "r=0.05", "noisy", "warm"]
budget = 1000
[[cells]]
name = "equation_solving"
victim = "v"
method = "equation_solving"
contracts = ["r=0.05"]
[[cells]]
name = "single"
victim = "v"
method = "numeric"
contracts = ["fresh", "keyed"]
[[cells]]
name = "averaged"
victim = "v"
method = "numeric"
repeats = 16
contracts = ["fresh", "keyed", "small"]
"""
SAID = {
    "numeric_small_probe/full": ("xxx.", "xxx."),
    "numeric_small_probe/r=0.05": ("x...", "...."),
    "numeric_small_probe/noisy": ("xxxx", "xxxx"),  # rounded, but not that alone
    "numeric_small_probe/warm": ("xxxx", "xxxx"),  # not rounded, but not plain
    "equation_solving/r=0.05": ("refused", "refused"),
    "single/fresh": ("x...", "...."),
    "averaged/fresh": ("xx..", "x.x."),
    "single/keyed": ("x...", "...x"),
    "averaged/keyed": ("x...", "x..."),
    "averaged/small": ("xxxx", "xxxx"),  # nothing to compare it with
}


def test_cells_beside_the_matrix(tmp_path: Path, make_cell: Any) -> None:
    both = world(
        tmp_path,
        make_cell,
        lambda planned: by_table(planned) if planned.matrix else SAID[planned.name][planned.seed],
        TEXT + BESIDE,
    )
    found = {figure.name: figure for figure in defences.figures(both.results, both.cells)}
    small = found["defences/rounding_0.05/numeric_small_probe"]
    assert (small.value, small.extra["unrounded"]) == (1 / 8, 6 / 8)
    solving = found["defences/rounding_0.05/equation_solving"]
    assert (solving.value, solving.extra["refused"]) == (0.0, True)
    assert "unrounded" not in solving.extra
    assert "defences/rounding_0.05/numeric_wide_probe" not in found
    fresh, keyed = (found[f"defences/{kind}_noise/averaging_gain"] for kind in ("fresh", "keyed"))
    assert fresh.value == (4 - 1) / 8
    assert keyed.value == 0.0
    assert keyed.extra["contains_zero"]
    assert [told["repeats"] for told in fresh.extra["each"].values()] == [16, 16]
    assert all(map(defences.apart, both.results.plan.cells))


def test_shares_stand_between_floors_and_photos(tmp_path: Path, make_cell: Any) -> None:
    drawn = """
[contracts.full]
access = "scores"
[contracts.watched]
access = "scores"
detections = [["distances", "log", []]]
[[cells]]
name = "draws"
victim = "faces-none-s1"
method = "random_draws"
contracts = ["full", "watched"]
seeds = [1]
targets = "0-3"
"""
    said = {"draws/full": "x...", "draws/watched": "xxxx"}
    both = world(
        tmp_path, make_cell, lambda planned: by_table(planned) if planned.matrix else said[planned.name], TEXT + drawn
    )
    tasks = stands_of(both.results, both.cells)
    plans = {(planned.name, planned.seed): planned for planned in both.results.plan.cells}
    beside = [(plans[cell.name, cell.seed], cell) for cell in both.cells if cell.name.startswith("draws")]
    found = {figure.name: figure.value for figure in floor_figures(both.results, tasks, beside)}
    assert found == {
        "defences/floor/faces/black_image": 0.25,
        "defences/ceiling/faces/held-out_photos": 0.75,
        "defences/floor/faces/random_draws": 0.25,
    }
    figures = floor_figures(both.results, tasks, beside)
    words = "Recognised without an attack: black image 0.250, random draws 0.250. Of real held-out photos 0.750 are."
    assert floor_words("faces", figures) == words
    assert floor_words("others", figures) == ""


def test_time_of_all_cells(found: dict[str, Figure], small: World) -> None:
    assert found["defences/seconds"].value == 1.5 * len(small.cells)
    assert found["defences/counts_equal"].value == 1.0


def test_what_training_spends_is_the_greatest_of_the_seeds(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stand = stands_of(small.results, small.cells)["faces"][1]
    assert defences_cost.cost_figures(small.results, stand) == []
    spent = {0: 3.0, 1: 5.0}
    monkeypatch.setattr(defences_cost, "_epsilon", lambda results, planned: spent[planned.seed])
    (figure,) = defences_cost.cost_figures(small.results, stand)
    assert (figure.name, figure.value) == ("defences/label_smoothing/alpha=-0.05/faces/epsilon", 5.0)
