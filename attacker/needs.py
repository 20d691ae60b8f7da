"""The access that a method needs, checked against a key's contract before the first query."""

from __future__ import annotations

import enum
from typing import Protocol

__all__ = ["ContractLike", "Needs", "refuse"]


class ContractLike(Protocol):
    """What an attack reads of a contract: the fields that decide what an answer holds."""

    @property
    def access(self) -> str:
        """`weights`, `scores` or `label`."""

    @property
    def top_k(self) -> int | None:
        """How many of the largest scores are released; None = all of them."""

    @property
    def round_to(self) -> float | None:
        """The step to whose multiples scores are rounded; None = not rounded."""


class Needs(enum.StrEnum):
    """The least that a method can work with, from most to least; whoever gets more also gets what stands below it."""

    WEIGHTS = "the weights"
    ALL_SCORES = "the scores of all classes"
    SCORES = "scores"
    LABELS = "labels"


def refuse(needs: Needs, contract: ContractLike, classes: int, *, method: str = "this method") -> str | None:
    """The sentence that says why `contract` does not satisfy `needs`, and what to do; None if it does.

    `classes` is C, the number of classes: a contract that releases the C largest scores releases all of them. A feature
    model has none (C = 0), and its numbers count as scores: which groups of them a method can work with is its own
    business. Rounding
    refuses nobody: it makes a method worse, and how much worse is what is to be measured.

    >>> from types import SimpleNamespace
    >>> refuse(Needs.SCORES, SimpleNamespace(access="scores", top_k=1), 40)
    >>> refuse(Needs.WEIGHTS, SimpleNamespace(access="label", top_k=None), 40, method="mi_face")
    "mi_face needs the weights, but this key's contract releases labels only; use a key with access 'weights', or a \
method that needs less (attacker list)"
    """
    order = list(Needs)
    granted, what = _granted(contract, classes)
    if order.index(granted) <= order.index(needs):
        return None
    key = {
        Needs.WEIGHTS: "a key with access 'weights'",
        Needs.ALL_SCORES: "a key with access 'scores' and no top_k",
        Needs.SCORES: "a key with access 'scores'",
        Needs.LABELS: "a key with access 'label'",
    }[needs]
    return (
        f"{method} needs {needs.value}, but this key's contract releases {what} only; "
        f"use {key}, or a method that needs less (attacker list)"
    )


def _granted(contract: ContractLike, classes: int) -> tuple[Needs, str]:
    """The most that a contract satisfies, and words for what it releases."""
    access = str(contract.access)
    if access == "weights":
        return Needs.WEIGHTS, "the weights"
    if access == "label":
        return Needs.LABELS, "labels"
    if access != "scores":
        raise ValueError(f"access={access!r} must be 'weights', 'scores' or 'label': update the attacker")
    k = contract.top_k
    if k is not None and k < classes:
        return Needs.SCORES, f"the {k} largest scores" if k > 1 else "the largest score"
    return Needs.ALL_SCORES, "scores"
