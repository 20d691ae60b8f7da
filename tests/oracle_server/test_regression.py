"""A hosted linear regression: least squares, its file, its card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oracle_server.models.regression import LinearRegression, RegressionModel, host_regression
from oracle_server.models.repository import Repository
from protos.schema import Feature

SIZE = Feature("size", low=-2.0, high=3.0)
COLOUR = Feature("colour", ("red", "green", "blue"), 0.0, 2.0)
ANSWER = Feature("answer", low=0.0, high=1.0)


def rows(n: int = 200, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 2) and answers 5 - 2 size + (0, 10, -20)[colour]."""
    rng = np.random.default_rng(0)
    X = np.stack([rng.uniform(-2, 3, n), rng.integers(0, 3, n)], axis=1).astype(np.float32)  # noqa: N806
    return X, 5 - 2 * X[:, 0] + np.array([0, 10, -20])[X[:, 1].astype(int)] + noise * rng.normal(size=n)


@pytest.fixture(scope="module")
def regression() -> LinearRegression:
    return LinearRegression.fit((SIZE, COLOUR), ANSWER, *rows())


def test_exact_answers_are_recovered(regression: LinearRegression) -> None:
    X, y = rows()  # noqa: N806
    assert regression.intercept == pytest.approx(5)
    assert np.concatenate(regression.coefficients) == pytest.approx([-2, 0, 10, -20])
    assert regression.error_std == pytest.approx(0, abs=1e-6)
    assert regression.predict(X) == pytest.approx(y)


def test_the_error_is_that_of_the_training_rows() -> None:
    assert LinearRegression.fit((SIZE, COLOUR), ANSWER, *rows(5000, 3.0)).error_std == pytest.approx(3, rel=0.05)


def test_the_response_is_bounded_by_legal_rows(regression: LinearRegression) -> None:
    grid = np.array([[size, colour] for size in (-2, 0, 3) for colour in range(3)])
    predictions = regression.predict(grid)
    bounds = (regression.response.low, regression.response.high)
    assert bounds == pytest.approx((predictions.min(), predictions.max()))
    assert bounds == pytest.approx((5 - 6 - 20, 5 + 4 + 10))


def test_a_hosted_regression_answers_in_float32(regression: LinearRegression, tmp_path: Path) -> None:
    X, y = rows()  # noqa: N806
    repository = Repository(tmp_path)
    card = host_regression(regression, repository, "size")
    assert repository.card("size/1") == card
    assert (card.kind, card.classes, card.input_shape, card.parameters) == ("regression", 1, (2,), 5)
    assert (card.low, card.high, card.error_std) == (-2.0, 3.0, regression.error_std)
    model = RegressionModel(repository.archive(card), card, batch=8)
    model.warm_up()
    first, second = model.logits([X[:3], X[3:]])
    assert first.shape == (3, 1)
    assert first.dtype == np.float32
    assert np.concatenate([first, second])[:, 0] == pytest.approx(y, abs=1e-4)


def test_json_comes_back(regression: LinearRegression) -> None:
    assert LinearRegression.from_json(regression.to_json()) == regression


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"format": "mirage tree 1"}, "format"),
        ({"coefficients": {"size": [1.0]}}, "colour"),
        ({"coefficients": {"size": [1.0], "colour": [0.0, 1.0]}}, "'colour' needs 3"),
        ({"coefficients": {"size": [1.0, 2.0], "colour": [0.0, 1.0, 2.0]}}, "'size' needs 1"),
        ({"coefficients": {"size": [1.0], "colour": [1.0, 1.0, 2.0]}}, "reference"),
        ({"intercept": float("nan")}, "not finite"),
        ({"error_std": -1.0}, "negative"),
        ({"rows": "many"}, "many"),
        ({"features": 5}, "no regression file"),
        ({"response": {"size": 4}}, "no description"),
    ],
)
def test_a_wrong_file_is_refused(regression: LinearRegression, wrong: dict[str, Any], sentence: str) -> None:
    values = {**json.loads(regression.to_json()), **wrong}
    with pytest.raises(ValueError, match=sentence):
        LinearRegression.from_json(json.dumps(values).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"[" * 100_000])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no regression file"):
        LinearRegression.from_json(data)


def test_a_coefficient_too_many_is_refused(regression: LinearRegression) -> None:
    with pytest.raises(ValueError, match="3 coefficients are given for 2 features"):
        replace(regression, coefficients=(*regression.coefficients, (1.0,)))
