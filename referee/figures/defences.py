"""Figures of the matrix of defences: what honest clients lose, and what the best attack still gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from referee.cell import Cell
from referee.figures.common import counts_equal
from referee.figures.defences_cells import Faced, Hits, Stand, change_of, share_of, stands_of
from referee.figures.defences_cost import cost_figures
from referee.figures.defences_detection import detection_figures
from referee.figures.defences_floors import floor_figures
from referee.figures.defences_honest import Honest, Honesty
from referee.figures.defences_questions import questions
from referee.figures.defences_sections import said, sections
from referee.figures.latent import other_network, rank_among
from referee.metrics.intervals import Interval
from referee.report import Figure
from referee.training import Training

if TYPE_CHECKING:
    from referee.campaign import PlannedCell
    from referee.results import Results

__all__ = ["apart", "figures", "said", "sections", "trainings"]

_OF_OWN_CAMPAIGN = 0.8


def apart(planned: PlannedCell) -> bool:
    """All cells stand in the sections: by defence and not by victim, or with the question that they answer."""
    return True


def trainings() -> list[Training]:
    """None beside the campaign's own."""
    return []


def figures(results: Results, cells: Sequence[Cell]) -> list[Figure]:
    """All that the finished cells allow."""
    tasks, honesty, found = stands_of(results, cells), Honesty(results), []
    for stands in tasks.values():
        split = stands[0].attacks[0].pairs[0][0].victim.split
        second, accuracy = other_network(results, split)
        undefended = next((stand for stand in stands if stand.undefended), None)
        for stand in stands:
            measured = _Measured(stand, undefended, honesty.behind(stand, undefended), second, accuracy)
            found += measured.figures()
            found += cost_figures(results, stand)
    plans = {(planned.name, planned.seed): planned for planned in results.plan.cells}
    pairs = [(plans[cell.name, cell.seed], cell) for cell in cells]
    beside = [
        (planned, cell) for planned, cell in pairs if planned.matrix is None and cell.status not in ("failed", "void")
    ]
    found += questions(beside, tasks)
    found += floor_figures(results, tasks, beside)
    found += detection_figures(results, beside)
    return [*found, _seconds(cells), counts_equal("defences/counts_equal", cells)]


@dataclass(frozen=True, eq=False)
class _Measured:
    """A stand with everything that its figures are made of."""

    stand: Stand
    undefended: Stand | None
    honest: Honest
    second: nn.Module
    accuracy: float

    def figures(self) -> list[Figure]:
        entry = self.stand.entry
        if self.stand.undefended:
            start = f"defences/undefended/{entry.task}"
            attacks = [
                figure for faced in self.stand.attacks for figure in self._attack(f"{start}/{faced.attack}", faced)
            ]
            return [self._honest(f"{start}/accuracy"), self._best(f"{start}/recognition"), *attacks]
        start = f"defences/{entry.defence}/{entry.strength}/{entry.task}"
        return [self._honest(f"{start}/accuracy"), self._best(f"{start}/recognition")]

    def _honest(self, name: str) -> Figure:
        honest = self.honest
        extra: dict[str, Any] = {
            "top5": honest.top5,
            "calibration_error": honest.calibration_error,
            "agreement": honest.agreement,
            "photos": honest.photos,
            "classes": honest.classes,
            "seeds": honest.seeds,
        }
        if honest.loss is not None:
            extra |= {"loss": honest.loss.value, "loss_low": honest.loss.low, "loss_high": honest.loss.high}
        return Figure(name, honest.accuracy.value, low=honest.accuracy.low, high=honest.accuracy.high, extra=extra)

    def _best(self, name: str) -> Figure:
        """The share that the best attack recognises; beside it that of each kind of attacker, and every attack."""
        best = self.stand.best()
        assert best is not None
        share = share_of(best.hits())
        entry = self.stand.entry
        extra: dict[str, Any] = {name: getattr(entry, name) for name in ("task", "defence", "strength", "kind")}
        extra |= {"attack": best.attack, "missing": list(self.stand.missing), **self._fallen("all")}
        for access in ("interface", "weights"):
            if (one := self.stand.best(access)) is not None:
                found = share_of(one.hits())
                extra[access] = {"attack": one.attack, "share": found.value, "low": found.low, "high": found.high}
                extra[access] |= self._fallen(access)
        extra["attacks"] = {faced.attack: self._measures(faced) for faced in self.stand.attacks}
        return Figure(name, share.value, low=share.low, high=share.high, extra=extra)

    def _fallen(self, access: str) -> dict[str, Any]:
        """What the best of the same attacks recognises on the undefended model, and the change from that, once all of
        them are finished there.
        """
        best, plain, names = self.stand.best(access), None, self.stand.names(access)
        if self.undefended is not None and names <= self.undefended.names(access):
            plain = self.undefended.best(access, names)
        if best is None or plain is None or self.stand.undefended:
            return {}
        told: dict[str, Any] = {"undefended": plain.share, "undefended_attack": plain.attack}
        return told | _change(change_of((self.stand.task, best.hits(), plain.hits())))

    def _measures(self, faced: Faced) -> dict[str, Any]:
        share = share_of(faced.hits())
        plain = None if self.undefended is None else self.undefended.faced(faced.attack)
        half = None if plain is None else plain.share / 2
        found: dict[str, Any] = {
            "share": share.value,
            "low": share.low,
            "high": share.high,
            "other_network": float(np.mean(list(self._by_second(faced).values()))),
            "other_network_accuracy": self.accuracy,
            "rows_to_half": None if half is None else faced.rows_to(half),
            "marks_are": "steps" if faced.self_reported else "rows",
            "capacity_bits": faced.capacity_bits,
            "access": faced.entry.access,
            "refused": faced.refused,
            "seeds": len(faced.pairs),
            "seconds": float(np.nanmean([cell.seconds for _, cell in faced.pairs])),
        }
        if plain is not None and faced.entry != plain.entry:
            found |= _change(change_of((self.stand.task, faced.hits(), plain.hits())))
        return found

    def _by_second(self, faced: Faced) -> Hits:
        """Who the second evaluation network recognises in the last images."""
        return faced.judged(lambda cell: rank_among(self.second, cell.images[-1], cell.targets))

    def _attack(self, name: str, faced: Faced) -> list[Figure]:
        """An attack on the undefended model, and how that compares with what it reached in a campaign of its own."""
        share, own = share_of(faced.hits()), faced.entry.own
        extra = {key: value for key, value in self._measures(faced).items() if key not in ("share", "low", "high")}
        found = [Figure(name, share.value, low=share.low, high=share.high, extra=extra)]
        if own:
            over, told = share.value / own, {"own_campaign": own, "here": share.value}
            low, high, least = share.low / own, share.high / own, _OF_OWN_CAMPAIGN
            found.append(Figure(f"{name}/over_own_campaign", over, low=low, high=high, at_least=least, extra=told))
        return found


def _change(change: Interval | None) -> dict[str, float]:
    return {} if change is None else {"change": change.value, "change_low": change.low, "change_high": change.high}


def _seconds(cells: Sequence[Cell]) -> Figure:
    """The time of all cells, one after the other; beside it that of each method's cells in the mean."""
    times: dict[str, list[float]] = {}
    for cell in cells:
        if np.isfinite(cell.seconds):
            times.setdefault(cell.method, []).append(cell.seconds)
    means = {method: float(np.mean(values)) for method, values in times.items()}
    extra = {"cells": len(cells), "mean_by_method": means}
    return Figure("defences/seconds", float(sum(map(sum, times.values()))), unit="seconds", extra=extra)
