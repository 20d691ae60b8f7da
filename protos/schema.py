"""The published schema of a model: what each column of a table means and how often each of its values occurs, and what
each output of a feature model is called.

A row of a table is a float32 vector (d,), one entry for each feature: the code 0, 1, ... of a nominal feature's level,
or the value of a numeric one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from protos.mirage.v1 import oracle_pb2

__all__ = ["Feature", "Output"]


@dataclass(frozen=True)
class Feature:
    """One column: a feature of the model, or its response.

    levels     the names of a nominal feature's values, in the order of their codes; empty for a numeric one
    low, high  the smallest and largest legal value; 0 and L - 1 for L levels
    prior      (L,) or (B,) share of the training rows with each level, or in each bucket of values: the marginal prior
    edges      (B + 1,) bounds of a numeric feature's buckets, the last one closed; empty for a nominal feature

    Raises `ValueError` with one sentence for values that do not fit together.
    """

    name: str
    levels: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    prior: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.levels)) < len(self.levels):
            raise ValueError(f"feature {self.name!r} names a level twice")
        if self.levels and (self.low, self.high) != (0, len(self.levels) - 1):
            raise ValueError(f"feature {self.name!r} has {len(self.levels)} levels: low must be 0, high one less")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"feature {self.name!r} has no legal value in [{self.low:g}, {self.high:g}]")
        wanted = len(self.levels) if self.levels else max(0, len(self.edges) - 1)
        if self.prior and (
            len(self.prior) != wanted
            or min(self.prior) < 0
            or not math.isclose(math.fsum(self.prior), 1.0, abs_tol=1e-6)
        ):
            raise ValueError(f"feature {self.name!r} needs a prior of {wanted} shares that sum to one")

    @property
    def nominal(self) -> bool:
        return bool(self.levels)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Feature:
        """The inverse of `as_dict`; `ValueError` for anything else."""
        try:
            plain = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
            return cls(**plain)  # type: ignore[arg-type]
        except (AttributeError, TypeError) as error:
            raise ValueError(f"no description of a feature: {error}") from error

    def message(self) -> oracle_pb2.Feature:
        return oracle_pb2.Feature(**self.as_dict())

    @classmethod
    def from_message(cls, message: oracle_pb2.Feature) -> Feature:
        return cls(
            message.name,
            tuple(message.levels),
            message.low,
            message.high,
            tuple(message.prior),
            tuple(message.edges),
        )


@dataclass(frozen=True)
class Output:
    """One number of a feature model's answer, in [0, 1] by definition.

    group  outputs are released by group: a contract names groups

    Raises `ValueError` when one of the names is empty.
    """

    name: str
    group: str

    def __post_init__(self) -> None:
        if not (self.name and self.group):
            raise ValueError(f"an output needs a name and a group, not {self.name!r} and {self.group!r}")

    def message(self) -> oracle_pb2.Output:
        return oracle_pb2.Output(name=self.name, group=self.group)

    @classmethod
    def from_message(cls, message: oracle_pb2.Output) -> Output:
        return cls(message.name, message.group)
