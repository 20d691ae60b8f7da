"""Countermeasures while a model is trained."""

from __future__ import annotations

from defenses.training.priority_cart import Grown, PriorityCart

__all__ = ["Grown", "PriorityCart"]
