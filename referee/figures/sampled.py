"""What several reconstructions of each target are worth: every measure of a way's samples, and its figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from oracle_server.victims.splits import class_of
from referee.cell import Cell
from referee.figures.latent import Way, other_network
from referee.metrics import any_of, clustered_interval, embed, frechet_distance, nearness, prdc, recognise
from referee.metrics.intervals import Interval
from referee.report import Figure

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["Ground", "Sampled", "ground_of", "paired", "sampled", "samples_of"]

TRIES = 5
_MOST_HELD = 500  # held-out images behind a ratio


@dataclass(frozen=True, eq=False)
class Ground:
    """What samples of a split are compared with: embeddings (P, F) of the private images and (H, F) of held-out ones,
    with their classes, by the judge; `other` is an evaluation network of another architecture, `accuracy` its own on
    unseen photos. k nearest neighbours decide precision, recall, density and coverage.
    """

    private: np.ndarray
    private_classes: np.ndarray
    held: np.ndarray
    held_classes: np.ndarray
    other: nn.Module
    accuracy: float
    k: int


@dataclass(frozen=True, eq=False)
class Sampled:
    """n samples of each target of all victims of a way; arrays are (N, n) for N targets, and (N,) where said.

    hits, five   recognised; among the first five classes
    other        recognised by the other architecture
    own, others  correlation with the mean photo of the own class, and of the others in the mean
    nearest, centroid  distances as ratios to real against real
    fit          (N,) each: precision, recall, density, coverage within the class
    frechet      over all samples, mean of the victims
    values       what the attack lowered, where it says so
    divergence   (N,) nats from the prior, where the attack says so
    """

    way: Way
    hits: np.ndarray
    five: np.ndarray
    other: np.ndarray
    own: np.ndarray
    others: np.ndarray
    nearest: np.ndarray
    centroid: np.ndarray
    fit: dict[str, np.ndarray]
    frechet: float
    values: np.ndarray | None
    divergence: np.ndarray | None

    @property
    def top1(self) -> np.ndarray:
        """The share of a target's samples that is recognised, (N,)."""
        share: np.ndarray = self.hits.mean(1)
        return share

    def best_of_tries(self) -> float | None:
        """The share recognised of the samples with the least value of each five, as of five restarts; None where no
        values are known.
        """
        if self.values is None or self.values.shape[1] < TRIES:
            return None
        whole = self.values.shape[1] // TRIES * TRIES
        best = self.values[:, :whole].reshape(-1, TRIES).argmin(1)
        return float(self.hits[:, :whole].reshape(-1, TRIES)[np.arange(len(best)), best].mean())

    def figure(self, name: str, ground: Ground) -> Figure:
        """The share of samples recognised, clustered by target, and all other measures beside it."""
        share = clustered_interval(self.top1, self.way.targets)
        n = self.hits.shape[1]
        image = self.way.share()
        extra: dict[str, Any] = {
            "victims": len(self.way.cells),
            "samples_a_target": n,
            "evaluations_a_target": float(np.mean([cell.marks[-1] for cell in self.way.cells])),
            "seconds_a_target": float(np.mean([cell.seconds / len(cell.targets) for cell in self.way.cells])),
            "image_top1": image.value,
            "top5": float(self.five.mean()),
            "any_of_five_tries": float(any_of(self.hits, TRIES).mean()) if n >= TRIES else None,
            "best_of_five_restarts": self.best_of_tries(),
            "other_architecture": float(self.other.mean()),
            "other_architecture_accuracy": ground.accuracy,
            "nearest": float(self.nearest.mean()),
            "nearest_of_successes": _mean(self.nearest, self.hits),
            "centroid": float(self.centroid.mean()),
            "centroid_of_successes": _mean(self.centroid, self.hits),
            "frechet": self.frechet,
            "own_class": float(self.own.mean()),
            "other_classes": float(self.others.mean()),
            "k": ground.k,
            "divergence": None if self.divergence is None else float(self.divergence.mean()),
        }
        extra |= {measure: float(values.mean()) for measure, values in self.fit.items()}
        return Figure(name, share.value, low=share.low, high=share.high, extra=extra)

    def only(self, victims: set[str]) -> np.ndarray:
        """Which targets (N,) bool belong to these victims."""
        return np.concatenate([np.full(len(cell.targets), cell.victim in victims) for cell in self.way.cells])


