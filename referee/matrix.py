"""Defences x strengths x attacks x contracts x seeds: a short text that stands for many victims and cells.

[defences.none]                    may be left out: the undefended model is always there
[defences.NAME]                    kind ("training": a victim of its own; "response": in the contract of the key;
                                   "contract": fields of the contract), strengths = [{ ... }, ...]; optional: method
                                   (the defence that is applied, by default NAME)
[[matrix]]                         task (how figures call it), split, architecture; optional: targets, max_steps,
                                   defences (names, by default all)
[[matrix.attacks]]                 name, access ("weights", "scores" or "label": the contract without a defence);
                                   optional: method (by default name), only (names of defences, beside none), own (the
                                   share recognised in the attack's own campaign, to which the undefended one is
                                   compared), and what a cell has: prior, public, parameters, budget, ...

Which pairs are cells: every attack on the undefended victim and on every victim defended in training. A response
defence stands on the undefended victim, between it and attacks on scores or labels: whoever has the weights has none. A
field of the contract takes the place of that of attacks on scores; attacks on labels, which already have the least,
meet only those fields that limit rows.

Cells come seed by seed, so that a campaign that is stopped has whole seeds. Everything is handed on in the form of the
campaign's own tables, whose checks therefore hold for it too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attacker.attacks import METHODS
from attacker.needs import Needs
from defenses.response import make_response
from referee.victim import check_fields

__all__ = ["NONE", "Entry", "Grown", "grow"]

NONE = "none"
KINDS = ("training", "response", "contract")
_GIVES = {  # what methods can need, by access
    "weights": tuple(Needs),
    "scores": (Needs.ALL_SCORES, Needs.SCORES, Needs.LABELS),
    "label": (Needs.LABELS,),
}
_LONGEST = 64  # characters of a model's name


@dataclass(frozen=True)
class Entry:
    """Where a cell stands. `defence` and `strength` are words ("mid", "beta=0.01"); `kind` is "none" without one, and
    `applied` what is applied with which `values`. `access` is that of the attack where nothing is defended; `own` the
    share recognised in the attack's own campaign.
    """

    task: str
    defence: str
    kind: str
    strength: str
    attack: str
    access: str
    applied: str = ""
    values: tuple[tuple[str, Any], ...] = ()
    own: float | None = None

    @property
    def place(self) -> dict[str, str]:
        """What a table of results says of it."""
        return {name: getattr(self, name) for name in ("task", "defence", "strength", "attack")}


@dataclass
class Grown:
    """Tables as the campaign's file could have had them: victims and contracts by name, cells with their places."""

    victims: dict[str, dict[str, Any]] = field(default_factory=dict)
    contracts: dict[str, dict[str, Any]] = field(default_factory=dict)
    cells: list[tuple[dict[str, Any], Entry]] = field(default_factory=list)

    def beside(self, tables: Mapping[str, Any], what: str) -> dict[str, Any]:
        """The victims or contracts of a campaign's file (`tables`), and these."""
        mine: dict[str, dict[str, Any]] = getattr(self, what)
        if clash := sorted(name for name in mine if tables[what].get(name, mine[name]) != mine[name]):
            raise ValueError(f"{what}: the matrix makes a {clash[0]!r} of its own: give yours another name")
        return {**tables[what], **mine}


@dataclass(frozen=True)
class _Defence:
    """One defence with one strength."""

    name: str
    kind: str
    applied: str
    values: tuple[tuple[str, Any], ...]

    @property
    def strength(self) -> str:
        return ",".join(f"{name}={_number(value)}" for name, value in self.values)

    @property
    def place(self) -> str:
        """Name and strength in letters that the name of a model may have."""
        words = "-".join(f"{name}{_number(value)}" for name, value in self.values)
        return "-".join(part for part in (self.name, re.sub("[^A-Za-z0-9_.-]", "_", words)) if part)


_UNDEFENDED = _Defence(NONE, NONE, "", ())


def grow(text: Mapping[str, Any]) -> Grown:
    """The victims, contracts and cells that `defences` and `matrix` of a campaign stand for; `ValueError` for the first
    thing that is amiss.
    """
    defences = {NONE: [_UNDEFENDED]}
    for name, table in text.get("defences", {}).items():
        if name != NONE:
            defences[name] = _defence(name, table)
        elif table:
            raise ValueError(f"defence {NONE}: it is the model as it is and has no fields")
    tasks = text.get("matrix", [])
    names = [table["task"] for table in tasks]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two tasks of the matrix are called {min(twice)}: give one of them another name")
    for table in tasks:
        _check_task(table, defences)
    grown = Grown()
    for seed in text.get("seeds", [0]):
        for table in tasks:
            for attack in table["attacks"]:
                _attack(grown, table, attack, defences, seed)
    return grown


