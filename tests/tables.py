"""A tree small enough to work every posterior out by hand."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np

from protos.schema import Feature
from protos.tree import Tree

__all__ = ["PRIOR_A", "PRIOR_B", "WORDS", "N", "whole_tree"]

N = np.array([[[30, 10], [5, 15]], [[2, 18], [12, 8]]])  # training rows by (a, b, y)
PRIOR_A = N.sum((1, 2)) / N.sum()
PRIOR_B = N.sum((0, 2)) / N.sum()
WORDS = ("no", "yes")


def feature(name: str, prior: np.ndarray) -> dict[str, Any]:
    return Feature(name, WORDS, 0, 1, tuple(prior.tolist())).as_dict()


def whole_tree() -> Tree:
    """A leaf for each (a, b), with b asked first."""
    leaves = [
        {
            "path": [["b", "in", [WORDS[b]]] if b == 0 else ["b", "not in", [WORDS[0]]], ["a", a_sign, [WORDS[0]]]],
            "region": {"b": [WORDS[b]], "a": [WORDS[a]]},
            "counts": N[a, b].tolist(),
        }
        for b, (a, a_sign) in product((0, 1), ((0, "in"), (1, "not in")))
    ]
    values = {
        "format": "mirage tree 1",
        "features": [feature("a", PRIOR_A), feature("b", PRIOR_B)],
        "response": feature("y", N.sum((0, 1)) / N.sum()),
        "rows": int(N.sum()),
        "leaves": leaves,
    }
    return Tree.from_json(json.dumps(values).encode())
