"""What may leave the server: the contract of a key, the policy table, and `release`. THE AUDITED FILE.

Everything that a client learns from a model passes through `release` (or is the model card, or, under `weights`, the
archive itself). This file needs only the standard library and numpy, so that it can be read and tested alone.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

__all__ = [
    "POLICY", "VERDICTS", "Access", "Caller", "Contract", "Defend", "Released", "Rule",
    "check_policy", "release", "release_values",
]  # fmt: skip

Defend = Callable[[np.ndarray], np.ndarray]  # scores (N, C) -> scores (N, C), rows still on the simplex
VERDICTS = ("log", "throttle", "suspend")  # what follows for a key whose queries were flagged


class Access(enum.StrEnum):
    """What kind of thing a key gets: the model itself, its scores, or its decisions."""

    WEIGHTS = "weights"
    SCORES = "scores"
    LABEL = "label"


class Caller(enum.StrEnum):
    """Who may call an RPC: anybody, the holder of a valid key, or the operator through the Unix socket."""

    ANYBODY = "anybody"
    KEY = "key"
    OPERATOR = "operator"


@dataclass(frozen=True)
class Rule:
    """Who may call one RPC and, for holders of keys, under which access."""

    caller: Caller
    access: frozenset[Access] = frozenset(Access)


POLICY: Mapping[str, Rule] = {
    f"/{service}/{call}": rule
    for service, calls, rule in (
        ("mirage.v1.Oracle", "Describe Predict Usage", Rule(Caller.KEY)),
        ("mirage.v1.Oracle", "Download", Rule(Caller.KEY, frozenset({Access.WEIGHTS}))),
        ("mirage.v1.Admin", "CreateKey RotateKey RevokeKey ReinstateKey ListKeys", Rule(Caller.OPERATOR)),
        ("mirage.v1.Admin", "SetBudget Audit", Rule(Caller.OPERATOR)),
        ("inference.GRPCInferenceService", "ModelReady ModelMetadata ModelInfer", Rule(Caller.KEY)),
        ("inference.GRPCInferenceService", "ServerLive ServerReady ServerMetadata", Rule(Caller.ANYBODY)),
        ("grpc.health.v1.Health", "Check Watch List", Rule(Caller.ANYBODY)),
        ("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo", Rule(Caller.ANYBODY)),
    )
    for call in calls.split()
}


def check_policy(rpcs: Iterable[str], policy: Mapping[str, Rule] = POLICY) -> None:
    """Refuse to start with an RPC that nobody has decided on: `LookupError` names every one without a row."""
    missing = sorted(set(rpcs) - set(policy))
    if missing:
        raise LookupError(f"no row in the policy table for {', '.join(missing)}: add one to POLICY")


@dataclass(frozen=True)
class Contract:
    """What one API key may get; checked when made, printed in every result, and hashed into it.

    access      weights (download, and full scores), scores, or label
    top_k       scores only: the k largest, as (index, value) pairs
    round_to    any number released: to the nearest multiple, 1e-15 <= r <= 1
    features    feature models: the groups of outputs that are released
    defences    ((name, ((parameter, value), ...)), ...) applied to the scores before rounding and truncation
    budget      rows that may be answered; None = unlimited
    rate        rows a second, retries included; None = unlimited
    expires     Unix time in seconds after which the key is refused; None = never
    detections  ((name, verdict, ((parameter, value), ...)), ...) that look at the key's queries, not at its answers
    """

    access: Access
    top_k: int | None = None
    round_to: float | None = None
    features: tuple[str, ...] = ()
    defences: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()
    budget: int | None = None
    rate: float | None = None
    expires: float | None = None
    detections: tuple[tuple[str, str, tuple[tuple[str, float], ...]], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.access, Access):
            raise ValueError(f"access={self.access!r} must be one of {[a.value for a in Access]}")
        if self.access is not Access.SCORES:
            label = ("defences", "detections") if self.access is Access.LABEL else ()
            for name in ("top_k", "round_to", "features", "defences", "detections"):
                if getattr(self, name) and name not in label:
                    raise ValueError(f"{name} has no meaning with access={self.access}: leave it out or use scores")
        for name, verdict, _ in self.detections:
            if verdict not in VERDICTS:
                raise ValueError(f"{name}: verdict={verdict!r} must be one of {list(VERDICTS)}")
        for name, whole in (("top_k", self.top_k), ("budget", self.budget)):
            if whole is not None and not (isinstance(whole, int) and whole < 2**63):
                raise ValueError(f"{name}={whole} must be a whole number below 2**63")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1")
        if self.round_to is not None and not 1e-15 <= self.round_to <= 1:
            raise ValueError(f"round_to={self.round_to} must lie in [1e-15, 1]")
        if self.budget is not None and self.budget < 0:
            raise ValueError(f"budget={self.budget} must not be negative")
        if self.rate is not None and not (self.rate > 0 and math.isfinite(self.rate)):
            raise ValueError(f"rate={self.rate} must be positive and finite")
        if self.expires is not None and not math.isfinite(self.expires):
            raise ValueError(f"expires={self.expires} must be a finite Unix time")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON: every field, but `detections` only where there are some, as older results do."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "detections" or self.detections}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Contract:
        """The inverse of `as_dict`, from JSON; an unknown field is an error, since it might have been a restriction."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"a contract has no field {', '.join(sorted(unknown))}")
        known = {**values, "access": Access(values["access"])}
        known["features"] = tuple(known.get("features", ()))
        known["defences"] = tuple((n, tuple((k, float(v)) for k, v in ps)) for n, ps in known.get("defences", ()))
        detections = known.get("detections", ())
        known["detections"] = tuple((n, verdict, tuple((k, float(v)) for k, v in ps)) for n, verdict, ps in detections)
        return cls(**known)

    @property
    def digest(self) -> str:
        """SHA-256 of the contract as canonical JSON, in hex."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Released:
    """What leaves, exactly one of: `scores` (N, C); `indices` and `values` (N, k); `labels` (N,); `numbers`."""

    scores: np.ndarray | None = None
    indices: np.ndarray | None = None
    values: np.ndarray | None = None
    labels: np.ndarray | None = None
    numbers: np.ndarray | None = None


def release(logits: np.ndarray, contract: Contract, defend: Defend | None = None) -> Released:
    """Turn the model's logits (N, C) into what the contract lets out.

    Softmax in float64, the contract's response defences (`defend`), rounding, then truncation. Ties are broken by class
    index, in labels and in top-k alike. No label stands beside scores. A contract that names defences is refused with
    `ValueError` when `defend` is missing, so that a forgotten defence cannot fail open.
    """
    if contract.defences and defend is None:
        raise ValueError("the contract names defences and none was given")
    if contract.features:
        raise ValueError("the contract names groups of features, which a classifier does not have")
    z = np.asarray(logits, dtype=np.float64)
    scores = np.exp(z - z.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    if defend is not None and contract.defences:
        scores = defend(scores)
    if contract.access is Access.LABEL:
        return Released(labels=scores.argmax(axis=1))  # the first of equals
    if contract.round_to is not None:
        scores = np.rint(scores / contract.round_to) * contract.round_to
    if contract.top_k is None or contract.top_k >= scores.shape[1]:
        return Released(scores=scores)
    order = np.argsort(-scores, axis=1, kind="stable")[:, : contract.top_k]  # stable: ties by class index
    return Released(indices=order, values=np.take_along_axis(scores, order, axis=1))


def release_values(predictions: np.ndarray, contract: Contract, groups: tuple[str, ...] = ()) -> Released:
    """Turn predictions into what the contract lets out, float64, rounded: a regression's (N, 1) into (N,); a feature
    model's (N, D), whose columns belong to `groups`, into those of the contract's groups, or all. A number has no
    label, rank or place on the simplex: `ValueError` for a contract that restricts one or names a missing group.
    """
    what = "a feature model" if groups else "a regression"
    if contract.access is Access.LABEL or contract.top_k is not None or contract.defences:
        raise ValueError(f"{what} releases numbers: use access weights or scores, without top_k and defences")
    if unknown := ", ".join(sorted(set(contract.features) - set(groups))):
        raise ValueError(f"{what} releases no group {unknown}; there is {', '.join(dict.fromkeys(groups)) or 'none'}")
    keep = [not contract.features or group in contract.features for group in groups] or [True]
    numbers = np.asarray(predictions, dtype=np.float64)[:, keep]  # as many columns as groups, or an IndexError
    if contract.round_to is not None:
        numbers = np.rint(numbers / contract.round_to) * contract.round_to
    return Released(numbers=numbers if groups else numbers[:, 0])
