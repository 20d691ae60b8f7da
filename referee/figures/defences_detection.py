"""Figures of detectors: how long each attack goes unnoticed, and how often honest users are taken for attackers.

Attacks are those of cells whose contract has detectors with the verdict `log`, which let them go on to their end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.detection import DETECTIONS
from referee.atomic import write_atomically
from referee.cell import Cell
from referee.figures.inverted import label_of
from referee.honest_traffic import GENERATORS, KEY_ROWS, false_alarms, honest_images
from referee.report import Figure, Section, Table, labels

if TYPE_CHECKING:
    from referee.campaign import PlannedCell
    from referee.results import Results

__all__ = ["detection_figures", "detection_sections", "noticed"]

_MOST = 1_000  # rows that an attack on made-up inputs may ask unnoticed
_NATURAL = ("inversion_network",)  # methods that ask about natural images
_HONEST_ROWS = 100_000  # of each generator

Detections = tuple[tuple[str, str, tuple[tuple[str, float], ...]], ...]


def detection_figures(results: Results, pairs: Sequence[tuple[PlannedCell, Cell]]) -> list[Figure]:
    """All that the finished cells allow, and the false alarms of the detectors that they name."""
    watched = [(planned, cell) for planned, cell in pairs if planned.contract.detections and cell.status == "done"]
    if not watched:
        return []
    return [*noticed(watched), *_alarms(results, [planned for planned, _ in watched])]


def noticed(pairs: Sequence[tuple[PlannedCell, Cell]]) -> list[Figure]:
    """Rows until the first detector flags an attack, the most of its cells; all rows where none does, and `flagged`
    says so. Attackers who take precautions stand apart.
    """
    by_label: dict[str, list[tuple[PlannedCell, Cell]]] = {}
    for planned, cell in pairs:
        by_label.setdefault(label_of(cell), []).append((planned, cell))
    return [_noticed(label, mine) for label, mine in by_label.items()]


def detection_sections(figures: Sequence[Figure]) -> list[Section]:
    """A table of the attacks with what gave them away; nothing where no cell was watched."""
    alarms = [figure for figure in figures if figure.name == "detection/false_alarms"]
    rows = []
    for figure in figures:
        if not figure.name.startswith(("detection/rows_until/", "detection/adaptive/")):
            continue
        extra = figure.extra
        by = {detector for said in extra["of_each"].values() for detector in said["by"]}
        asked = max(said["asked"] for said in extra["of_each"].values())
        noticed_in = f"{extra['flagged']} of {extra['cells']}"
        span = labels.count(figure.value) if figure.low == figure.high else f"{figure.low:,.0f} to {figure.high:,.0f}"
        until = span if extra["flagged"] == extra["cells"] else f"{span}, of which some is all that was asked"
        keys, repeats = labels.count(extra["keys"]), labels.count(extra["repeats"])
        rows.append(
            [
                figure.name.rpartition("/")[2],
                keys,
                repeats,
                labels.count(asked),
                until,
                noticed_in,
                " ".join(sorted(by)),
            ]
        )
    if not rows:
        return []
    text = "Rows, of all keys together, until a detector flags the first key; detectors take note and stop nobody here."
    for figure in alarms:
        counts = "; ".join(f"{name}: {count:,}" for name, count in figure.extra["flagged"].items())
        text += f" Of {figure.extra['rows']:,} honest rows of each generator so many are flagged: {counts}."
    heads = ["attack", "keys", "each row asked", "rows asked", "rows until flagged", "runs flagged", "by"]
    return [Section("Detectors on the stream of queries", [text], [Table(heads, rows)])]


def _noticed(label: str, pairs: Sequence[tuple[PlannedCell, Cell]]) -> Figure:
    plan = pairs[0][0]
    adaptive = plan.keys > 1 or plan.repeats > 1
    bound = None if adaptive or plan.method in _NATURAL else float(_MOST)
    flagged = sum(bool(cell.flags) for _, cell in pairs)
    each: dict[str, Any] = {}
    for planned, cell in pairs:
        said = {"rows": _rows(cell), "asked": cell.rows_ledger, "by": dict(sorted(cell.flags.items()))}
        each[f"{planned.victim.name}, seed {planned.seed}"] = said
    extra: dict[str, Any] = {"flagged": flagged, "cells": len(pairs), "keys": plan.keys, "repeats": plan.repeats}
    extra["of_each"] = each
    rows = [_rows(cell) for _, cell in pairs]
    name = f"detection/{'adaptive' if adaptive else 'rows_until'}/{label}"
    low, high = float(min(rows)), float(max(rows))
    return Figure(name, high, low=low, high=high, unit="rows", at_most=bound, extra=extra)


def _rows(cell: Cell) -> int:
    """Rows until the cell was noticed, or all of its rows."""
    return min(cell.flags.values(), default=cell.rows_ledger)


def _alarms(results: Results, plans: Sequence[PlannedCell]) -> list[Figure]:
    """Honest rows that are flagged by any of the detectors, of each generator and split: the most, and all of them."""
    found: dict[str, int] = {}
    for split, contract in dict.fromkeys((planned.victim.split, planned.contract) for planned in plans):
        for name, _, values in contract.detections:
            for generator in GENERATORS:
                words = f"{name}, {generator}, {split}"
                found[words] = _counted(results, name, dict(values), generator, split)
    extra = {"rows": _HONEST_ROWS, "rows_of_a_key": KEY_ROWS, "flagged": found}
    return [Figure("detection/false_alarms", float(max(found.values())), unit="rows", at_most=0.0, extra=extra)]


def _counted(results: Results, name: str, values: dict[str, float], generator: str, split: str) -> int:
    """Counted once and kept in the campaign's folder: it takes minutes."""
    detector = DETECTIONS[name](**{key: value for key, value in values.items() if key != "rate"})
    what = [repr(detector), generator, results.judge(split).split.sha256(), _HONEST_ROWS, KEY_ROWS]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
    kept: Path = results.out / "referee" / "honest" / f"{key}.json"
    if not kept.exists():
        images = honest_images(results.judge(split).split)
        count = false_alarms(detector, GENERATORS[generator], _HONEST_ROWS, images=images)
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, (json.dumps({"of": what, "flagged": count}) + "\n").encode())
    return int(json.loads(kept.read_text())["flagged"])
