"""A campaign: victims, contracts, methods, targets and seeds, from a TOML file, checked before anything runs.

title = "..."                      what the report is called
figures = "demo"                   which named figures are worked out from the cells (referee/figures/)
seeds = [0]
[evaluation]                       architecture and seed of the network that recognises people
[victims.NAME]                     architecture, split, seed; optional: max_steps (of its training), kind ("classifier",
                                   or "features": a network that predicts named features, which has no choice of
                                   architecture), joint (a table of numbers: the classifier is trained together with a
                                   network that inverts it), defence (a training defence and its parameters,
                                   { name = "mid", beta = 0.01 })
[priors.NAME]                      an image prior that is learned from what a cell's split publishes: kind, seed,
                                   [priors.NAME.parameters]
[contracts.NAME]                   the fields of a contract; several cells may share one
[[cells]]                          victim (or a list of them), method, contracts = [...]; optional: name (the
                                   method's), targets, public, prior, seeds (in place of the campaign's), budget (rows,
                                   for each key), [cells.parameters], and [cells.given], what is handed over: for
                                   deblurring people (places, "10-29") and sigma (pixels); for inversion of somebody
                                   else's answers photos (how many of each kind) and answers (names of contracts under
                                   which they were asked)
[adversaries]                      lists of methods by name, for several experiments
[[attributes]]                     attributes inferred from models of tables: see referee/attribute_plan.py
[defences.NAME] and [[matrix]]     defences x strengths x attacks x contracts x seeds: see referee/matrix.py

`public` of a cell is false, true (what the split publishes), "developer" or "developer+published": the private photos
that the target is trained on, alone or with the published ones. That is no breach: in such a cell the attacker is the
malicious developer, who trained the model and has these photos anyway; what the cell measures is what others' answers
give away to them.

A campaign has cells, attributes, or both. A victim whose data is not on this machine is still read: it is left out when
the campaign runs.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from attacker.attacks import METHODS
from attacker.run import make_method
from defenses.training import Named, training_defence
from oracle_server.threat_model import Contract
from oracle_server.victims.images import ImagesUnavailableError
from oracle_server.victims.recipes import ARCHITECTURES
from oracle_server.victims.splits import Split, split_named
from referee.attribute_plan import Experiment, read_experiments
from referee.figures import FIGURES
from referee.given import check_given
from referee.matrix import Entry, grow
from referee.priors import PlannedPrior

__all__ = ["CampaignError", "Kind", "Plan", "PlannedCell", "Public", "Victim", "read_plan"]

Kind = Literal["classifier", "features"]
Public = Literal["developer", "developer+published"] | bool
_PUBLIC = (False, True, "developer", "developer+published")


class CampaignError(ValueError):
    """A campaign file that cannot be run; the sentence says where and what to write."""


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


@dataclass(frozen=True)
class PlannedCell:
    """One method on one victim under one contract with one seed."""

    name: str
    victim: Victim
    method: str
    contract_name: str
    contract: Contract
    seed: int
    targets: str = "all"
    public: Public = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Contract] = field(default_factory=dict)
    """The contracts by name under which a benign user asks for the answers that are given."""
    prior: PlannedPrior | None = None
    matrix: Entry | None = None
    """Where it stands in the campaign's matrix; it changes nothing of what is run."""

    @property
    def folder(self) -> str:
        """The cell's place below a folder of cells; one level, whatever the names hold."""
        return f"{self.name}+seed={self.seed}".replace("/", "+")

    @property
    def attempt(self) -> str:
        """The folder's name with a hash of what is run: a cell whose settings changed starts anew, with a new key."""
        what = [self.victim.split, self.method, self.contract.digest, self.targets, self.public, self.described]
        what += [contract.digest for contract in self.asked.values()]
        return f"{self.folder}-{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:6]}"

    @property
    def described(self) -> dict[str, Any]:
        """What a finished cell says of how it was run."""
        data: dict[str, Any] = {"public": self.public} if isinstance(self.public, str) else {}
        data |= {"prior": self.prior.described} if self.prior else {}
        return dict(self.parameters) | ({"given": dict(self.given)} if self.given else {}) | data

    def settings(self) -> list[str]:
        """The parameters as the attacker's command takes them."""
        return [f"{name}={value}" for name, value in self.parameters.items()]


@dataclass(frozen=True)
class Plan:
    """A whole campaign, in the order in which its cells run."""

    title: str
    figures: str
    victims: tuple[Victim, ...]
    cells: tuple[PlannedCell, ...]
    attributes: tuple[Experiment, ...] = ()


def read_plan(path: Path) -> Plan:
    """Read and check a campaign file; `CampaignError` for the first thing that is amiss."""
    try:
        with path.open("rb") as file:
            text = tomllib.load(file)
    except FileNotFoundError as error:
        raise CampaignError(f"there is no campaign file {path}") from error
    except tomllib.TOMLDecodeError as error:
        raise CampaignError(f"{path} is no TOML: {error}") from error
    try:
        return _plan(text)
    except (KeyError, TypeError, ValueError) as error:
        said = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise CampaignError(f"{path}: {said}") from error


