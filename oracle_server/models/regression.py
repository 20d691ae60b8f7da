"""A linear regression from `regression.json`: rows (N, d) -> predictions (N, 1).

    {"format": "mirage regression 1", "features": [...], "response": {...}, "intercept": 152.1,
     "coefficients": {"bmi": [5.6], "sex": [0.0, -22.9]}, "error_std": 53.5, "rows": 442}

A numeric feature has one coefficient; a nominal one has one for each level, the first of them 0.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle_server.models.card import Card
from oracle_server.models.repository import Repository
from protos.schema import Feature

__all__ = ["FORMAT", "LinearRegression", "RegressionModel", "host_regression"]

FORMAT = "mirage regression 1"


@dataclass(frozen=True)
class LinearRegression:
    """Intercept plus a term for each feature.

    response      low and high are the smallest and largest prediction for a legal row
    coefficients  of each feature: (1,) for a numeric one, (L,) for a nominal one, whose first is 0
    error_std     standard deviation of the error on the training rows
    """

    features: tuple[Feature, ...]
    response: Feature
    intercept: float
    coefficients: tuple[tuple[float, ...], ...]
    error_std: float
    rows: int

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        if not names or len({*names, self.response.name}) <= len(names):
            raise ValueError("a regression needs features, and no two of its columns may have the same name")
        if len(self.coefficients) != len(self.features):
            raise ValueError(f"{len(self.coefficients)} coefficients are given for {len(self.features)} features")
        for feature, values in zip(self.features, self.coefficients, strict=True):
            if len(values) != max(1, len(feature.levels)):
                raise ValueError(f"the feature {feature.name!r:.60} needs {max(1, len(feature.levels))} coefficients")
            if feature.nominal and values[0] != 0:
                raise ValueError(f"the first level of {feature.name!r:.60} is the reference: its coefficient must be 0")
        numbers = [self.intercept, self.error_std, *(value for values in self.coefficients for value in values)]
        if not all(map(math.isfinite, numbers)) or self.error_std < 0:
            raise ValueError("a number of the regression is not finite, or the standard deviation is negative")

    @classmethod
    def fit(
        cls,
        features: tuple[Feature, ...],
        response: Feature,
        X: NDArray[np.float32],  # noqa: N803
        y: NDArray[Any],
    ) -> LinearRegression:
        """Least squares on rows X (N, d) and values y (N,); levels that do not occur get the least-norm coefficient."""
        columns = [np.ones((len(X), 1))]
        for j, feature in enumerate(features):
            value = X[:, j, None].astype(np.float64)
            columns.append(value == np.arange(1, len(feature.levels)) if feature.nominal else value)
        design = np.concatenate(columns, axis=1, dtype=np.float64)
        solution = np.linalg.lstsq(design, np.asarray(y, dtype=np.float64), rcond=None)[0]
        parts = np.split(solution[1:], np.cumsum([column.shape[1] for column in columns[1:]])[:-1])
        coefficients = tuple(
            (0.0, *part.tolist()) if feature.nominal else tuple(part.tolist())
            for feature, part in zip(features, parts, strict=True)
        )
        error = float(np.std(y - design @ solution))
        made = cls(features, response, float(solution[0]), coefficients, error, len(X))
        low, high = made.bounds()
        return replace(made, response=replace(response, low=low, high=high))

    @classmethod
    def from_json(cls, data: bytes) -> LinearRegression:
        """Read a regression; `ValueError` with one sentence for anything else."""
        try:
            values = json.loads(data)
            if values["format"] != FORMAT:
                raise ValueError(f'the format is not "{FORMAT}"')
            features = tuple(Feature.from_dict(feature) for feature in values["features"])
            coefficients = values["coefficients"]
            return cls(
                features,
                Feature.from_dict(values["response"]),
                float(values["intercept"]),
                tuple(tuple(float(number) for number in coefficients[feature.name]) for feature in features),
                float(values["error_std"]),
                int(values["rows"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"this is no regression file: {error}") from error

    def to_json(self) -> bytes:
        """The inverse of `from_json`."""
        values = {
            "format": FORMAT,
            "features": [feature.as_dict() for feature in self.features],
            "response": self.response.as_dict(),
            "intercept": self.intercept,
            "coefficients": {f.name: c for f, c in zip(self.features, self.coefficients, strict=True)},
            "error_std": self.error_std,
            "rows": self.rows,
        }
        return json.dumps(values, allow_nan=False).encode()

    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest prediction for a legal row."""
        ends = [
            values if feature.nominal else (values[0] * feature.low, values[0] * feature.high)
            for feature, values in zip(self.features, self.coefficients, strict=True)
        ]
        return self.intercept + math.fsum(map(min, ends)), self.intercept + math.fsum(map(max, ends))

    def predict(self, X: NDArray[Any]) -> NDArray[np.float64]:  # noqa: N803
        """Predictions (N,) for legal rows (N, d)."""
        X = np.asarray(X, dtype=np.float64)  # noqa: N806
        out = np.full(len(X), self.intercept)
        for j, (feature, values) in enumerate(zip(self.features, self.coefficients, strict=True)):
            out += np.array(values)[X[:, j].astype(np.intp)] if feature.nominal else values[0] * X[:, j]
        return out


class RegressionModel:
    """A regression as the scheduler wants a model: what it calls logits are the predictions."""

    def __init__(self, path: Path, card: Card, batch: int) -> None:
        self.card = card
        self.batch = batch
        self._regression = LinearRegression.from_json(path.read_bytes())

    def logits(self, requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Predictions (N, 1) float32 of each request, in order."""
        out = self._regression.predict(np.concatenate(requests)).astype(np.float32)[:, None]
        return np.split(out, np.cumsum([len(request) for request in requests])[:-1])

    def warm_up(self) -> None:
        """Nothing to prepare: the coefficients are in memory."""


def host_regression(
    regression: LinearRegression, repository: Repository, name: str, version: str = "1", *, description: str = ""
) -> Card:
    """Put a regression into the repository and return its card; raises as `host_tree` does."""
    data = regression.to_json()
    card = Card(
        name=name,
        version=version,
        input_shape=(len(regression.features),),
        low=min(feature.low for feature in regression.features),
        high=max(feature.high for feature in regression.features),
        classes=1,
        parameters=1 + sum(map(len, regression.coefficients)),
        archive_bytes=len(data),
        archive_sha256=hashlib.sha256(data).hexdigest(),
        torch_version="",
        kind="regression",
        deterministic=True,
        description=description or f"linear regression of {regression.response.name}, {regression.rows:,} rows",
        features=regression.features,
        response=regression.response,
        error_std=regression.error_std,
    )
    repository.add(data, card)
    return card
