"""Experiments that infer attributes of people in a table: the [[attributes]] of a campaign file, checked when read.

name        what the experiment is called, for example "affairs601/unpruned"
table       affairs601, gss, steak, diabetes, or the path of a schema file beside a CSV
model       unpruned, pruned, shallow (trees), priority (CART with a priority), linear (a regression); a list makes
            one experiment of each, called NAME/MODEL
priority    for "priority": 1, 2, ... or "none"; a list makes one experiment of each, called NAME/l=1 and so on
unknown     the features to infer, the sensitive one first
samples     how many models are grown; 1 by default
fraction    share of the people that each is grown on; 1.0 by default, the whole table
confusion   "training" (the default) or "held-out": whose confusion matrix is published
seed        of the samples and of what the methods draw; 0 by default
methods     a list, or the name of one in [adversaries]; each has a method and, optional, name (the method's), access
            (the least that the method needs) and parameters
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from attacker.attacks import METHODS
from attacker.needs import Needs
from attacker.run import make_method
from oracle_server.threat_model import Access, Contract

__all__ = ["IDEAL", "MODELS", "Adversary", "Experiment", "read_experiments"]

MODELS = ("unpruned", "pruned", "shallow", "priority", "linear")
IDEAL = "ideal_model"
_FORMAT = 1  # raise it when the same definition would give another result
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=/-]{0,47}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}")
_MOST_SAMPLES = 1000


@dataclass(frozen=True)
class Adversary:
    """One method under one contract; `label` is what tables and figures call it."""

    label: str
    method: str
    contract: Contract
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ideal(self) -> bool:
        """Whether it asks a model that was grown for the attribute itself."""
        return self.method == IDEAL

    def settings(self, unknown: tuple[str, ...]) -> list[str]:
        """The parameters as the attacker's command takes them."""
        hidden = [] if self.ideal else [f"unknown={','.join(unknown)}"]
        return hidden + [f"{name}={value}" for name, value in self.parameters.items()]


