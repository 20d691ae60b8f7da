"""Particular questions to a campaign on defences: arg max kept, rounding and 2015's attacks, smoothing, averaging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from defenses.response import make_response
from oracle_server.threat_model import Access, Contract
from referee.cell import Cell
from referee.figures.defences_cells import Faced, Hits, Stand, change_of
from referee.figures.inverted import label_of
from referee.metrics.intervals import Interval, clustered_interval
from referee.report import Figure

if TYPE_CHECKING:
    from referee.campaign import PlannedCell

__all__ = ["averaging", "brep_change", "questions", "rounding", "smoothing"]

_ROUNDED = ("numeric_small_probe", "numeric_wide_probe", "equation_solving")
_STEP = 0.05
_FRESH, _KEYED = "gaussian_noise", "keyed_noise"
_SMOOTHING = "label_smoothing"
_BREP = "brep_mi"

Pair = tuple[str, Hits, Hits]  # whose people, ours, the other's


def questions(beside: Sequence[tuple[PlannedCell, Cell]], tasks: Mapping[str, Sequence[Stand]]) -> list[Figure]:
    """All that the finished cells answer; `tasks` are the stands of the matrix, `beside` the other cells."""
    return [*brep_change(tasks), *rounding(beside), *smoothing(tasks), *averaging(beside)]


def brep_change(tasks: Mapping[str, Sequence[Stand]]) -> list[Figure]:
    """BREP-MI's recognition behind response defences that keep the arg max, less that of the undefended model."""
    pairs: list[Pair] = []
    each: dict[str, Any] = {}
    for task, stands in tasks.items():
        for stand in stands:
            if stand.entry.kind != "response" or not _keeps_argmax(stand):
                continue
            for faced in stand.attacks:
                plain = _undefended(stands, faced.attack)
                if faced.pairs[0][0].method == _BREP and faced.entry.access == "label" and plain is not None:
                    pair = (task, faced.hits(), plain.hits())
                    if (change := change_of(pair)) is not None:
                        pairs.append(pair)
                        each[f"{stand.name} on {task}"] = _told(change)
    return _pooled("defences/argmax_keeping/brep_change", pairs, {"each": each})


def smoothing(tasks: Mapping[str, Sequence[Stand]]) -> list[Figure]:
    """The best white-box recognition with negative, and with positive, label smoothing, less that without; beside it
    that of each attack.
    """
    signs: dict[str, tuple[list[Pair], dict[str, Any]]] = {"negative": ([], {}), "positive": ([], {})}
    by_attack: dict[str, dict[str, list[Pair]]] = {sign: {} for sign in signs}
    for task, stands in tasks.items():
        for stand in stands:
            if stand.entry.applied != _SMOOTHING:
                continue
            alpha, best = dict(stand.entry.values).get("alpha", 0), stand.best("weights")
            if not alpha or best is None:
                continue
            undefended = next((one for one in stands if one.undefended), None)
            names = stand.names("weights")
            both = undefended is not None and names <= undefended.names("weights")
            plain = undefended.best("weights", names) if undefended is not None and both else None
            if plain is None or (change := change_of(pair := (task, best.hits(), plain.hits()))) is None:
                continue
            sign = "negative" if alpha < 0 else "positive"
            pairs, each = signs[sign]
            pairs.append(pair)
            for name in sorted(names):
                ours, other = stand.faced(name), undefended.faced(name) if undefended is not None else None
                if ours is not None and other is not None:
                    by_attack[sign].setdefault(name, []).append((task, ours.hits(), other.hits()))
            attacks = {"attack": best.attack, "undefended_attack": plain.attack}
            each[f"{task}, {stand.entry.strength}"] = _told(change) | attacks
    return [
        figure
        for sign, (pairs, each) in signs.items()
        for figure in _pooled(
            f"defences/{_SMOOTHING}/{sign}",
            pairs,
            {"each": each, "by_attack": {name: _told(change_of(*mine)) for name, mine in by_attack[sign].items()}},
        )
    ]


