"""Figures of the campaign on Yoshimura et al., APSIPA 2021: released scores, a generator, estimated gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from oracle_server.victims.split_models import train_evaluation
from referee.cell import Cell
from referee.figures.common import counts_equal, rate
from referee.figures.latent import Way, difference, other_network, ways_of
from referee.figures.yoshimura_cosine import cosine_figures
from referee.figures.yoshimura_sections import sections
from referee.figures.yoshimura_starts import seven_candidates, starts_of
from referee.lineups import view_of
from referee.report import Figure
from referee.training import Training

if TYPE_CHECKING:
    from referee.campaign import PlannedCell
    from referee.results import Results

__all__ = ["apart", "figures", "sections", "trainings"]

_FACES = "att20"
_TABLES = ("table", "table_white")
_PAPER = {"table": 0.734, "table_white": 0.754}  # Table I
_PAPER_LINEUPS = {"table": 0.533, "table_white": 0.578}  # Table II
_WORDS = {"table": "black", "table_white": "white"}


def apart(planned: PlannedCell) -> bool:
    """All cells stand in the sections, by way and not by victim."""
    return True


def trainings() -> list[Training]:
    """None beside the campaign's own."""
    return []


def figures(results: Results, cells: Sequence[Cell]) -> list[Figure]:
    """All that the finished cells allow."""
    ways, found = ways_of(cells), []
    for place in dict.fromkeys(place for place, _, _ in ways):
        mine = {label: way for (where, label, _), way in ways.items() if where == place and label != "withheld"}
        found += _paired(results, place, mine)
        found += _each(results, place, mine)
    faces = {(label, contract): way for (place, label, contract), way in ways.items() if place == _FACES}
    found += _tables(results, {label: way.cells[0] for (label, _), way in faces.items() if label in _TABLES})
    found += _estimators(faces)
    found += [way.rate(f"yoshimura/{contract}") for (label, contract), way in faces.items() if label == "withheld"]
    white = next((way.cells[0] for (label, _), way in faces.items() if label == "white"), None)
    if white is not None:
        found += cosine_figures(results, white)
    return [*found, counts_equal("yoshimura/counts_equal", cells)]


def _paired(results: Results, place: str, ways: dict[str, Way]) -> list[Figure]:
    """Black less white box, start by start, both with the paper's stop."""
    if "black" not in ways or "white" not in ways:
        return []
    network = results.judge(ways["black"].split).network
    pairs = [(a, b) for a in ways["black"].cells for b in ways["white"].cells if a.victim == b.victim]
    black, white = (
        np.stack([starts_of(results, pair[side]).recognised(network) for pair in pairs]) for side in (0, 1)
    )  # (V, T, S)
    targets = np.broadcast_to(pairs[0][0].targets[None, :, None], black.shape)
    reached = np.concatenate([starts_of(results, pair[0]).confidence.ravel() for pair in pairs]) > 0.99
    extra = {"black": float(black.mean()), "white": float(white.mean()), "starts": black.size}
    return [
        rate(
            f"yoshimura/{place}/black_minus_white",
            (black.astype(float) - white).ravel(),
            targets.ravel(),
            unit="difference",
            paper=-0.02,
            at_least=-0.1,
            at_most=0.1,
            whole=True,
            extra={**extra, "black_reached_0.99": float(reached.mean())},
        )
    ]


def _each(results: Results, place: str, ways: dict[str, Way]) -> list[Figure]:
    """Recognition of each way's starts: by the judge, among private classes, by a second network; what the target
    thinks of them, and what they cost.
    """
    split = next(iter(ways.values())).split
    judge, found = results.judge(split), []
    second, accuracy = other_network(results, split)
    private = len(judge.split.private)
    for label, way in ways.items():
        if label in _TABLES:
            continue
        name = f"yoshimura/{place}/{label}/top1"
        if not label.startswith(("black", "white", "vae")):
            found.append(way.rate(name))
            continue
        runs = [starts_of(results, cell) for cell in way.cells]
        values = np.concatenate([run.recognised(judge.network).ravel() for run in runs])
        confident = np.concatenate([run.confidence.ravel() for run in runs]) > 0.99
        rows = np.concatenate([run.rows.ravel() for run in runs])
        extra: dict[str, Any] = {
            "starts": len(values),
            "target_sure": float(confident.mean()),
            "among_private": float(np.mean([run.recognised(judge.network, private).mean() for run in runs])),
            "other_architecture": float(np.mean([run.recognised(second).mean() for run in runs])),
            "other_architecture_accuracy": accuracy,
            "best_start_top1": float(way.at().mean()),
            "median_rows_of_sure": float(np.median(rows[confident])) if confident.any() else -1.0,
            "rows_are": "steps" if way.cells[0].self_reported else "rows of a start",
        }
        clusters = np.concatenate([run.targets.ravel() for run in runs])
        found.append(rate(name, values, clusters, extra=extra))
    return found


def _tables(results: Results, cells: dict[str, Cell]) -> list[Figure]:
    """Tables I and II: a hundred starts for each of five people, judged by a network that shares only these people with
    the target, as in the paper, and by ours; then line-ups of seven candidates.
    """
    found = []
    for label, cell in cells.items():
        judge, runs = results.judge(cell.split), starts_of(results, cell)
        theirs = paper_network(results, cell)
        seen = runs.recognised(theirs)
        extra = {
            "by_ours": float(runs.recognised(judge.network).mean()),
            "each": [round(float(share), 3) for share in seen.mean(1)],
            "each_by_ours": [round(float(share), 3) for share in runs.recognised(judge.network).mean(1)],
            "starts": int(seen.shape[1]),
        }
        word = _WORDS[label]
        found.append(
            rate(f"yoshimura/table1/{word}", seen.ravel(), runs.targets.ravel(), paper=_PAPER[label], extra=extra)
        )
        views = [view_of(network) for network in (judge.network, other_network(results, cell.split)[0])]
        right = np.stack([seven_candidates(judge, runs, view) for view in views])
        clusters = np.broadcast_to(runs.targets, right.shape)
        extra = {"each_onlooker": [round(float(one.mean()), 3) for one in right], "candidates": 7}
        name = f"yoshimura/table2/{word}"
        found.append(rate(name, right.ravel(), clusters.ravel(), paper=_PAPER_LINEUPS[label], extra=extra))
    return found


def paper_network(results: Results, cell: Cell) -> nn.Module:
    """An evaluation network that shares only the attacked people with the target: it knows these and the public ones.

    It has a class for everybody, so that classes agree, and has seen no photo of the other private people.
    """
    judge = results.judge(cell.split)
    split = judge.split
    people = judge.faces.labels[np.array(split.evaluations[0])]
    known = {*(split.private[target] for target in cell.targets.tolist()), *split.public}
    rows = tuple(row for row, who in zip(split.evaluations[0], people.tolist(), strict=True) if who in known)
    narrowed = dataclasses.replace(split, evaluations=(rows,))
    return train_evaluation(narrowed, faces=judge.faces, device=results.device).module


def _estimators(ways: dict[tuple[str, str], Way]) -> list[Figure]:
    """Least squares less differences along the axes, for the same rows."""
    ours = ways.get(("equal_least_squares", "full"))
    names = {"equal_central": "least_squares_minus_central", "equal_one_sided": "least_squares_minus_one_sided"}
    others = {name: ways.get((label, "full")) for label, name in names.items()}
    if ours is None:
        return []
    return [difference(f"yoshimura/{name}", ours, other) for name, other in others.items() if other is not None]
