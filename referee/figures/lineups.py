"""Figures of the line-ups: do three networks pick the person out of five photos when they see a reconstruction?"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from oracle_server.victims.split_models import train_evaluation
from referee.cell import Cell
from referee.figures.common import best_white_box, model_of
from referee.lineups import view_of, write_lineups
from referee.metrics.intervals import Interval
from referee.metrics.lineup import (
    LineUps,
    Panel,
    answer,
    ask,
    make_lineups,
    make_real_lineups,
    panel,
    threshold_on_real,
)
from referee.report import Figure

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["NETWORKS", "lineup_figures"]

NETWORKS = (0, 1, 2)  # seeds of the evaluation networks that answer
_QUESTIONS = 24  # of each person to the networks: which photos are drawn matters less than in the three for people
_SPLIT = "att40"  # the only split whose people all have unseen photos and enough others beside them
_PAPER = {  # Figure 9 and section 5.2.2, all answers and majority; what the text states
    "lineup/softmax/majority/overall": 0.75,
    "lineup/softmax/majority/identified": 0.87,
}
_LEAST = {"lineup/softmax/overall": 0.75, "lineup/softmax/identified": 0.87}


def lineup_figures(results: Results, cells: list[Cell]) -> list[Figure]:
    """`overall`, `identified` and `excluded` for each model: over all answers, by majority, and of the best network.

    The questions are written to OUT/lineups/MODEL-HASH, so that people can answer them too.
    """
    chosen = {model: best_white_box(cells, model, _SPLIT) for model in dict.fromkeys(map(model_of, cells))}
    asked = {model: cell for model, cell in chosen.items() if cell is not None}
    if not asked:
        return []
    judge = results.judge(_SPLIT)
    views = [view_of(train_evaluation(judge.split, seed=n, faces=judge.faces).module) for n in NETWORKS]
    photos, owners = judge.faces.images, judge.faces.labels
    rows = (np.array(judge.split.target), np.array(judge.split.test))
    real = make_real_lineups(photos, owners, *rows, seed=1)
    limits = [threshold_on_real(ask(view, real), real.answer).value for view in views]
    found = []
    for model, cell in asked.items():
        people = np.array(judge.split.private)[cell.targets]
        drawn = (cell.images[-1], people, photos, owners, *rows)
        _write(results.out / "lineups", model, make_lineups(*drawn, seed=0), judge.faces.credit)
        lineups = make_lineups(*drawn, seed=0, per_target=_QUESTIONS)
        answers = np.stack([answer(ask(view, lineups), limit) for view, limit in zip(views, limits, strict=True)])
        found += _figures(model, cell, lineups, panel(answers, lineups))
    return found


def _write(place: Path, model: str, lineups: LineUps, credit: str) -> None:
    """The questions for people; a sheet that somebody may have filled in stays, and other questions go elsewhere."""
    asked = hashlib.sha256(lineups.queries.tobytes() + lineups.rows.tobytes()).hexdigest()[:6]
    if not (place / f"{model}-{asked}" / "answers.csv").exists():
        write_lineups(place / f"{model}-{asked}", lineups, credit)


def _figures(model: str, cell: Cell, lineups: LineUps, seen: Panel) -> list[Figure]:
    by_whom = {"": seen.all, "majority/": seen.majority, "best/": seen.each[seen.best]}
    found = []
    for whom, rates in by_whom.items():
        for measure in ("overall", "identified", "excluded", "controls"):
            interval: Interval | None = getattr(rates, measure)
            name = f"lineup/{model}/{whom}{measure}"
            if interval is not None:
                found.append(
                    Figure(
                        f"fredrikson/{name}",
                        interval.value,
                        low=interval.low,
                        high=interval.high,
                        paper=_PAPER.get(name),
                        at_least=_LEAST.get(name),
                        extra={"cell": cell.name, "questions": len(lineups.answer)},
                    )
                )
    return found
