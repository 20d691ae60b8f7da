"""The methods, each in the file named after it. `METHODS` is what `attacker list` prints and `attacker run` takes."""

from __future__ import annotations

from typing import Any

from attacker.attacks.equation_solving import EquationSolving
from attacker.attacks.mi_face import MIFace
from attacker.attacks.numeric import Numeric
from attacker.attacks.random_draws import RandomDraws

__all__ = ["METHODS", "EquationSolving", "MIFace", "Numeric", "RandomDraws"]

METHODS: dict[str, type[Any]] = {
    "mi_face": MIFace,
    "numeric": Numeric,
    "equation_solving": EquationSolving,
    "random_draws": RandomDraws,
}