def ground_of(results: Results, split: str) -> Ground:
    """Embeddings of a split's private and held-out images, and the other network."""
    judge = results.judge(split)
    rows, held = np.array(judge.split.target), np.array(judge.split.test)
    if len(held) > _MOST_HELD:
        held = np.random.default_rng(0).choice(held, _MOST_HELD, replace=False)
    other, accuracy = other_network(results, split)
    classes, held_classes = (class_of(judge.faces, part.tolist(), judge.split.private) for part in (rows, held))
    with results.lock:
        private, unseen = (embed(judge.network, judge.faces.images[part], device=judge.device) for part in (rows, held))
    k = max(1, min(5, int(np.bincount(classes).min()) - 2))
    return Ground(private, classes, unseen, held_classes, other, accuracy, k)


def samples_of(results: Results, cell: Cell, name: str = "samples") -> np.ndarray:
    """The reconstructions (T, n, C, H, W) of each target: the image that is shown where the attack made no more."""
    with np.load(results.attacker_arrays(cell), allow_pickle=False) as arrays:
        found = arrays.get(f"extra_{name}")
        return cell.images[-1][:, None] if found is None else np.asarray(found)


def sampled(results: Results, way: Way, ground: Ground) -> Sampled:
    """Measure the samples of all cells of a way."""
    parts = [_cell(results, cell, ground) for cell in way.cells]
    arrays = {
        name: np.concatenate([part[name] for part in parts])
        for name in ("hits", "five", "other", "own", "others", "nearest", "centroid")
    }
    fit = {name: np.concatenate([part["fit"][name] for part in parts]) for name in parts[0]["fit"]}
    return Sampled(
        way=way,
        fit=fit,
        frechet=float(np.mean([part["frechet"] for part in parts])),
        values=_optional(results, way, "values"),
        divergence=_optional(results, way, "divergence"),
        **arrays,
    )


def _cell(results: Results, cell: Cell, ground: Ground) -> dict[str, Any]:
    made = samples_of(results, cell)
    T, n = made.shape[:2]  # noqa: N806
    flat, targets = made.reshape(T * n, *made.shape[2:]), np.repeat(cell.targets, n)
    judge = results.judge(cell.split)
    with results.lock:
        scores = judge.score(flat, targets, None)
        other = recognise(ground.other, flat, targets, device=results.device).top1
        points = embed(judge.network, flat, device=judge.device)
    near = nearness(points, targets, ground.private, ground.private_classes, ground.held, ground.held_classes)
    arrays = {"hits": scores.top1, "five": scores.top5, "own": scores.own, "others": scores.others, "other": other}
    arrays |= {"nearest": near.nearest, "centroid": near.centroid}
    fit: dict[str, np.ndarray] = {}
    if n > ground.k:
        found = [
            prdc(ground.private[ground.private_classes == target], points[targets == target], ground.k)
            for target in cell.targets
        ]
        names = ("precision", "recall", "density", "coverage")
        fit = {name: np.array([getattr(one, name) for one in found]) for name in names}
    frechet = frechet_distance(ground.private, points)
    return {name: values.reshape(T, n) for name, values in arrays.items()} | {"fit": fit, "frechet": frechet}


def _optional(results: Results, way: Way, name: str) -> np.ndarray | None:
    found = []
    for cell in way.cells:
        with np.load(results.attacker_arrays(cell), allow_pickle=False) as arrays:
            if f"extra_{name}" not in arrays:
                return None
            found.append(arrays[f"extra_{name}"])
    return np.concatenate(found)


def paired(ours: Sampled, other: Sampled, measure: str) -> tuple[Interval, int]:
    """Ours less the other's `top1` or fit, target by target on the victims that both attacked, clustered by target; and
    how many victims those are.
    """
    both = {cell.victim for cell in ours.way.cells} & {cell.victim for cell in other.way.cells}
    mine, theirs = ((one.top1 if measure == "top1" else one.fit[measure])[one.only(both)] for one in (ours, other))
    return clustered_interval(mine - theirs, ours.way.targets[ours.only(both)]), len(both)


def _mean(values: np.ndarray, chosen: np.ndarray) -> float | None:
    return float(values[chosen].mean()) if chosen.any() else None
