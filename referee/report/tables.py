"""The rows of the result table, built once; the page, the terminal and the README print the same ones.

Cells that differ only in their seed share a row: their values are put together, and intervals are clustered by
target. A cell whose two counts differ voids its row: its numbers are not shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from referee.cell import Cell
from referee.metrics import Interval, clustered_interval
from referee.report import labels
from referee.report.context import Campaign, Reference

__all__ = ["Row", "build", "compared", "figure_rows", "figures_markdown", "markdown", "sections_markdown", "texts"]

Kind = Literal["attack", "floor", "ceiling"]
HEADS = {
    "contract": "Contract",
    "method": "Method",
    "top1": "Top-1 [95%]",
    "top5": "Top-5",
    "own": "Own class",
    "others": "Others",
    "confidence": "Confidence",
    "mse": "MSE",
    "ssim": "SSIM",
    "rows_ledger": "Rows, ledger",
    "rows_attacker": "Rows, attacker",
    "agree": "Agree",
    "bits": "Bits, at most",
    "seconds": "Seconds",
    "status": "Status",
}
LEFT = ("contract", "method", "status")
COMPARED = ("mse", "ssim")  # columns of cells whose truth is a particular image: shown only where there is one


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table. Measurements are None where there are none: refused, failed, void, a reference."""

    kind: Kind
    split: str
    contract: str
    method: str
    status: Literal["done", "refused", "failed", "void"]
    sentence: str = ""
    cells: tuple[Cell, ...] = ()
    people: int = 0
    top1: Interval | None = None
    top5: Interval | None = None
    own: float | None = None
    others: float | None = None
    confidence: float | None = None
    mse: float | None = None
    ssim: float | None = None
    rows_ledger: float | None = None
    rows_attacker: float | None = None
    capacity_bits: float | None = None
    seconds: float | None = None
    self_reported: bool = False

    @property
    def recognised(self) -> dict[int, float]:
        """For each target the share of seeds in which it was recognised (top-1) at the last mark."""
        hits: dict[int, list[bool]] = {}
        for cell in self.cells if self.status == "done" else ():
            for target, hit in zip(cell.targets.tolist(), cell.top1[-1].tolist(), strict=True):
                hits.setdefault(target, []).append(hit)
        return {target: float(np.mean(values)) for target, values in hits.items()}


def build(cells: Sequence[Cell], campaign: Campaign) -> list[Row]:
    """All rows: for each split its floors and ceilings, then its contracts, all in order of appearance."""
    cells = [cell for cell in cells if cell.name not in campaign.apart]
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    words = labels.contract_labels([cell.contract for cell in cells])
    contracts = {cell.name: label for cell, label in zip(cells, words, strict=True)}
    order = {label: place for place, label in enumerate(dict.fromkeys(contracts[cell.name] for cell in cells))}
    for cell in sorted(cells, key=lambda cell: order[contracts[cell.name]]):
        groups.setdefault((cell.split, _same(cell), contracts[cell.name]), []).append(cell)
    methods = labels.method_labels(cells)
    rows = []
    for split in dict.fromkeys([reference.split for reference in campaign.references] + [c.split for c in cells]):
        rows += [_reference(reference) for reference in campaign.references if reference.split == split]
        for (owner, _, contract), members in groups.items():
            if owner == split:
                floor = members[0].method in campaign.floor_methods
                rows.append(_row(members, contract, methods[labels.method_key(members[0])], floor))
    return rows


def _same(cell: Cell) -> str:
    """Cells with equal keys are repetitions of each other with other seeds. A key's expiry is no difference."""
    contract = {key: value for key, value in cell.contract.items() if key != "expires"}
    return json.dumps([cell.split, cell.victim, contract, labels.method_key(cell)], sort_keys=True)


def _row(cells: list[Cell], contract: str, method: str, floor: bool) -> Row:
    kind: Kind = "floor" if floor else "attack"
    done = [cell for cell in cells if cell.status == "done"]
    unequal = next((cell for cell in done if not cell.counts_equal), None)
    if unequal is not None:
        sentence = (
            f"The ledger counted {unequal.rows_ledger:,} rows and the attacker {unequal.rows_attacker:,}, "
            "so the numbers are not shown."
        )
        return Row(kind, cells[0].split, contract, method, "void", sentence, tuple(cells))
    if (void := next((cell for cell in cells if cell.status == "void"), None)) is not None:
        return Row(kind, void.split, contract, method, "void", void.sentence, tuple(cells))
    if not done:
        first = cells[0]
        return Row(kind, first.split, contract, method, first.status, first.sentence, tuple(cells))
    missing = next((cell for cell in cells if cell.status != "done"), None)
    sentence = "" if missing is None else f"{len(done)} of {len(cells)} runs: {missing.sentence}"
    people = np.concatenate([cell.targets for cell in done])

    def last(key: str) -> np.ndarray:
        return np.concatenate([getattr(cell, key)[-1] for cell in done])

    return Row(
        kind,
        done[0].split,
        contract,
        method,
        "done",
        sentence,
        tuple(done),
        len(np.unique(people)),
        clustered_interval(last("top1"), people),
        clustered_interval(last("top5"), people),
        _mean(last("own")),
        _mean(last("others")),
        _mean(last("confidence")),
        _mean(last("mse")),
        _mean(last("ssim")),
        _mean([cell.rows_ledger for cell in done]),
        _mean([cell.rows_attacker for cell in done]),
        _mean([cell.capacity_bits for cell in done]),
        _mean([cell.seconds for cell in done]),
        any(cell.self_reported for cell in done),
    )