def rounding(pairs: Sequence[tuple[PlannedCell, Cell]]) -> list[Figure]:
    """What attacks of 2015 and 2016 recognise from scores rounded to 0.05, beside the same from scores as they are."""
    found = []
    for label in _ROUNDED:
        mine = [(planned, cell) for planned, cell in pairs if label_of(cell) == label]
        rounded = [cell for planned, cell in mine if _scores(planned.contract, _STEP)]
        plain = [cell for planned, cell in mine if _scores(planned.contract, None)]
        if not rounded:
            continue
        whole = _share(rounded)
        extra: dict[str, Any] = {"seeds": len(rounded), "rows": sum(cell.rows_ledger for cell in rounded)}
        extra |= {"refused": all(cell.status == "refused" for cell in rounded)}
        if plain:
            told = _share(plain)
            extra |= {"unrounded": told.value, "unrounded_low": told.low, "unrounded_high": told.high}
        name = f"defences/rounding_{_STEP:g}/{label}"
        found.append(Figure(name, whole.value, low=whole.low, high=whole.high, extra=extra))
    return found


def averaging(pairs: Sequence[tuple[PlannedCell, Cell]]) -> list[Figure]:
    """What asking every row several times adds to what is recognised, behind fresh and behind keyed noise: cells with
    repeats less those that differ from them in nothing else, target by target with the same seed.
    """
    found = []
    for name, applied in (("fresh_noise", _FRESH), ("keyed_noise", _KEYED)):
        behind = [(planned, cell) for planned, cell in pairs if applied in _noises(planned.contract)]
        once = {_alike(planned): cell for planned, cell in behind if planned.repeats == 1}
        compared: list[Pair] = []
        each: dict[str, Any] = {}
        for planned, cell in behind:
            if planned.repeats > 1 and (other := once.get(_alike(planned))) is not None:
                pair = (planned.victim.split, _hits(planned, cell), _hits(planned, other))
                if (change := change_of(pair)) is not None:
                    compared.append(pair)
                    each[f"{planned.name}, seed {planned.seed}"] = _told(change) | {"repeats": planned.repeats}
        found += _pooled(f"defences/{name}/averaging_gain", compared, {"each": each})
    return found


def _pooled(name: str, pairs: Sequence[Pair], extra: dict[str, Any]) -> list[Figure]:
    change = change_of(*pairs)
    if change is None:
        return []
    extra = {"contains_zero": change.low <= 0 <= change.high} | extra
    return [Figure(name, change.value, low=change.low, high=change.high, unit="difference", extra=extra)]


def _keeps_argmax(stand: Stand) -> bool:
    return make_response(stand.entry.applied, dict(stand.entry.values)).keeps_argmax


def _undefended(stands: Sequence[Stand], attack: str) -> Faced | None:
    return next((stand.faced(attack) for stand in stands if stand.undefended), None)


def _scores(contract: Contract, round_to: float | None) -> bool:
    """Are all scores released so, with nothing else between them and the client but a number of rows?"""
    return replace(contract, budget=None, rate=None, expires=None) == Contract(Access.SCORES, round_to=round_to)


def _noises(contract: Contract) -> set[str]:
    return {name for name, _ in contract.defences}


def _alike(planned: PlannedCell) -> tuple[Any, ...]:
    """What cells have in common that differ in repeats, name and rows alone."""
    contract = planned.contract
    what = (contract.access, contract.top_k, contract.round_to, contract.defences)
    return planned.victim.name, planned.method, planned.seed, planned.targets, what, repr(planned.prior), planned.public


def _hits(planned: PlannedCell, cell: Cell) -> Hits:
    return {(planned.seed, target): bool(hit) for target, hit in zip(cell.targets.tolist(), _seen(cell), strict=True)}


def _share(cells: Sequence[Cell]) -> Interval:
    """The share recognised of all cells, clustered by target."""
    return clustered_interval(
        np.concatenate([_seen(cell) for cell in cells]), np.concatenate([cell.targets for cell in cells])
    )


def _seen(cell: Cell) -> np.ndarray:
    """Who is recognised at the end (T,) bool: nobody where the contract refused the attack."""
    return cell.top1[-1] if cell.status == "done" else np.zeros(len(cell.targets), bool)


def _told(change: Interval | None) -> dict[str, float]:
    return {} if change is None else {"change": change.value, "low": change.low, "high": change.high}
