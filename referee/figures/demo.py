"""Figures of the demonstration: AT&T faces, softmax regression, attacks of 2015 to 2022."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from attacker.attacks import METHODS
from attacker.attacks.mi_face import WhiteBox
from oracle_server.victims.split_models import random_split_errors, target_error, train_target
from referee.cell import Cell
from referee.figures.common import counts_equal, rate
from referee.report import Figure
from referee.training import Training

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["figures", "trainings", "weight_error"]

_SPLITS = range(10)  # random 7/3 splits for the test error
_PRINTED = ("numeric", "numeric_small_probe", "equation_solving", "yoshimura", "brep_mi", "draws_of_prior")
_SINGLE = (0, 13, 26)  # people whose reconstruction is timed one at a time


def figures(results: Results, cells: list[Cell]) -> list[Figure]:
    """All that the finished cells allow; `results` gives models and private data."""
    by_name = {cell.name: cell for cell in cells if cell.status == "done"}
    return [*_models(results), *_white_box(results, by_name), *_score_attacks(results, by_name), *_end(cells)]


def trainings() -> list[Training]:
    """Softmax regression on ten random splits."""
    return [Training(f"random-{seed}", "softmax_regression", seed) for seed in _SPLITS]


def _models(results: Results) -> list[Figure]:
    judge = results.judge("att40")
    errors = np.array(random_split_errors(_SPLITS, faces=judge.faces))
    fixed = target_error(train_target(judge.split, faces=judge.faces, device=results.device), judge.split, judge.faces)
    return [
        rate(
            "demo/softmax/test_error",
            errors,
            np.arange(len(errors)),
            paper=0.075,
            at_most=0.055,
            extra={"splits": len(errors), "fixed_split": fixed},
        ),
        Figure("demo/evaluation/test_accuracy", judge.test_accuracy, at_least=0.97),
    ]


def _white_box(results: Results, cells: dict[str, Cell]) -> list[Figure]:
    found = []
    if cell := cells.get("mi_face/weights"):
        confident = cell.confidence[-1] >= 0.99
        found += [
            rate("demo/mi_face/weights/confident", confident, cell.targets, at_least=0.95),
            rate("demo/mi_face/weights/top1", cell.top1[-1], cell.targets, at_least=0.20, extra={"chance": 1 / 40}),
            _seconds_per_face(results.target_model(cell.victim, "cpu")),
        ]
    if cell := cells.get("mi_face_public_mean/weights"):
        found.append(rate("demo/mi_face/weights/att30_public_mean/top1", cell.top1[-1], cell.targets))
    return found


def _seconds_per_face(model: nn.Module) -> Figure:
    """All 40 in one batch over one at a time: the same code, in this process, on one torch thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        single = [_seconds(model, [person]) for person in _SINGLE[:1]]
        together = _seconds(model, list(range(40))) / 40
        single += [_seconds(model, [person]) for person in _SINGLE[1:]]
    finally:
        torch.set_num_threads(threads)
    return Figure(
        "demo/mi_face/weights/seconds_per_face",
        together / float(np.median(single)),
        unit="ratio to batch 1",
        at_most=0.2,
        extra={"seconds": together, "seconds_at_batch_1": float(np.median(single)), "paper_seconds": 1.4},
    )


def _seconds(model: nn.Module, people: list[int]) -> float:
    blank = np.zeros((1, 112, 92), np.float32)
    started = time.perf_counter()
    for _ in METHODS["mi_face"]().descend(WhiteBox(model, people), blank, len(people), 0.0, 1.0):
        pass
    return time.perf_counter() - started


def _score_attacks(results: Results, cells: dict[str, Cell]) -> list[Figure]:
    found = []
    white = cells.get("mi_face/weights")
    for name, cell_name in (("correlation", "numeric_steps/full"), ("correlation_one_step", "numeric/full")):
        if white is not None and (cell := cells.get(cell_name)):
            same = white.images[-1][np.searchsorted(white.targets, cell.targets)]
            pairs = zip(cell.images[-1], same, strict=True)
            values = np.array([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])
            extra = {"people": len(cell.targets), "rows": cell.rows_ledger, "steps": cell.parameters["max_steps"]}
            bound = {"at_least": 0.98} if name == "correlation" else {}
            found.append(rate(f"demo/numeric/full/{name}", values, cell.targets, extra=extra, **bound))
    if "equation_solving/full" in cells:
        found.append(_weight_error(results, cells["equation_solving/full"]))
    for cell in cells.values():
        method, _, contract = cell.name.partition("/")
        if method in _PRINTED:
            seen = {"true_confidence": float(cell.confidence[-1].mean()), "rows": float(cell.rows_ledger)}
            found.append(rate(f"demo/{method}/{contract}/top1", cell.top1[-1], cell.targets, extra=seen))
    return found


def _weight_error(results: Results, cell: Cell) -> Figure:
    with np.load(results.attacker_arrays(cell)) as arrays:
        weight, bias = arrays["extra_weight"], arrays["extra_bias"]
    return Figure(
        "demo/equation_solving/full/weight_error",
        weight_error(results.target_model(cell.victim, "cpu"), weight, bias),
        unit="relative",
        at_most=1e-6,
        extra={"rows": cell.rows_ledger},
    )


def weight_error(model: nn.Module, weight: np.ndarray, bias: np.ndarray) -> float:
    """Relative distance of recovered weights (C, d) and bias (C,) from those of a softmax regression.

    Both are centred over the classes first: what is common to all classes does not change a score.
    """
    matrix = {tuple(p.shape): p.detach().double().numpy() for p in model.parameters()}
    true = np.column_stack([matrix[weight.shape], matrix[bias.shape]])
    found = np.column_stack([weight, bias])
    true, found = true - true.mean(0), found - found.mean(0)
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def _end(cells: list[Cell]) -> list[Figure]:
    return [counts_equal("demo/counts_equal", cells)]
