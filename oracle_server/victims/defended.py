"""What is said of a model trained with a defence: on its card, beside its archive, and before it is trained."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from defenses.training import Named, training_defence
from defenses.training.dp_sgd import DpSgd, epsilon
from oracle_server.models.repository import Repository
from oracle_server.victims.recipes import Recipe
from oracle_server.victims.trained import Trained

__all__ = ["about_defence", "defence_of", "defence_words", "epsilon_of", "planned_epsilon", "write_defence"]

_ABOUT = "defence.json"


def about_defence(named: Named, trained: Trained) -> dict[str, Any]:
    """Name, parameters, what the method noted (of dp_sgd: epsilon, delta, rows, batch_size, steps), and `start_rows`:
    the rows that its weights saw before the private ones, where there are any.
    """
    parameters = dataclasses.asdict(training_defence(*named))  # type: ignore[call-overload]
    said = {"name": named[0], "parameters": parameters, **trained.card.get("defence", {})}
    return said | ({"start_rows": trained.card["start_rows"]} if "start_rows" in trained.card else {})


def defence_words(about: dict[str, Any]) -> str:
    """One phrase for a card: `mid beta=0.01`; of dp_sgd with what it spends."""
    words = " ".join([about["name"], *(f"{name}={value:g}" for name, value in about["parameters"].items())])
    if "epsilon" not in about:
        return words
    return f"{words} (epsilon {about['epsilon']:.4g} at delta {about['delta']:g} for each of {about['rows']} photos)"


def write_defence(repository: Repository, model: str, about: dict[str, Any]) -> None:
    """Put it beside a hosted model's archive; only archives that a card names can be downloaded, and this is none."""
    card = repository.card(model)
    (repository.archive(card).parent / _ABOUT).write_text(json.dumps(about) + "\n")


def defence_of(repository: Repository, model: str) -> dict[str, Any] | None:
    """What `about_defence` said of a hosted model, or None for one that was trained without a defence."""
    path = repository.archive(repository.card(model)).parent / _ABOUT
    if not path.exists():
        return None
    about: dict[str, Any] = json.loads(path.read_text())
    return about


def epsilon_of(model: Trained) -> float | None:
    """What the training of a model spent, at the delta in ``model.card["defence"]``; None without such a bound."""
    spent: float | None = model.card.get("defence", {}).get("epsilon")
    return spent


def planned_epsilon(named: Named, recipe: Recipe, rows: int) -> float | None:
    """The same of a training on so many rows by a recipe, without training; infinite for noise 0."""
    defence = training_defence(*named)
    if not isinstance(defence, DpSgd):
        return None
    steps = recipe.epochs_for(rows) * math.ceil(rows / recipe.batch_size)
    return epsilon(defence.noise, rows, recipe.batch_size, steps, defence.delta)