@dataclass(frozen=True)
class Experiment:
    """Models grown on samples of one table, attacked by several adversaries for everybody in the table."""

    name: str
    table: str
    model: str
    unknown: tuple[str, ...]
    adversaries: tuple[Adversary, ...]
    samples: int = 1
    fraction: float = 1.0
    confusion: Literal["training", "held-out"] = "training"
    priority: int | None = None
    seed: int = 0

    @property
    def whole(self) -> bool:
        """Whether the model is grown on everybody, so that nobody is outside."""
        return self.fraction == 1.0

    def definition(self) -> dict[str, Any]:
        """All that decides the result, in plain values."""
        values = asdict(self) | {"format": _FORMAT, "unknown": list(self.unknown)}
        adversaries = [asdict(one) | {"contract": one.contract.as_dict()} for one in self.adversaries]
        plain: dict[str, Any] = json.loads(json.dumps(values | {"adversaries": adversaries}))
        return plain

    @property
    def folder(self) -> str:
        """The experiment's place below a folder of experiments; another definition has another one."""
        text = json.dumps(self.definition(), sort_keys=True)
        return f"{self.name.replace('/', '+')}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def read_experiments(entries: list[dict[str, Any]], shared: Mapping[str, Any]) -> tuple[Experiment, ...]:
    """The experiments of a campaign file, with its lists of adversaries by name; `ValueError` or `KeyError` for the
    first thing that is amiss.

    Whether a table is there, and has the features, is found out when it runs: data may be on another machine.
    """
    if not isinstance(entries, list):
        raise ValueError("attributes is a list of tables: write [[attributes]]")
    found = []
    for values in entries:
        methods = values["methods"]
        if isinstance(methods, str) and methods not in shared:
            there = ", ".join(shared) or "none"
            raise ValueError(f"experiment {values['name']}: no list {methods!r} in [adversaries]; there is {there}")
        chosen = values | {"methods": shared[methods] if isinstance(methods, str) else methods}
        models = values["model"]
        several = models if isinstance(models, list) else [models]
        for model in several:
            name = f"{values['name']}/{model}" if isinstance(models, list) else values["name"]
            found += list(_experiments(chosen | {"model": model, "name": name}))
    names = [experiment.name for experiment in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two experiments are called {twice[0]}: give one of them another name")
    return tuple(found)


def _experiments(values: dict[str, Any]) -> Iterator[Experiment]:
    known = {"name", "table", "model", "priority", "samples", "fraction", "unknown", "confusion", "seed", "methods"}
    name = values["name"]
    what = f"experiment {name}"
    if strange := sorted(set(values) - known):
        raise ValueError(f"{what} has no field {strange[0]!r}; there is {', '.join(sorted(known))}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{what}: a name has 1 to 48 letters, digits, and _ . = / -")
    model, samples, fraction = values["model"], values.get("samples", 1), values.get("fraction", 1.0)
    if model not in MODELS:
        raise ValueError(f"{what}: model must be one of {', '.join(MODELS)}")
    if ("priority" in values) != (model == "priority"):
        raise ValueError(f'{what}: priority (1, 2, ... or "none") belongs to model = "priority", which needs it')
    if type(samples) is not int or not 1 <= samples <= _MOST_SAMPLES:
        raise ValueError(f"{what}: samples = {samples} must be a whole number from 1 to {_MOST_SAMPLES}")
    if not isinstance(fraction, float | int) or not 0 < fraction <= 1:
        raise ValueError(f"{what}: fraction = {fraction} must be above 0 and at most 1")
    if fraction == 1 and samples > 1:
        raise ValueError(f"{what}: {samples} samples of everybody are all the same: write samples = 1 or a fraction")
    if values.get("confusion", "training") not in ("training", "held-out"):
        raise ValueError(f'{what}: confusion must be "training" or "held-out"')
    if values.get("confusion") == "held-out" and fraction == 1:
        raise ValueError(f"{what}: nobody is held out of the whole table: choose a smaller fraction")
    experiment = Experiment(
        name=name,
        table=str(values["table"]),
        model=model,
        unknown=_unknown(what, values["unknown"]),
        adversaries=_adversaries(what, values["methods"], model, values["unknown"]),
        samples=samples,
        fraction=float(fraction),
        confusion=values.get("confusion", "training"),
        seed=int(values.get("seed", 0)),
    )
    wanted = values.get("priority")
    for priority in wanted if isinstance(wanted, list) else [wanted]:
        if priority is None:
            yield experiment
            continue
        if priority != "none" and (type(priority) is not int or priority < 1):
            raise ValueError(f'{what}: priority = {priority!r} must be 1, 2, ... or "none"')
        level = None if priority == "none" else priority
        several = f"{name}/{'none' if level is None else f'l={level}'}"
        yield replace(experiment, name=several if isinstance(wanted, list) else name, priority=level)


def _unknown(what: str, names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f'{what}: unknown is a list of features to infer, for example ["affair"]')
    if len(set(names)) < len(names):
        raise ValueError(f"{what}: unknown names a feature twice")
    if any("," in name for name in names):
        raise ValueError(f"{what}: a feature with a comma in its name cannot be inferred: rename the column")
    return tuple(names)


def _adversaries(what: str, entries: Any, model: str, unknown: Any) -> tuple[Adversary, ...]:
    if not isinstance(entries, list) or not entries:
        raise ValueError(f'{what}: methods is a list, for example [{{ method = "white_box_counts" }}]')
    found = []
    for values in entries:
        if strange := sorted(set(values) - {"method", "name", "access", "parameters"}):
            raise ValueError(f"{what}: a method has no field {strange[0]!r}; there is access, method, name, parameters")
        method, label = values["method"], values.get("name", values["method"])
        if method not in METHODS:
            raise ValueError(f"{what}: no method {method!r}; there is {', '.join(METHODS)}")
        kind = "regression" if model == "linear" else "tree"
        if kind not in getattr(METHODS[method], "models", ("neural",)):
            raise ValueError(f"{what}: {method} does not attack a {kind} model: leave it out")
        if not _LABEL.fullmatch(label):
            raise ValueError(f"{what}: a method's name has letters, digits, _ and -, and {label!r} has not")
        least = Access.WEIGHTS if METHODS[method].needs is Needs.WEIGHTS else Access.LABEL
        usual = Access.SCORES if kind == "regression" and least is Access.LABEL else least
        contract = Contract(Access(values.get("access", usual)))
        one = Adversary(label, method, contract, values.get("parameters", {}))
        make_method(method, one.settings(tuple(unknown)), None, Path())
        found.append(one)
    labels = [one.label for one in found]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"{what}: two methods are called {twice[0]}: give one of them another name")
    return tuple(found)
