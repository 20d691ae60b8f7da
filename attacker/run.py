"""One run: a method, a key, targets, a seed; into a folder that can be resumed and ends with one result file."""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attacker.attacks import METHODS
from attacker.needs import Needs, refuse
from attacker.oracle import BudgetSpent, Oracle, OracleError
from attacker.snapshot import Snapshot, rung_above

__all__ = ["RunRefused", "make_method", "run"]

_APART = 1.5  # snapshots whose marks are this factor apart are kept, between the rungs of the ladder too


class RunRefused(OracleError):
    """The key's contract gives less than the method needs; nothing was asked."""


def make_method(name: str, settings: Sequence[str], public: Path | None) -> Any:
    """The method `name` with `settings` of the form parameter=value; `ValueError` names what there is."""
    if name not in METHODS:
        raise ValueError(f"no method {name!r}; there is {', '.join(METHODS)} (attacker list)")
    method = METHODS[name]
    known = {field.name: field for field in fields(method) if field.name != "public"}
    values: dict[str, Any] = {}
    for setting in settings:
        parameter, equals, text = setting.partition("=")
        if not equals or parameter not in known:
            raise ValueError(f"--set {setting}: {name} has the parameters {', '.join(known)}; write parameter=value")
        try:
            values[parameter] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[parameter] = text
        default = known[parameter].default
        if isinstance(default, float) and isinstance(values[parameter], int):
            values[parameter] = float(values[parameter])
        if default is not None and not isinstance(values[parameter], type(default)):
            raise ValueError(f"--set {setting}: {parameter} is a {type(default).__name__}, for example {default!r}")
    if any(field.name == "public" for field in fields(method)):
        values["public"] = public
    return method(**values)


def run(
    oracle: Oracle,
    name: str,
    method: Any,
    targets: Sequence[int],
    seed: int,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    on_snapshot: Callable[[Snapshot], None] = lambda snapshot: None,
) -> dict[str, Any]:
    """Run `method` against `oracle` and write `reconstructions.npz` and `run.json` into `out`; returns what the
    latter says.

    reconstructions.npz  images (M, T, *input_shape) float32, marks (M,), targets (T,), extra_<name> of the last one
    run.json             method, parameters, contract, rows by own count, how it ended

    A folder that holds the finished result of the same run is left as it is. One that holds an unfinished one is
    resumed.
    """
    wrong = [target for target in targets if not 0 <= target < oracle.classes]
    if wrong or not targets or len(set(targets)) < len(targets):
        raise ValueError(f"targets must be different classes from 0 to {oracle.classes - 1}; got {list(targets)}")
    sentence = refuse(method.needs, oracle.contract, oracle.classes, method=name)
    if sentence is not None:
        raise RunRefused(sentence)
    parameters = {field.name: _plain(getattr(method, field.name)) for field in fields(method)}
    identity = {
        "method": name,
        "parameters": parameters,
        "targets": list(targets),
        "seed": seed,
        "model": oracle.model_id,
        "archive_sha256": oracle.archive_sha256,
        "contract": oracle.contract.as_dict(),
    }
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    oracle.begin(out, identity, device)
    finished = out / "run.json"
    if finished.exists():
        result: dict[str, Any] = json.loads(finished.read_text())
        return result
    kept: list[Snapshot] = []
    ended, latest = "done", None
    try:
        for snapshot in method.run(oracle, list(targets), seed):
            on_snapshot(snapshot)
            if latest is not None and _far_apart(latest.mark, snapshot.mark):
                kept.append(latest)  # the state of affairs at the marks in between
            latest = snapshot
    except BudgetSpent as error:
        ended = f"budget: {error}"
    if latest is None:
        raise OracleError(f"the run ended before its first reconstruction ({ended}): ask for a larger budget")
    kept.append(latest)
    arrays: dict[str, Any] = {
        "images": np.stack([snapshot.images for snapshot in kept]),
        "marks": np.array([snapshot.mark for snapshot in kept], dtype=np.float64),
        "targets": np.array(targets, dtype=np.int64),
    }
    arrays |= {f"extra_{key}": value for key, value in latest.extras.items()}
    part = out / "reconstructions.part.npz"
    np.savez(part, **arrays)
    part.replace(out / "reconstructions.npz")
    result = identity | {
        "rows": oracle.spent,
        "rows_shared": oracle.shared,
        "rows_on_target": {str(target): oracle.spent_on[target] for target in targets},
        "self_reported": method.needs is Needs.WEIGHTS,
        "ended": ended,
        "seconds": time.perf_counter() - started,
    }
    part = out / "run.json.part"
    part.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    part.replace(finished)
    return result


def _far_apart(mark: float, following: float) -> bool:
    """Whether the snapshot at `mark` is kept when the next comes: a rung of the ladder, or the factor, lies between."""
    return following >= min(rung_above(mark), _APART * mark)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) or hasattr(value, "__dataclass_fields__") else value
