"""One run: a method, a key, targets, a seed; into a folder that can be resumed and ends with one result file."""

from __future__ import annotations

import hashlib
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
from attacker.priors.prior import sha256_of_prior
from attacker.public import sha256_of_public
from attacker.settings import parse_settings
from attacker.snapshot import Snapshot, rung_above

__all__ = ["RunRefused", "make_method", "run", "target_count"]

_APART = 1.5  # snapshots whose marks are this factor apart are kept, between the rungs of the ladder too


class RunRefused(OracleError):
    """The key's contract gives less than the method needs; nothing was asked."""


def make_method(
    name: str, settings: Sequence[str], public: Path | None, given: Path | None = None, prior: Path | None = None
) -> Any:
    """The method `name` with `settings` of the form parameter=value, a folder of public data, a file with what is known
    of the targets, and an image prior (its folder); `ValueError` names what there is.
    """
    if name not in METHODS:
        raise ValueError(f"no method {name!r}; there is {', '.join(METHODS)} (attacker list)")
    method = METHODS[name]
    names = {field.name for field in fields(method)}
    handed = {"public": public, "given": given, "prior": prior}
    files = {name: path for name, path in handed.items() if name in names}
    if given is not None and "given" not in files:
        raise ValueError(f"{name} uses nothing that is known of its targets: leave --given out")
    if prior is not None and "prior" not in files:
        raise ValueError(f"{name} uses no image prior: leave --prior out")
    return method(**parse_settings(method, name, settings, without=files), **files)


def target_count(oracle: Oracle, method: Any) -> int:
    """How many targets there are to choose from: the entries of what is given, where that is so, or the model's
    classes.
    """
    entries: int | None = method.entries() if hasattr(method, "entries") else None
    return oracle.classes if entries is None else entries


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
    models = getattr(method, "models", ("neural",))
    if oracle.kind not in models:
        raise ValueError(f"{name} attacks a {' or '.join(models)} model; {oracle.model_id} is a {oracle.kind} model")
    most = target_count(oracle, method)
    if not targets or len(set(targets)) < len(targets) or not 0 <= min(targets) <= max(targets) < most:
        what = "classes" if getattr(method, "given", None) is None else "entries of the given file"
        raise ValueError(f"targets must be different {what} from 0 to {most - 1}; got {str(list(targets))[:100]}")
    sentence = refuse(method.needs, oracle.contract, oracle.classes, method=name)
    if sentence is not None:
        raise RunRefused(sentence)
    given, public, prior = (getattr(method, name, None) for name in ("given", "public", "prior"))
    parameters = {field.name: _plain(getattr(method, field.name)) for field in fields(method)}
    identity = {
        "method": name,
        "parameters": parameters,
        "targets": list(targets),
        "seed": seed,
        "given_sha256": hashlib.sha256(given.read_bytes()).hexdigest() if given else None,
        "public_sha256": sha256_of_public(public) if public else None,
        "prior_sha256": sha256_of_prior(prior) if prior else None,
        "model": oracle.model_id,
        "archive_sha256": oracle.archive_sha256,
        "contract": oracle.contract.as_dict(),
    }
    asking = {"keys": oracle.keys, "repeats": oracle.repeats}
    identity |= {name: number for name, number in asking.items() if number > 1}
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
    except ValueError:  # bad input, seen before anything was asked: the corrected command may use the same folder
        oracle.forget()
        raise
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
