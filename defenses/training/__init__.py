"""Countermeasures while a model is trained."""

from __future__ import annotations

from defenses.training.defence import TrainingDefence
from defenses.training.priority_cart import Grown, PriorityCart
from defenses.training.pruning import Pruning
from defenses.training.registry import TRAINING, Named, training_defence

__all__ = ["TRAINING", "Grown", "Named", "PriorityCart", "Pruning", "TrainingDefence", "training_defence"]
