"""Named figures with their interval, the paper's value and the bound they must keep; `summary.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import ge, gt, le, lt
from pathlib import Path
from typing import Any

from referee.atomic import write_atomically

__all__ = ["Figure", "read", "write"]


@dataclass(frozen=True)
class Figure:
    """One figure. `low`, `high`: its interval; `paper`: the published value; `at_least`, `at_most`: its bound, which
    the value must keep; with `whole` all of its interval must lie beyond the bound, without touching it.

    `extra` goes into the entry as it is (for example "seconds"), and can't replace the keys of the entry.
    """

    name: str
    value: float
    unit: str = "ratio"
    low: float | None = None
    high: float | None = None
    paper: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    whole: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bound(self) -> str | None:
        """The bound in words, as ">= 0.2", or None: measured, not tested."""
        texts = [f"{sign} {number:g}" for sign, number in self._bounds()]
        return " and ".join(texts) or None

    @property
    def passed(self) -> bool | None:
        """Whether the value keeps its bound; None where there is none."""
        low, high = (self.low, self.high) if self.whole else (self.value, self.value)
        checks = {">=": ge, "<=": le, "interval >": gt, "interval <": lt}
        ends = [(checks[sign], low if ">" in sign else high, number) for sign, number in self._bounds()]
        return all(end is not None and check(end, number) for check, end, number in ends) if ends else None

    def _bounds(self) -> list[tuple[str, float]]:
        signs = ("interval >", "interval <") if self.whole else (">=", "<=")
        pairs = zip(signs, (self.at_least, self.at_most), strict=True)
        return [(sign, number) for sign, number in pairs if number is not None]

    def entry(self) -> dict[str, Any]:
        """The entry in `summary.json`. Raises `ValueError` for NaN, an infinity, or an extra key that is taken."""
        entry: dict[str, Any] = {
            "name": self.name,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "unit": self.unit,
            "paper": self.paper,
        }
        entry = {key: _plain(value) for key, value in entry.items()}
        for key in ("value", "low", "high", "paper"):
            if entry[key] is not None and not math.isfinite(entry[key]):
                raise ValueError(f"figure {self.name}: {key} is {entry[key]}; a figure must be a finite number")
        if self.bound is not None:
            entry |= {"bound": self.bound, "passed": self.passed}
        taken = sorted(entry.keys() & self.extra.keys())
        if taken:
            raise ValueError(f"figure {self.name}: extra key {taken[0]!r} is taken; choose another")
        return entry | {key: _plain(value) for key, value in self.extra.items()}


def write(figures: Sequence[Figure], path: Path, said: Mapping[str, str] | None = None) -> None:
    """Write `{"figures": [...]}`, in the given order, whole or not at all; `said`, sentences by name, go beside them.

    Raises `ValueError` for a name given twice and for NaN or infinite numbers; the old file then stays.
    """
    names = [figure.name for figure in figures]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"figure {twice[0]!r} is given twice; names must differ")
    content = {"figures": [figure.entry() for figure in figures]} | ({"said": dict(said)} if said else {})
    text = json.dumps(content, indent=2, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a `summary.json` by name, in their order."""
    return {entry["name"]: entry for entry in json.loads(path.read_text())["figures"]}


def _plain(value: Any) -> Any:
    """A numpy scalar as the Python number that JSON knows."""
    return value.item() if hasattr(value, "item") else value
