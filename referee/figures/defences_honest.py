"""What honest clients get behind each defence of a matrix: the held-out photos through the very `release`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from defenses.response import defend
from oracle_server.threat_model import Access, Contract, release
from oracle_server.victims.splits import class_of
from referee.figures.defences_cells import Stand
from referee.metrics.intervals import Interval, clustered_interval
from referee.metrics.utility import Utility, utility

if TYPE_CHECKING:
    from referee.campaign import PlannedCell
    from referee.results import Results

__all__ = ["Honest", "Honesty", "contract_of"]

_BATCH = 256


@dataclass(frozen=True)
class Honest:
    """Of all seeds: accuracy, and what is lost of the undefended model's (None where that is not known), clustered by
    class; top-5, calibration error and agreement with the undefended model in the mean of the seeds.
    """

    accuracy: Interval
    loss: Interval | None
    top5: float | None
    calibration_error: float | None
    agreement: float | None
    photos: int
    classes: int
    seeds: int


class Honesty:
    """Asks the campaign's victims as an honest client does; each victim is run on its photos once."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._logits: dict[str, np.ndarray] = {}
        self._photos: dict[str, tuple[np.ndarray, np.ndarray, int]] = {}

    def behind(self, stand: Stand, undefended: Stand | None) -> Honest:
        """What clients of a stand get, beside those of the undefended model of the same seeds."""
        plain = {} if undefended is None else self._answers(undefended)
        mine = self._answers(stand)
        both = [seed for seed in mine if seed in plain]
        _, labels, classes = self._held_out(stand.attacks[0].pairs[0][0].victim.split)
        right = np.concatenate([one.right for one in mine.values()])
        top5 = [one.top5 for one in mine.values() if one.top5 is not None]
        errors = [one.calibration_error for one in mine.values() if one.calibration_error is not None]
        loss = None
        if both:
            lost = np.concatenate([plain[seed].right.astype(float) - mine[seed].right for seed in both])
            loss = clustered_interval(lost, np.tile(labels, len(both)))
        return Honest(
            clustered_interval(right, np.tile(labels, len(mine))),
            loss,
            float(np.mean(top5)) if top5 else None,
            float(np.mean(errors)) if errors else None,
            float(np.mean([mine[seed].agreement(plain[seed]) for seed in both])) if both else None,
            len(labels),
            classes,
            len(mine),
        )

    def _answers(self, stand: Stand) -> dict[int, Utility]:
        """By seed."""
        found: dict[int, PlannedCell] = {}
        for planned in (planned for faced in stand.attacks for planned, _ in faced.pairs):
            mine = planned.matrix is not None and planned.matrix.defence == stand.entry.defence
            if mine and (planned.seed not in found or planned.contract.access is Access.SCORES):
                found[planned.seed] = planned
        return {seed: self.ask(planned, contract_of(planned)) for seed, planned in found.items()}

    def ask(self, planned: PlannedCell, contract: Contract) -> Utility:
        """The answers that the contract releases of a cell's victim on the held-out photos of its split."""
        photos, labels, classes = self._held_out(planned.victim.split)
        name = planned.victim.name
        if name not in self._logits:
            model = self._results.target_model(name, "cpu")
            with torch.no_grad():
                parts = [model(part) for part in torch.from_numpy(photos).split(_BATCH)]
            self._logits[name] = torch.cat(parts).numpy()
        seed = (b"honest client", name.encode())
        return utility(
            release(self._logits[name], contract, defend(contract.defences, seed, seed, photos)), labels, classes
        )

    def _held_out(self, split: str) -> tuple[np.ndarray, np.ndarray, int]:
        """Photos (N, C, H, W), their classes (N,) and how many classes there are."""
        if split not in self._photos:
            judge = self._results.judge(split)
            rows, private = judge.split.test, judge.split.private
            photos = np.ascontiguousarray(judge.faces.images[np.array(rows)], np.float32)
            self._photos[split] = photos, class_of(judge.faces, list(rows), private), len(private)
        return self._photos[split]


def contract_of(planned: PlannedCell) -> Contract:
    """What an honest client has where the attacker of a cell has its own contract: the same without a limit of rows,
    scores instead of weights, and, where nothing but the model is defended, scores instead of a label.
    """
    entry = planned.matrix
    if planned.contract.access is Access.WEIGHTS or entry is None or entry.kind in ("none", "training"):
        return Contract(Access.SCORES)
    return replace(planned.contract, budget=None, rate=None, expires=None)
