"""The contracts that advice is about, from the most useful to the strictest, each with the attack that tries it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oracle_server.threat_model import Access, Contract

__all__ = ["OFFERS", "Offer"]


@dataclass(frozen=True)
class Offer:
    """A contract that may be offered: its short name, its name in words, the attack that tries it, and the attack's
    parameters for so many rows a class.
    """

    name: str
    words: str
    contract: Contract
    method: str
    parameters: Callable[[int], dict[str, Any]]


def _yoshimura(rows: int) -> dict[str, Any]:
    """Differences along each component, a row for each, where the paper's choice of a size costs hundreds a step; no
    end before the budget's. Chosen on the people of att20 in exchanged roles.
    """
    return {"rows": rows, "estimator": "one_sided", "step": 0.5, "confidence": 1.0}


def _brep_mi(rows: int) -> dict[str, Any]:
    """At most a quarter of the rows for first points."""
    return {"rows": rows, "draws": max(1, min(100, rows // 4)), "pool": min(50, rows // 4)}


OFFERS = (
    Offer("full", "full scores", Contract(Access.SCORES), "yoshimura", _yoshimura),
    Offer(
        "top1_rounded",
        "the largest score only, rounded to 0.1",
        Contract(Access.SCORES, top_k=1, round_to=0.1),
        "brep_mi",  # the largest score says the label, and in rounded steps little more
        _brep_mi,
    ),
    Offer("label", "the label only", Contract(Access.LABEL), "brep_mi", _brep_mi),
)
"""From the most useful contract to the strictest."""
