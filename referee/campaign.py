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
                                   for each key), keys (how many the attacker has; they take turns), repeats (how often
                                   it asks each row, to average), [cells.parameters], and [cells.given], what is handed
                                   over: for deblurring people (places, "10-29") and sigma (pixels); for inversion of
                                   somebody else's answers photos (how many of each kind) and answers (names of
                                   contracts under which they were asked)
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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

from attacker.attacks import METHODS
from attacker.run import make_method
from oracle_server.threat_model import Contract
from referee.attribute_plan import Experiment, read_experiments
from referee.figures import FIGURES
from referee.given import check_given
from referee.matrix import Entry, grow
from referee.priors import PlannedPrior
from referee.victim import Kind, Victim, check_fields, read_victim, split_at_hand

__all__ = ["CampaignError", "Kind", "Plan", "PlannedCell", "Public", "Victim", "read_plan"]

Public = Literal["developer", "developer+published"] | bool
_PUBLIC = (False, True, "developer", "developer+published")


class CampaignError(ValueError):
    """A campaign file that cannot be run; the sentence says where and what to write."""


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
    keys: int = 1
    repeats: int = 1
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
        data |= {name: number for name in ("keys", "repeats") if (number := getattr(self, name)) > 1}
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
    check_fields(
        text,
        "the campaign",
        {"title", "figures", "seeds", "victims", "priors", "contracts", "cells", "attributes", "adversaries"}
        | {"defences", "matrix"},
    )
    whole = not {"attributes", "matrix"} & set(text)
    tables: dict[str, Any] = text if whole else {"victims": {}, "contracts": {}, "cells": []} | text
    grown = grow(text)
    victims = {name: read_victim(name, values) for name, values in grown.beside(tables, "victims").items()}
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


def _prior(name: str, values: dict[str, Any]) -> PlannedPrior:
    check_fields(values, f"prior {name}", {"kind", "seed", "parameters"})
    return PlannedPrior(name, **values)


@dataclass(frozen=True)
class _Known:
    """What cells may name, and the seeds of those that name none."""

    victims: dict[str, Victim]
    contracts: dict[str, Contract]
    priors: dict[str, PlannedPrior]
    seeds: list[int]


_CELL = frozenset(
    {
        "name",
        "victim",
        "method",
        "contracts",
        "targets",
        "public",
        "prior",
        "seeds",
        "budget",
        "parameters",
        "given",
        "keys",
        "repeats",
    }
)


def _cells(values: dict[str, Any], known: _Known) -> Iterator[PlannedCell]:
    check_fields(values, "a cell", _CELL)
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
    handed = check_given(values["given"], split_at_hand(victim.split), list(contracts)) if given else {}
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
                keys=_count(values, "keys", label),
                repeats=_count(values, "repeats", label),
            )
            handed_over = Path("answers.npz" if asked else "") if given else None
            make_method(method, cell.settings(), Path(), handed_over, Path() if prior else None)
            yield cell


def _count(values: dict[str, Any], name: str, label: str) -> int:
    count = values.get(name, 1)
    if type(count) is not int or count < 1:
        raise ValueError(f"cell {label}: {name} = {count!r} must be a whole number above 0")
    return count
