"""No defence: the baseline of every comparison, trained as if there were no defences at all."""

from __future__ import annotations

from dataclasses import dataclass

from defenses.training.defence import TrainingDefence

__all__ = ["NoDefence"]


@dataclass(frozen=True)
class NoDefence(TrainingDefence):
    """Changes nothing; it has no parameters."""
