"""What inputs in a smaller dtype stand for: the same values, to the bit, and the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from oracle_server.errors import Refusal
from oracle_server.inputs import decode_inputs, to_float32
from oracle_server.models.card import Card
from protos.codec import encode
from protos.mirage.v1 import oracle_pb2 as pb
from protos.request import ReceivedRequest
from protos.schema import Feature
from tests.world import CARD, received

LEVELS = np.arange(256, dtype=np.uint8)
HALVES = np.arange(65536, dtype=np.uint16).view(np.float16)
RANGES = [(0, 1), (-1, 1), (0, 255), (-2.1, 2.6), (0.1, 0.7), (-3, 5), (1e-3, 1e3)]


def card(low: float = 0.0, high: float = 1.0) -> Card:
    return Card("m", "1", (3,), low, high, 4, 1, 1, "", "", accepted_dtypes=("uint8", "float16"))


def asked(rows: np.ndarray) -> ReceivedRequest:
    return received(pb.PredictRequest(request_id=bytes(16), inputs=encode(rows)))


def told(rows: np.ndarray, of: Card) -> str:
    """What the sender of rows is told: "taken", or why not."""
    try:
        decode_inputs(asked(rows), of, 9)
    except Refusal as refusal:
        return refusal.sentence
    return "taken"


def test_levels_of_photos_are_what_everybody_makes_of_them() -> None:
    """numpy's and torch's quotient, not the product with 1/255, which is another number for half of them."""
    values = to_float32(LEVELS, card())
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, LEVELS / np.float32(255))
    np.testing.assert_array_equal(values, torch.from_numpy(LEVELS).float().div(255).numpy())
    assert (values != LEVELS * np.float32(1 / 255)).sum() > 100


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_levels_go_from_one_end_of_the_range_to_the_other(low: float, high: float) -> None:
    values = to_float32(LEVELS, card(low, high))
    np.testing.assert_allclose(values, low + LEVELS / 255 * (high - low), atol=3e-7 * (high - low), rtol=2e-7)
    assert values[0] == np.float32(low)
    assert values.max() <= np.float32(high)
    assert (np.diff(values) > 0).all()
    request = asked(values[:255].reshape(-1, 3))
    assert len(decode_inputs(request, card(low, high), 99)) == 85, "as float32 they are legal"


def test_every_finite_float16_is_its_own_value() -> None:
    halves = HALVES[np.isfinite(HALVES)]
    found = to_float32(halves, card())
    np.testing.assert_array_equal(found.view(np.uint32), halves.astype(np.float32).view(np.uint32))


def test_rows_are_converted_in_place_or_left_alone() -> None:
    rows, out = np.float32([[0.1, 0.2, 0.3]]), np.zeros((4, 3), np.float32)
    assert to_float32(rows, card()) is rows
    for given_rows in (rows, rows.astype(np.float16), np.uint8([[1, 2, 3]])):
        assert to_float32(given_rows, card(), out=out[1:2]).base is out
        np.testing.assert_array_equal(out[1:2], to_float32(given_rows, card()))
        assert not out[[0, 2, 3]].any()


@given(hnp.arrays(np.float16, (2, 3), elements=st.floats(-1.5, 1.5, width=16) | st.sampled_from([np.nan, np.inf])))
@example(np.float16([[1, -0.0, 0], [0, 0, 0]]))
def test_float16_is_refused_exactly_where_its_float32_is(rows: np.ndarray) -> None:
    assert told(rows, card(-0.7, 0.7)) == told(rows.astype(np.float32), card(-0.7, 0.7))


SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0, 0.7, np.nextafter(np.float32(0.7), 1), 1e-45, -1e-45]


@pytest.mark.parametrize("low", [0.0, -0.7])
@given(hnp.arrays(np.float32, (2, 3), elements=st.floats(-1.5, 1.5, width=32) | st.sampled_from(np.float32(SPECIAL))))
def test_float32_is_taken_exactly_where_it_is_in_the_range(low: float, rows: np.ndarray) -> None:
    outside = "inputs lie in" if np.isfinite(rows).all() else "not finite"
    legal = ((rows >= np.float32(low)) & (rows <= np.float32(0.7))).all()
    assert ("taken" if legal else outside) in told(rows, card(low, 0.7))


def test_a_bound_that_no_float16_meets_is_not_rounded_to_one() -> None:
    """The float16 next to 0.7 lies above it."""
    rows = np.float16([[0.7, 0.5, 0.5]])
    with pytest.raises(Refusal, match=r"inputs lie in \[0.5, 0.700195"):
        decode_inputs(asked(rows), card(0, 0.7), 9)


def test_a_card_without_the_field_takes_float32_alone(tmp_path: Path) -> None:
    CARD.write(tmp_path / "card.json")
    assert Card.read(tmp_path / "card.json") == CARD
    values = json.loads((tmp_path / "card.json").read_text())
    del values["accepted_dtypes"]
    (tmp_path / "card.json").write_text(json.dumps(values))
    old = Card.read(tmp_path / "card.json")
    assert old.accepted_dtypes == ()
    assert not old.message().accepted_dtypes
    request = asked(np.zeros((1, 3), np.uint8))
    assert decode_inputs(request, CARD, 9).dtype == np.uint8
    with pytest.raises(Refusal, match=r"^inputs have dtype uint8: send float32 rows of shape \[3\]$"):
        decode_inputs(request, old, 9)


@pytest.mark.parametrize("wrong", [{"accepted_dtypes": ("int64",)}, {"features": (Feature("a", low=0, high=1),)}])
def test_cards_that_accept_what_no_model_reads_are_none(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="inputs may be uint8 and float16 beside float32, those of a table neither"):
        Card("m", "1", (1,), 0, 1, 4, 1, 1, "", "", **{"accepted_dtypes": ("uint8",), **wrong})  # type: ignore[arg-type]
