"""Contracts, methods and numbers in the words and the form in which every table prints them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from referee.cell import Cell
from referee.metrics import Interval

__all__ = [
    "contract_label",
    "contract_labels",
    "count",
    "interval",
    "method_key",
    "method_labels",
    "number",
    "ratio",
    "short",
]

DASH = "–"
SUFFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def contract_label(contract: Mapping[str, Any]) -> str:
    """A contract in words.

    >>> contract_label({"access": "scores", "top_k": 5, "round_to": 0.01, "budget": 1000})
    'top-5 scores rounded to 0.01, at most 1,000 rows'
    """
    access, top_k, step = contract.get("access"), contract.get("top_k"), contract.get("round_to")
    if access == "label":
        text = "label only"
    elif access != "scores":
        text = str(access)
    elif top_k is None:
        text = "full scores" if step is None else "scores"
    else:
        text = "top-1 score" if top_k == 1 else f"top-{top_k} scores"
    if step is not None:
        text += f" rounded to {step:g}"
    if contract.get("features"):
        text += f" of {', '.join(map(str, contract['features']))}"
    if contract.get("defences"):
        text += f" with {', '.join(map(_defence, contract['defences']))}"
    if contract.get("detections"):
        text += f", watched by {' and '.join(str(name) for name, *_ in contract['detections'])}"
    if contract.get("budget") is not None:
        text += f", at most {count(contract['budget'])} rows"
    if contract.get("rate") is not None:
        text += f", {contract['rate']:g} rows a second"
    return text


def contract_labels(contracts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each contract in words; its budget is named where two of them differ in nothing else.

    >>> contract_labels([{"access": "label", "budget": 10}, {"access": "scores", "budget": 10}])
    ['label only', 'full scores']
    >>> contract_labels([{"access": "label", "budget": 10}, {"access": "label", "budget": 20}])
    ['label only, at most 10 rows', 'label only, at most 20 rows']
    """
    plain = [contract_label({**contract, "budget": None}) for contract in contracts]
    budgets: dict[str, set[int | None]] = {}
    for label, contract in zip(plain, contracts, strict=True):
        budgets.setdefault(label, set()).add(contract.get("budget"))
    return [
        label if len(budgets[label]) == 1 else contract_label(contract)
        for label, contract in zip(plain, contracts, strict=True)
    ]


def method_labels(cells: Sequence[Cell]) -> dict[str, str]:
    """Each method of the campaign, by `method_key`: as its cells are named (what stands before the contract's name).

    Where one name stands for several settings, the method and the parameters that differ under one contract of one
    split.
    """
    keys: dict[str, set[str]] = {}
    seen: dict[tuple[str, ...], set[str]] = {}
    for cell in cells:
        keys.setdefault(_given_name(cell), set()).add(method_key(cell))
        for name, value in cell.parameters.items():
            place = (cell.method, name, cell.split, contract_label(cell.contract))
            seen.setdefault(place, set()).add(json.dumps(value, sort_keys=True))
    differing = {(method, name) for (method, name, *_), values in seen.items() if len(values) > 1}
    labels = {}
    for cell in cells:
        named = [f"{key} {_value(value)}" for key, value in cell.parameters.items() if (cell.method, key) in differing]
        told = " ".join([cell.method, ", ".join(named)]).strip()
        labels[method_key(cell)] = _given_name(cell) if len(keys[_given_name(cell)]) == 1 else told
    return labels


def _given_name(cell: Cell) -> str:
    return cell.name.rpartition("/")[0] or cell.name


def method_key(cell: Cell) -> str:
    """What makes two cells the same method with the same parameters."""
    return json.dumps([cell.method, cell.parameters], sort_keys=True)


def count(value: float | None) -> str:
    """Whole rows with separators; a mean over seeds that isn't whole with one decimal: 10305 -> '10,305'."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def short(value: float | None) -> str:
    """Three figures and a suffix: 2_477_000 -> '2.48M'."""
    if value is None:
        return DASH
    for size, suffix in SUFFIXES:
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def ratio(value: float | None, digits: int = 2) -> str:
    """A share or a correlation with fixed decimals, so that columns align; a true minus sign."""
    return DASH if value is None else f"{value:.{digits}f}".replace("-", "\u2212")


def interval(value: Interval | None) -> str:
    """'0.325 [0.18, 0.48]': three digits, since people are counted in fortieths."""
    return DASH if value is None else f"{ratio(value.value, 3)} [{ratio(value.low)}, {ratio(value.high)}]"


def number(value: float | None) -> str:
    """A figure of any size with four figures: 0.9975, 2.3e-07, 12,400."""
    if value is None:
        return DASH
    return count(value) if abs(value) >= 1e4 else f"{value:.4g}".replace("-", "\u2212")


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _defence(defence: Any) -> str:
    """A response defence, given as a name, a pair, or a mapping, in words."""
    if isinstance(defence, str):
        return defence
    if isinstance(defence, Mapping):
        name, rest = str(defence.get("name", "defence")), {k: v for k, v in defence.items() if k != "name"}
    else:
        name, rest = str(defence[0]), dict(defence[1]) if len(defence) > 1 else {}
    return name + (f"({', '.join(f'{k}={_value(v)}' for k, v in rest.items())})" if rest else "")