def _defence(name: str, table: Mapping[str, Any]) -> list[_Defence]:
    check_fields(table, f"defence {name}", {"kind", "strengths", "method"})
    kind, strengths, applied = table["kind"], table["strengths"], table.get("method", name)
    if kind not in KINDS:
        raise ValueError(f"defence {name}: kind must be one of {', '.join(KINDS)}")
    if not strengths or not all(isinstance(values, dict) for values in strengths):
        raise ValueError(f"defence {name}: strengths must be a list of one or more tables of parameters")
    found = [_Defence(name, kind, applied, tuple(values.items())) for values in strengths]
    if len({one.strength for one in found}) < len(found):
        raise ValueError(f"defence {name}: two strengths are the same")
    if kind == "response":
        for one in found:
            try:
                make_response(applied, dict(one.values))
            except ValueError as error:
                raise ValueError(f"defence {name}: {error}") from error
    return found


def _check_task(table: Mapping[str, Any], defences: Mapping[str, list[_Defence]]) -> None:
    task = table["task"]
    known = {"task", "split", "architecture", "targets", "max_steps", "defences", "attacks"}
    check_fields(table, f"task {task} of the matrix", known)
    _named(table.get("defences", []), f"task {task} of the matrix", defences)
    attacks = table.get("attacks", [])
    if not attacks:
        raise ValueError(f"task {task} of the matrix has no [[matrix.attacks]]")
    names = [attack["name"] for attack in attacks]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"task {task} of the matrix: two attacks are called {min(twice)}")
    for attack in attacks:
        label, method, access = attack["name"], attack.get("method", attack["name"]), attack["access"]
        if method not in METHODS:
            raise ValueError(f"attack {label}: no method {method!r}; there is {', '.join(METHODS)}")
        if access not in _GIVES:
            raise ValueError(f"attack {label}: access must be one of {', '.join(_GIVES)}")
        if METHODS[method].needs not in _GIVES[access]:
            raise ValueError(f"attack {label}: {method} needs {METHODS[method].needs}, and access is {access}")
        if taken := sorted({"victim", "contracts", "seeds"} & set(attack)):
            raise ValueError(f"attack {label}: {taken[0]} follows from the matrix: leave it out")
        _named(attack.get("only", []), f"attack {label}", defences)


def _attack(
    grown: Grown,
    table: Mapping[str, Any],
    attack: Mapping[str, Any],
    defences: Mapping[str, list[_Defence]],
    seed: int,
) -> None:
    """Add the cells of one attack on one task with one seed, and the victims and contracts that they name."""
    chosen = [name for name in defences if name == NONE or name in table.get("defences", defences)]
    chosen = [name for name in chosen if name == NONE or name in attack.get("only", chosen)]
    task, access = table["task"], attack["access"]
    rest = {key: value for key, value in attack.items() if key not in ("access", "only", "own")}
    for defence in (one for name in chosen for one in defences[name]):
        if (contract := _contract(defence, access)) is None:
            continue
        trained = defence if defence.kind == "training" else _UNDEFENDED
        victim = _victim_name(task, trained, seed)
        values = {key: table[key] for key in ("split", "architecture", "max_steps") if key in table}
        learned = {"defence": {"name": trained.applied, **dict(trained.values)}} if trained.kind != NONE else {}
        grown.victims[victim] = values | {"seed": seed} | learned
        grown.contracts[contract[0]] = contract[1]
        cell = {"method": attack["name"], **rest, "name": f"{attack['name']}@{victim}", "victim": victim}
        cell |= {"contracts": [contract[0]], "seeds": [seed]}
        if "targets" in table:
            cell.setdefault("targets", table["targets"])
        if rows := [number for number in (attack.get("budget"), contract[1].get("budget")) if number is not None]:
            cell["budget"] = min(rows)
        entry = Entry(
            task,
            defence.name,
            defence.kind,
            defence.strength,
            attack["name"],
            access,
            defence.applied if defence.kind != NONE else "",
            defence.values,
            attack.get("own"),
        )
        grown.cells.append((cell, entry))


def _contract(defence: _Defence, access: str) -> tuple[str, dict[str, Any]] | None:
    """The contract under which an attack meets the defence, with its name; None where it does not meet it."""
    if defence.kind in (NONE, "training"):
        return access, {"access": access}
    if access == "weights":
        return None
    if access == "label" and defence.kind == "contract" and not {"budget", "rate"}.issuperset(dict(defence.values)):
        return None
    name = f"{access}-{defence.place}"
    if defence.kind == "contract":
        return name, {"access": access} | dict(defence.values)
    return name, {"access": access, "defences": [[defence.applied, [list(pair) for pair in defence.values]]]}


def _victim_name(task: str, defence: _Defence, seed: int) -> str:
    name = f"{task}-{defence.place}-s{seed}"
    if len(name) > _LONGEST:
        name = f"{task}-{defence.name}-{hashlib.sha256(defence.place.encode()).hexdigest()[:8]}-s{seed}"
    return name


def _named(names: Any, what: str, defences: Mapping[str, Any]) -> None:
    for name in names:
        if name not in defences:
            raise ValueError(f"{what}: no defence {name!r}; there is {', '.join(defences)}")


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
