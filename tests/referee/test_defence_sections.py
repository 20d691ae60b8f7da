"""The report on defences: the front, the sentences that say what to take, and the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from referee.figures import defences
from referee.figures.defences_words import Point, advice, front, points_of, said
from referee.report import Figure, Table
from tests.referee.defence_world import world
from tests.referee.test_defence_figures import by_table

PLAIN = {"top5": 1.0, "calibration_error": 0.1, "agreement": 1.0, "photos": 40, "classes": 20}


def point(
    defence: str,
    accuracy: float,
    share: float,
    change: tuple[float, float, float] | None = None,
    kind: str = "training",
) -> list[Figure]:
    """The two figures of a point, undefended accuracy 0.9 and share 0.8."""
    leak: dict[str, Any] = {"attack": "brep", "share": share, "low": share - 0.1, "high": share + 0.1}
    if change is not None:
        leak |= {"undefended": 0.8, "undefended_attack": "margin"}
        leak |= dict(zip(("change", "change_low", "change_high"), change, strict=True))
    none = defence == "none"
    where: dict[str, Any] = {
        "task": "faces",
        "defence": defence,
        "strength": "" if none else "s=1",
        "kind": "none" if none else kind,
    }
    attacks = {"brep": {"share": share, "refused": False, "other_network": 0.2, "rows_to_half": None}}
    attacks["brep"] |= {"marks_are": "rows", "capacity_bits": 1e6}
    start = "defences/undefended/faces" if none else f"defences/{defence}/s=1/faces"
    where |= {"missing": []}
    return [
        Figure(f"{start}/accuracy", accuracy, low=accuracy, high=accuracy, extra=PLAIN | {"loss": 0.9 - accuracy}),
        Figure(f"{start}/recognition", share, extra=where | {"interface": leak, "attacks": attacks}),
    ]


def points(*figures: list[Figure]) -> list[Point]:
    return points_of([figure for pair in figures for figure in pair]).get("faces", [])


CLEAR = (-0.3, -0.4, -0.1)
UNCLEAR = (-0.1, -0.3, 0.05)


def names(chosen: Sequence[Point]) -> list[str]:
    return [point.name for point in chosen]


def test_the_front_is_what_nothing_beats_in_both() -> None:
    several = points(
        point("none", 0.9, 0.8),
        point("good", 0.89, 0.5, CLEAR),
        point("beaten", 0.88, 0.5, CLEAR),  # as leaky, less accurate
        point("strong", 0.6, 0.1, CLEAR),
        point("worse", 0.5, 0.6, CLEAR),
        point("twin", 0.6, 0.1, CLEAR),  # the same point beats nobody
    )
    assert names(front(several, "interface")) == ["undefended", "good s=1", "strong s=1", "twin s=1"]
    assert front(several, "weights") == []


def test_what_to_take_at_which_loss() -> None:
    several = points(
        point("none", 0.9, 0.8),
        point("good", 0.885, 0.5, CLEAR),
        point("strong", 0.81, 0.1, CLEAR),
        point("costly", 0.5, 0.0, CLEAR),
        point("unclear", 0.895, 0.0, UNCLEAR),
    )
    words = advice("faces", several, "interface")
    assert "At a loss of at most 1 point of accuracy on faces: nothing measurably helps." in words
    assert (
        "At a loss of at most 2 or 5 points of accuracy on faces: take good s=1; the best attack (margin, then" in words
    )
    assert "falls from 0.800 to 0.500, at a loss of 1.5 points." in words
    assert "At a loss of at most 10 points of accuracy on faces: take strong s=1" in words
    assert "costly" not in words
    assert "unclear" not in words
    assert advice("faces", several, "weights") == ""


def test_what_is_unfinished_is_not_advised() -> None:
    several = points(point("none", 0.9, 0.8), point("good", 0.895, 0.5, CLEAR), point("half", 0.895, 0.1, CLEAR))
    several[2].recognition.extra["missing"].append("margin")  # type: ignore[attr-defined]
    assert "take good s=1" in advice("faces", several, "interface")


def test_of_two_that_leak_alike_the_cheaper_is_taken() -> None:
    several = points(point("none", 0.9, 0.8), point("a", 0.891, 0.5, CLEAR), point("b", 0.899, 0.5, CLEAR))
    assert "take b s=1" in advice("faces", several, "interface")


def test_without_an_undefended_model_nothing_is_advised() -> None:
    assert advice("faces", points(point("good", 0.9, 0.5, CLEAR)), "interface") == ""


def test_the_summary_has_the_words_and_the_front() -> None:
    figures = [*point("none", 0.9, 0.8), *point("good", 0.885, 0.5, CLEAR)]
    words = said(figures)
    assert words["defences/faces/interface/front"] == "undefended, good s=1"
    assert "take good s=1" in words["defences/faces/interface/advice"]


@pytest.fixture
def tables(tmp_path: Path, make_cell: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Table]:
    monkeypatch.setattr(defences, "other_network", lambda results, split: (nn.Identity(), 0.9))
    monkeypatch.setattr(defences, "rank_among", lambda network, images, targets: np.zeros(len(targets), bool))
    small = world(tmp_path, make_cell, by_table)
    figures = defences.figures(small.results, small.cells)
    made = defences.sections(small.results, small.cells, figures)
    assert [section.title for section in made] == ["Defences: faces", "Particular questions", "What is not covered"]
    assert "Whoever has the weights has no response defence" in made[-1].paragraphs[0]
    assert all("circle" in chart.svg for chart in made[0].charts)
    assert len(made[0].charts) == 2
    return {table.title: table for table in made[0].tables}


def test_the_tables(tables: dict[str, Table]) -> None:
    key = tables["Accuracy and leakage to whoever has a key for scores or labels"]
    weights = tables["Accuracy and leakage to whoever has the weights"]
    assert len(weights.rows) == 4
    assert len(key.rows) == 7
    rows = {row[0].removesuffix(" *"): row for row in weights.rows}
    assert rows["label_smoothing alpha=-0.1"][2:4] == ["25.0", "face"]
    stars = {row[0] for row in weights.rows if row[0].endswith("*")}
    assert stars == {"undefended *", "label_smoothing alpha=-0.05 *", "label_smoothing alpha=-0.1 *"}
    every = {row[0]: row[1:] for row in tables["Every attack against every defence"].rows}
    assert tables["Every attack against every defence"].heads[1:] == ["margin", "face", "numeric", "brep"]
    assert every["undefended"] == ["0.750", "0.125", "0.375", "0.375"]
    assert every["label access=label"] == ["–", "–", "refused", "0.375"]
    cost = {row[0]: row[1:] for row in tables["What a contract costs honest clients of the undefended model"].rows}
    assert list(cost) == ["full scores", "temperature temperature=2", "gaussian_noise sigma=0.1", "label access=label"]
    assert cost["label access=label"][2:4] == ["–", "–"]
    assert "of 4 classes" in tables["What a contract costs honest clients of the undefended model"].note
