"""Training defences by name, and the one that a name with parameters means."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from defenses.training.bido import Bido
from defenses.training.defence import TrainingDefence
from defenses.training.dp_sgd import DpSgd
from defenses.training.label_smoothing import LabelSmoothing
from defenses.training.mid import Mid
from defenses.training.none import NoDefence
from defenses.training.transfer import Transfer

__all__ = ["TRAINING", "Named", "training_defence"]

Named = tuple[str, tuple[tuple[str, float], ...]]
"""A defence in plain values, as contracts and campaigns name one: its name, and its parameters, sorted."""

TRAINING: dict[str, type[TrainingDefence]] = {
    "none": NoDefence,
    "mid": Mid,
    "bido": Bido,
    "label_smoothing": LabelSmoothing,
    "transfer": Transfer,
    "dp_sgd": DpSgd,
}


def training_defence(name: str, parameters: Iterable[tuple[str, float]] = ()) -> TrainingDefence:
    """The defence of that name; parameters that count something must be whole numbers.

    Raises:
        ValueError: an unknown name, a parameter that is unknown, missing or out of range.
    """
    if name not in TRAINING:
        raise ValueError(f"there is no training defence {name!r}; there is {', '.join(TRAINING)}")
    kind, given = TRAINING[name], dict(parameters)
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(given.keys() - known):
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f"defence {name} has no parameter {unknown[0]!r}; {has}")
    values: dict[str, float] = {}
    for field in known.values():
        if field.name not in given:
            if field.default is dataclasses.MISSING:
                raise ValueError(f"defence {name} needs {field.name}: write {name}:{field.name}=NUMBER")
            continue
        value = given[field.name]
        if type(value) not in (int, float):
            raise ValueError(f"defence {name}: {field.name}={value!r} must be a number")
        if field.type == "int":
            if not float(value).is_integer():
                raise ValueError(f"defence {name}: {field.name}={value} must be a whole number")
            value = int(value)
        else:
            value = float(value)
        values[field.name] = value
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"defence {name}: {error}") from error
