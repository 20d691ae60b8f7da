"""Descriptions of features: through JSON and the wire unchanged, and refused when they contradict themselves."""

from __future__ import annotations

import json

import pytest

from protos.mirage.v1 import oracle_pb2
from protos.schema import Feature

NOMINAL = Feature("region", ("north", "south"), 0, 1, (0.25, 0.75))
NUMERIC = Feature("age", (), 18.5, 90, (0.5, 0.5), (18.5, 40, 90))


@pytest.mark.parametrize("feature", [NOMINAL, NUMERIC, Feature("bare")])
def test_there_and_back(feature: Feature) -> None:
    assert Feature.from_dict(json.loads(json.dumps(feature.as_dict()))) == feature
    sent = oracle_pb2.Feature.FromString(feature.message().SerializeToString())
    assert Feature.from_message(sent) == feature
    assert feature.nominal is bool(feature.levels)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"levels": ("a", "a"), "high": 1}, "names a level twice"),
        ({"levels": ("a", "b"), "high": 2}, "low must be 0, high one less"),
        ({"low": 1, "high": 0}, "no legal value"),
        ({"high": float("nan")}, "no legal value"),
        ({"levels": ("a", "b"), "high": 1, "prior": (0.5, 0.4)}, "2 shares that sum to one"),
        ({"levels": ("a", "b"), "high": 1, "prior": (1.5, -0.5)}, "2 shares that sum to one"),
        ({"levels": ("a", "b"), "high": 1, "prior": (1.0,)}, "2 shares that sum to one"),
        ({"high": 1, "edges": (0, 1), "prior": (0.5, 0.5)}, "1 shares that sum to one"),
        ({"colour": "red"}, "no description of a feature"),
    ],
)
def test_contradictions(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Feature.from_dict({"name": "x", **values})