def _reference(reference: Reference) -> Row:
    return Row(
        reference.kind,
        reference.split,
        "",
        reference.name,
        "done",
        people=len(np.unique(reference.targets)),
        top1=clustered_interval(reference.top1.astype(bool), reference.targets),
        top5=clustered_interval(reference.top5.astype(bool), reference.targets),
        own=_mean(reference.own),
        others=_mean(reference.others),
        confidence=_mean(reference.confidence),
    )


def _mean(values: Any) -> float | None:
    """The mean of the values that are known, or None where none is: somebody whom a model does not know has no class
    in it, and a class is no particular image.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else None


def compared(rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns of `COMPARED` if any row has them."""
    return COMPARED if any(row.mse is not None for row in rows) else ()


def texts(row: Row) -> dict[str, str]:
    """The row's columns (the keys of `HEADS`) as text."""
    cells = {
        "contract": row.contract,
        "method": row.method,
        "top1": labels.interval(row.top1),
        "top5": labels.ratio(row.top5.value if row.top5 else None, 3),
        "own": labels.ratio(row.own),
        "others": labels.ratio(row.others),
        "confidence": labels.ratio(row.confidence),
        "mse": labels.DASH if row.mse is None else labels.number(row.mse),
        "ssim": labels.ratio(row.ssim, 3),
        "rows_ledger": labels.count(row.rows_ledger),
        "rows_attacker": labels.count(row.rows_attacker),
        "agree": labels.DASH if row.rows_ledger is None else "yes",
        "bits": labels.short(row.capacity_bits),
        "seconds": labels.DASH if row.seconds is None else f"{row.seconds:,.1f}",
        "status": row.status if row.kind == "attack" else row.kind,
    }
    if row.status == "void" and any(cell.status == "done" and not cell.counts_equal for cell in row.cells):
        cells["agree"] = "no"
    if row.sentence:
        cells["status"] += f": {row.sentence}"
    return cells


def markdown(rows: Sequence[Row], columns: Sequence[str] = tuple(HEADS), heads: Mapping[str, str] = HEADS) -> str:
    """A Markdown table of the chosen columns, for the README, numbers aligned to the right. Those of `COMPARED` are
    printed only where a row has them.
    """
    columns = [column for column in columns if column not in COMPARED or column in compared(rows)]
    lines = [
        [heads[column] for column in columns],
        ["---" if column in LEFT else "---:" for column in columns],
        *[[texts(row)[column].replace("|", "\\|") for column in columns] for row in rows],
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def figures_markdown(campaign: Campaign) -> str:
    """The named figures as a Markdown table."""
    heads = {
        "name": "Figure",
        "value": "Value",
        "interval": "95%",
        "bound": "Bound",
        "paper": "Paper",
        "result": "Result",
    }
    lines = [list(heads.values()), ["---", "---:", "---:", "---:", "---:", "---"]]
    for row in figure_rows(campaign):
        cells = row | {"name": f"`{row['name']}`", "value": f"{row['value']} {row['unit']}".strip()}
        lines.append([cells[key] for key in heads])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def sections_markdown(campaign: Campaign) -> str:
    """The paragraphs and tables of the report's sections, as Markdown."""
    parts = []
    for section in campaign.sections:
        parts += [f"## {section.title}", *section.paragraphs]
        for table in (table for table in section.tables if table.rows):
            rules = ["---" if place < table.left else "---:" for place in range(len(table.heads))]
            rows = [[text.strip().replace("|", "\\|") for text in row] for row in table.rows]
            drawn = "\n".join(f"| {' | '.join(line)} |" for line in [table.heads, rules, *rows])
            parts += [part for part in (f"**{table.title}**" if table.title else "", drawn, table.note) if part]
    return "\n\n".join(parts) + "\n" if parts else ""


def figure_rows(campaign: Campaign) -> list[dict[str, str]]:
    """The figures as text: name, value, interval, bound, paper, result ("pass", "miss" or "measured")."""
    return [
        {
            "name": figure.name,
            "value": labels.number(figure.value),
            "unit": "" if figure.unit == "ratio" else figure.unit,
            "interval": labels.DASH
            if figure.low is None or figure.high is None
            else f"[{labels.number(figure.low)}, {labels.number(figure.high)}]",
            "bound": (figure.bound or labels.DASH).replace(">=", "≥").replace("<=", "≤").replace("-", "\u2212"),
            "paper": labels.number(figure.paper),
            "result": {None: "measured", True: "pass", False: "miss"}[figure.passed],
        }
        for figure in campaign.figures
    ]
