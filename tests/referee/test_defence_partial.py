"""Figures on defences while a campaign is under way: what is said of a matrix with holes, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from referee.campaign import PlannedCell
from referee.figures import defences
from referee.report import Figure
from tests.referee.defence_world import by_table, without_training, world


@pytest.fixture(autouse=True)
def second_network(monkeypatch: pytest.MonkeyPatch) -> None:
    without_training(monkeypatch)


PARTS: list[Callable[[PlannedCell], bool]] = [
    lambda planned: False,
    lambda planned: planned.seed == 0,
    lambda planned: planned.matrix is not None and planned.matrix.defence != "none",
    lambda planned: planned.matrix is not None and planned.matrix.defence == "none" and planned.seed == 1,
    lambda planned: planned.matrix is not None and planned.matrix.attack == "margin",
    lambda planned: planned.matrix is not None and planned.matrix.attack == "brep",
    lambda planned: planned.matrix is not None and planned.matrix.defence == "label",
    lambda planned: planned.matrix is not None and (planned.seed == 0) == (planned.matrix.defence == "none"),
]


@pytest.mark.parametrize("part", PARTS, ids=range(len(PARTS)))
def test_a_matrix_half_done_says_what_it_can(
    part: Callable[[PlannedCell], bool], tmp_path: Path, make_cell: Any
) -> None:
    some = world(tmp_path, make_cell, lambda planned: by_table(planned) if part(planned) else None)
    figures = defences.figures(some.results, some.cells)
    for figure in figures:
        figure.entry()
    assert (len(defences.sections(some.results, some.cells, figures)) > 0) == bool(some.cells)
    defences.said(figures)
    if part is PARTS[-1]:  # no seed in common: nothing is compared
        # Only labels, whose attack is that on the undefended model itself.
        compared = [figure.name for figure in figures if "change" in figure.extra]
        assert compared == ["defences/label/access=label/faces/recognition"]


def test_the_best_attack_is_compared_when_all_are_there(tmp_path: Path, make_cell: Any) -> None:
    """The undefended model's best attack is missing, then a defended one's: neither change would be one."""

    def but(defence: str, seeds: set[int]) -> dict[str, Figure]:
        def said(planned: PlannedCell) -> str | None:
            assert planned.matrix is not None
            gone = (planned.matrix.attack, planned.matrix.defence) == ("margin", defence) and planned.seed in seeds
            return None if gone else by_table(planned)

        some = world(tmp_path, make_cell, said)
        return {figure.name: figure for figure in defences.figures(some.results, some.cells)}

    name = "defences/label_smoothing/alpha=-0.05/faces/recognition"
    undefended = but("none", {0, 1})
    assert "change" not in undefended[name].extra
    assert "change" not in undefended[name].extra["weights"]
    assert "change" in undefended[name].extra["interface"]
    assert "defences/label_smoothing/negative" not in undefended
    assert undefended["defences/undefended/faces/recognition"].extra["missing"] == ["margin"]
    one = but("label_smoothing", {1})
    assert one[name].extra["missing"] == ["margin"]
    assert but("", set())[name].extra["missing"] == []


def test_labels_that_nobody_has_asked_yet_are_missing_behind_every_contract(tmp_path: Path, make_cell: Any) -> None:
    def said(planned: PlannedCell) -> str | None:
        assert planned.matrix is not None
        return None if planned.matrix.attack == "brep" else by_table(planned)

    some = world(tmp_path, make_cell, said)
    found = {figure.name: figure for figure in defences.figures(some.results, some.cells)}
    assert found["defences/label/access=label/faces/recognition"].extra["missing"] == ["brep"]


def test_a_cell_that_failed_says_nothing(tmp_path: Path, make_cell: Any) -> None:
    def failing(planned: PlannedCell) -> str | None:
        return "failed" if planned.matrix and planned.matrix.attack == "margin" else by_table(planned)

    some = world(tmp_path, make_cell, failing)
    found = {figure.name: figure for figure in defences.figures(some.results, some.cells)}
    assert "margin" not in found["defences/undefended/faces/recognition"].extra["attacks"]
    assert found["defences/undefended/faces/recognition"].extra["weights"]["attack"] == "face"
