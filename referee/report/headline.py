"""The result in plain words, computed from the rows: whose face leaks under which contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from referee.report import labels
from referee.report.context import SplitView
from referee.report.tables import Row

__all__ = ["Headline", "best_rows", "headline"]


@dataclass(frozen=True)
class Headline:
    """`lead` is one sentence; `rest` are the sentences that follow."""

    lead: str
    rest: tuple[str, ...]


def best_rows(rows: Sequence[Row]) -> dict[str, Row]:
    """For each contract the attack that recognises most people, with the fewest rows among equals."""
    best: dict[str, Row] = {}
    for row in rows:
        if row.kind != "attack" or row.top1 is None:
            continue
        held = best.get(row.contract)
        if held is None or _rank(row) > _rank(held):
            best[row.contract] = row
    return best


def headline(rows: Sequence[Row], split: SplitView) -> Headline:
    """Say what leaks. A contract leaks where the whole interval of its best attack lies above every floor."""
    rows = [row for row in rows if row.split == split.name]
    best = best_rows(rows)
    floors = [row.top1.value for row in rows if row.kind == "floor" and row.top1 is not None]
    floor = max([1 / split.classes, *floors])
    leaks = {contract: row for contract, row in best.items() if row.top1 is not None and row.top1.low > floor}
    silent = {contract: row for contract, row in best.items() if contract not in leaks}
    sentences: list[str] = []
    for contract, row in leaks.items():
        verb = "" if sentences else "are recognised "
        share = _share(row, bool(sentences), split.noun)
        sentences.append(f"With {_the(contract)}, {share} {verb}from {_price(row)} ({row.method}).")
    if not best:
        sentences.append("No attack has a result that counts, so nothing can be said about what leaks.")
    elif not leaks:
        sentences.append(f"Under no contract does the best attack recognise more {split.noun} than the floor.")
    if silent:
        listed = ", ".join(f"{contract} ({_share(row, True)})" for contract, row in silent.items())
        sentences.append(f"Not told apart from the floor ({labels.ratio(floor, 3)}): {listed}.")
    for contract in dict.fromkeys(row.contract for row in rows if row.contract and row.contract not in best):
        sentences.append(_unanswered(contract, [row for row in rows if row.contract == contract]))
    ceiling = next((row for row in rows if row.kind == "ceiling" and row.top1 is not None), None)
    if ceiling is not None and ceiling.top1 is not None:
        sentences.append(f"Of real photos ({ceiling.method}), {ceiling.top1.value:.1%} are recognised.")
    return Headline(sentences[0], tuple(sentences[1:]))


def _unanswered(contract: str, rows: Sequence[Row]) -> str:
    """A contract without a result: what became of its attacks."""
    rows = [row for row in rows if row.kind == "attack"] or rows
    if all(row.status == "refused" for row in rows):
        who = {1: "the method was", 2: "both methods were"}.get(len(rows), f"all {len(rows)} methods were")
        return f"With {_the(contract)}, {who} refused before the first query."
    states = ", ".join(f"{row.method} {row.status}" for row in rows)
    return f"With {_the(contract)}, there is no result ({states})."


def _the(contract: str) -> str:
    """The contract's label inside a sentence."""
    return f"the {contract}" if contract.startswith(("weights", "label", "top-1 score")) else contract


def _rank(row: Row) -> tuple[float, float]:
    return (row.top1.value if row.top1 else 0.0, -(row.rows_ledger or 0.0))


def _share(row: Row, brief: bool = False, plural: str = "people") -> str:
    """'13 of 40 people' for one seed, a mean over several; `brief` leaves out what the reader knows by then."""
    value, noun = row.top1.value if row.top1 else 0.0, "" if brief else f" {plural}"
    if len(row.cells) == 1:
        return f"{round(value * row.people)} of {row.people}{noun}"
    seeds = "" if brief else f" (mean of {len(row.cells)} seeds)"
    return f"{value:.1%} of {row.people}{noun}{seeds}"


def _price(row: Row) -> str:
    """What it cost: rows counted by the ledger, for all people together."""
    if row.self_reported and not row.rows_ledger:
        return "the downloaded model, without a query"
    return f"{labels.count(row.rows_ledger)} rows"
