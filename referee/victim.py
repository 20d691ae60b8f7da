"""A victim of a campaign: which model is trained on which split, in which way."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from defenses.training import Named, training_defence
from oracle_server.victims.images import ImagesUnavailableError
from oracle_server.victims.recipes import ARCHITECTURES
from oracle_server.victims.splits import Split, split_named

__all__ = ["Kind", "Victim", "check_fields", "read_victim", "split_at_hand"]

Kind = Literal["classifier", "features"]


@dataclass(frozen=True)
class Victim:
    """A model to train and host: `name` is also the hosted model's. `joint` is None, or the settings with which the
    classifier is trained together with a network that inverts it. `max_steps` is None, or how long it learns at most.
    `defence` is None, or the training defence with its parameters, sorted.
    """

    name: str
    architecture: str
    split: str
    seed: int = 0
    kind: Kind = "classifier"
    joint: Mapping[str, float] | None = None
    max_steps: int | None = None
    defence: Named | None = None


def read_victim(name: str, values: dict[str, Any]) -> Victim:
    """A victim from its table; `ValueError` for the first thing that is amiss."""
    check_fields(values, f"victim {name}", {"architecture", "split", "seed", "kind", "joint", "max_steps", "defence"})
    kind, joint, steps = values.get("kind", "classifier"), values.get("joint"), values.get("max_steps")
    if kind not in get_args(Kind):
        raise ValueError(f"victim {name}: kind must be one of {', '.join(get_args(Kind))}")
    if kind == "features":
        for field_name in ("architecture", "joint"):
            if field_name in values:
                raise ValueError(f"victim {name}: a features victim has no {field_name}: leave it out")
        values = {"architecture": "", **values}
    elif values["architecture"] not in ARCHITECTURES:
        raise ValueError(f"victim {name}: architecture must be one of {', '.join(ARCHITECTURES)}")
    if joint is not None and not (isinstance(joint, dict) and all(type(n) in (int, float) for n in joint.values())):
        raise ValueError(f"victim {name}: joint = {joint!r} must be a table of numbers, for example {{ weight = 1.0 }}")
    if steps is not None and (type(steps) is not int or steps < 1 or kind == "features" or joint is not None):
        raise ValueError(f"victim {name}: max_steps = {steps!r} must be a number above 0, of an ordinary classifier")
    if "defence" in values:
        if kind == "features" or joint is not None:
            raise ValueError(f"victim {name}: only an ordinary classifier has a defence: leave it out")
        values = values | {"defence": _training_defence(name, values["defence"])}
    split_at_hand(values["split"])
    return Victim(name=name, **values)


def _training_defence(victim: str, said: Any) -> Named:
    if not (isinstance(said, dict) and isinstance(said.get("name"), str)):
        raise ValueError(f'victim {victim}: defence = {said!r} must be a table, for example {{ name = "none" }}')
    parameters = tuple(sorted((name, value) for name, value in said.items() if name != "name"))
    try:
        training_defence(said["name"], parameters)
    except ValueError as error:
        raise ValueError(f"victim {victim}: {error}") from error
    return said["name"], tuple((name, float(value)) for name, value in parameters)


def split_at_hand(name: str) -> Split | None:
    """The split, or None where its data is not on this machine; `ValueError` for a name that no split has."""
    try:
        return split_named(name)
    except ImagesUnavailableError:
        return None


def check_fields(values: Mapping[str, Any], what: str, known: Collection[str]) -> None:
    """`ValueError` for a field that a table does not have."""
    if unknown := sorted(set(values).difference(known)):
        raise ValueError(f"{what} has no field {unknown[0]!r}; there is {', '.join(sorted(known))}")
