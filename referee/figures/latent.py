"""What the figures of attacks in a prior's latent space are made of: cells by label and contract, over victims."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from attacker.attacks import METHODS
from oracle_server.victims.split_models import evaluation_accuracy, train_evaluation
from referee.cell import Cell
from referee.figures.inverted import label_of
from referee.metrics.intervals import Interval, clustered_interval
from referee.report import Figure
from referee.report.charts import Panel, Series

if TYPE_CHECKING:
    from referee.judge import Judge
    from referee.results import Results

__all__ = [
    "Way",
    "batched_over_single",
    "difference",
    "other_network",
    "panel",
    "place_of",
    "rank_among",
    "ways_of",
]

MARKS = (100, 200, 300, 500, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 30_000, 100_000)
_PLACES = {"att20": "att20", "digits-same": "digits", "digits-generic": "digits-generic"}  # how figures call splits
_STEPS = 40  # of a descent whose time is taken


@dataclass(frozen=True, eq=False)
class Way:
    """The finished cells of one label under one contract, one for each victim of a split."""

    label: str
    contract: str
    split: str
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        return f"{self.label}, {self.contract}"

    @property
    def targets(self) -> np.ndarray:
        """Of all cells, one after the other: (N,)."""
        return np.concatenate([cell.targets for cell in self.cells])

    def at(self, mark: float = np.inf) -> np.ndarray:
        """Who is recognised (N,) bool when so many rows for each target have been answered; nobody before the first
        reconstruction.
        """
        return np.concatenate([_at(cell, mark) for cell in self.cells])

    def share(self, mark: float = np.inf) -> Interval:
        """The share recognised, clustered by target."""
        return clustered_interval(self.at(mark), self.targets)

    def images(self) -> np.ndarray:
        """The last ones, (N, C, H, W)."""
        return np.concatenate([cell.images[-1] for cell in self.cells])

    def rate(self, name: str, mark: float = np.inf, **rest: Any) -> Figure:
        """A figure of the share recognised."""
        share = self.share(mark)
        extra = {"victims": len(self.cells), "rows_a_target": float(np.mean([_rows(c, mark) for c in self.cells]))}
        return Figure(name, share.value, low=share.low, high=share.high, extra=extra | rest.pop("extra", {}), **rest)


def ways_of(
    cells: Sequence[Cell],
    kind: Callable[[Cell], str] = lambda cell: "",
    name: Callable[[str], str] = lambda split: place_of(split),
) -> dict[tuple[str, str, str], Way]:
    """By place, label and contract, in the campaign's order; a place is the `name` of a split, with what `kind` says
    behind it.
    """
    found: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        if cell.status == "done":
            key = (name(cell.split) + kind(cell), label_of(cell), cell.name.rpartition("/")[2])
            found.setdefault(key, []).append(cell)
    return {key: Way(key[1], key[2], mine[0].split, tuple(mine)) for key, mine in found.items()}


def place_of(split: str) -> str:
    """How figures call a split."""
    return _PLACES.get(split, split)


def difference(name: str, ours: Way, other: Way, mark: float = np.inf, **rest: Any) -> Figure:
    """Ours less the other's share recognised, target by target on the victims that both attacked."""
    both = [(a, b) for a in ours.cells for b in other.cells if a.victim == b.victim]
    values = np.concatenate([_at(a, mark).astype(float) - _at(b, mark) for a, b in both])
    interval = clustered_interval(values, np.concatenate([a.targets for a, _ in both]))
    extra = {"against": other.name, "victims": len(both)} | rest.pop("extra", {})
    return Figure(name, interval.value, low=interval.low, high=interval.high, unit="difference", extra=extra, **rest)


def panel(title: str, ways: Sequence[Way]) -> Panel:
    """Recognition against rows: a curve for each way."""
    series = []
    for colour, way in enumerate(ways):
        first = min(float(cell.marks[0]) for cell in way.cells)
        last = max(float(cell.marks[-1]) for cell in way.cells)
        marks = [mark for mark in MARKS if first <= mark < last] + [last]
        series.append(Series(way.name, colour, tuple(map(float, marks)), tuple(way.share(mark) for mark in marks)))
    return Panel(title, tuple(series))


def other_network(results: Results, split: str) -> tuple[nn.Module, float]:
    """A second evaluation network of the split, of another architecture, and its accuracy on unseen photos."""
    judge = results.judge(split)
    trained = train_evaluation(judge.split, faces=judge.faces, architecture="conv_classifier", device=results.device)
    return trained.module, evaluation_accuracy(trained, judge.split, judge.faces)


def rank_among(network: nn.Module, images: np.ndarray, targets: np.ndarray, classes: int | None = None) -> np.ndarray:
    """Whether each image (N, C, H, W) is named as its target (N,), among the first `classes` of those known."""
    with torch.no_grad():
        parts = [network(part)[:, :classes] for part in torch.from_numpy(images).split(256)]
    return np.asarray(torch.cat(parts).argmax(1).numpy() == targets)


def batched_over_single(
    results: Results, cells: Sequence[Cell], prefix: str = "latent", kind: Callable[[Cell], str] | None = None
) -> list[Figure]:
    """The time of `latent_gradient` on all targets at once over that on one after another, in this process and on one
    torch thread, with victims and priors of finished cells. The `kind`, by default the architecture, of which there are
    most cells stands for the figure; the others are printed by name.
    """
    kinds: dict[str, list[Cell]] = {}
    for cell in cells:
        kinds.setdefault(kind(cell) if kind else results.planned(cell).victim.architecture, []).append(cell)
    found: list[Figure] = []
    for name, mine in sorted(kinds.items(), key=lambda kind: -len(kind[1])):
        ratio, extra = _batched_over_single(results, mine[0]), {"model": name, "steps": _STEPS}
        if not found:
            found.append(Figure(f"{prefix}/batched_over_single", ratio, at_most=0.25, extra=extra))
        else:
            found.append(Figure(f"{prefix}/batched_over_single/{name}", ratio, extra=extra))
    return found


def _batched_over_single(results: Results, cell: Cell) -> float:
    model, prior = results.target_model(cell.victim, "cpu"), results.prior(results.planned(cell))
    judge: Judge = results.judge(cell.split)
    shape = judge.faces.images.shape[1:]
    oracle = SimpleNamespace(model=lambda: model, input_shape=shape, low=0.0, high=1.0, device="cpu")
    method = METHODS["latent_gradient"](prior=prior, steps=_STEPS, starts=1)
    everybody = list(range(len(judge.split.private)))

    def seconds(targets: list[int]) -> float:
        started = time.perf_counter()
        for _ in method.run(oracle, targets, 0):
            pass
        return time.perf_counter() - started

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds(everybody[:1])  # warm
        together, single = [], []
        for _ in range(3):
            together.append(seconds(everybody))
            single.append(sum(seconds([target]) for target in everybody))
    finally:
        torch.set_num_threads(threads)
    return float(np.median(np.array(together) / np.array(single)))


def _at(cell: Cell, mark: float) -> np.ndarray:
    """Who is recognised (T,) in the last snapshot up to `mark`; a hundredth more is still the same mark."""
    places = np.flatnonzero(cell.marks <= mark * 1.01)
    return np.asarray(cell.top1[places[-1]]) if len(places) else np.zeros(len(cell.targets), bool)


def _rows(cell: Cell, mark: float) -> float:
    return float(min(cell.marks[-1], mark))