def _plan(text: dict[str, Any]) -> Plan:
    _only(
        text,
        "the campaign",
        {"title", "figures", "seeds", "victims", "priors", "contracts", "cells", "attributes", "adversaries"}
        | {"defences", "matrix"},
    )
    whole = not {"attributes", "matrix"} & set(text)
    tables: dict[str, Any] = text if whole else {"victims": {}, "contracts": {}, "cells": []} | text
    grown = grow(text)
    victims = {name: _victim(name, values) for name, values in grown.beside(tables, "victims").items()}
    contracts = {name: Contract.from_dict(values) for name, values in grown.beside(tables, "contracts").items()}
    priors = {name: _prior(name, values) for name, values in text.get("priors", {}).items()}
    known = _Known(victims, contracts, priors, text.get("seeds", [0]))
    cells = [cell for values in tables["cells"] for cell in _cells(values, known)]
    cells += [replace(cell, matrix=entry) for values, entry in grown.cells for cell in _cells(values, known)]
    if text.get("figures", "") not in ("", *FIGURES):
        raise ValueError(f"no figures {text['figures']!r}; there is {', '.join(FIGURES)}")
    names = [cell.folder for cell in cells]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two cells are called {min(twice)}: give one of them another name")
    return Plan(
        title=text["title"],
        figures=text.get("figures", ""),
        victims=tuple(victims.values()),
        cells=tuple(cells),
        attributes=read_experiments(text.get("attributes", []), text.get("adversaries", {})),
    )


def _victim(name: str, values: dict[str, Any]) -> Victim:
    _only(values, f"victim {name}", {"architecture", "split", "seed", "kind", "joint", "max_steps", "defence"})
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
    _split(values["split"])
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


def _split(name: str) -> Split | None:
    """The split, or None where its data is not on this machine; `ValueError` for a name that no split has."""
    try:
        return split_named(name)
    except ImagesUnavailableError:
        return None


def _prior(name: str, values: dict[str, Any]) -> PlannedPrior:
    _only(values, f"prior {name}", {"kind", "seed", "parameters"})
    return PlannedPrior(name, **values)


@dataclass(frozen=True)
class _Known:
    """What cells may name, and the seeds of those that name none."""

    victims: dict[str, Victim]
    contracts: dict[str, Contract]
    priors: dict[str, PlannedPrior]
    seeds: list[int]


_CELL = frozenset(
    {"name", "victim", "method", "contracts", "targets", "public", "prior", "seeds", "budget", "parameters", "given"}
)


def _cells(values: dict[str, Any], known: _Known) -> Iterator[PlannedCell]:
    _only(values, "a cell", _CELL)
    victims, contracts = known.victims, known.contracts
    method, label = values["method"], values.get("name", values["method"])
    if method not in METHODS:
        raise ValueError(f"cell {label}: no method {method!r}; there is {', '.join(METHODS)}")
    given, takes = "given" in values, "given" in {field.name for field in fields(METHODS[method])}
    if given and not takes:
        raise ValueError(f"cell {label}: {method} takes nothing given")
    if takes and not given and not getattr(METHODS[method], "given_optional", False):
        raise ValueError(f"cell {label}: {method} needs a [cells.given] table")
    if isinstance(values["victim"], list):
        for name in values["victim"]:  # the same cell for each, told apart by the name
            yield from _cells(values | {"victim": name, "name": f"{label}@{name}"}, known)
        return
    if values["victim"] not in victims:
        raise ValueError(f"cell {label}: no victim {values['victim']!r}; there is {', '.join(victims)}")
    if values.get("public", False) not in _PUBLIC:
        raise ValueError(
            f"cell {label}: public = {values['public']!r} must be true, false, {' or '.join(map(str, _PUBLIC[2:]))}"
        )
    if values.get("prior") not in (None, *known.priors):
        raise ValueError(f"cell {label}: no prior {values['prior']!r}; there is {', '.join(known.priors) or 'none'}")
    prior = known.priors[values["prior"]] if "prior" in values else None
    victim, seeds = victims[values["victim"]], values.get("seeds", known.seeds)
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"cell {label}: seeds = {seeds!r} must be a list of whole numbers, for example [0, 1]")
    handed = check_given(values["given"], _split(victim.split), list(contracts)) if given else {}
    asked = {name: contracts[name] for name in handed.get("answers", [])}
    if victim.kind == "features" and len({frozenset(contract.features) for contract in asked.values()}) > 1:
        raise ValueError(f"cell {label}: the contracts in answers release different features: make a cell for each")
    for contract in values["contracts"]:
        if contract not in contracts:
            raise ValueError(f"cell {label}: no contract {contract!r}; there is {', '.join(contracts)}")
        for seed in seeds:
            cell = PlannedCell(
                name=f"{label}/{contract}",
                victim=victim,
                method=method,
                contract_name=contract,
                contract=replace(contracts[contract], budget=values.get("budget", contracts[contract].budget)),
                seed=seed,
                targets=values.get("targets", "all"),
                public=cast(Public, values.get("public", False)),
                parameters=values.get("parameters", {}),
                given=handed,
                asked=asked,
                prior=prior,
            )
            handed_over = Path("answers.npz" if asked else "") if given else None
            make_method(method, cell.settings(), Path(), handed_over, Path() if prior else None)
            yield cell


def _only(values: dict[str, Any], what: str, known: Collection[str]) -> None:
    if unknown := sorted(set(values).difference(known)):
        raise ValueError(f"{what} has no field {unknown[0]!r}; there is {', '.join(sorted(known))}")
