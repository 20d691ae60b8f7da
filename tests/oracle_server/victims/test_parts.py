"""Parts have their shares, lose nothing, and are empty only where there are fewer things than parts."""

from __future__ import annotations

import doctest

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_server.victims import parts
from oracle_server.victims.parts import parted


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 200), st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_parts_are_of_their_shares_and_none_is_empty(count: int, weights: list[int]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    found = parted(np.arange(count), shares)
    assert len(found) == len(shares)
    assert np.concatenate(found).tolist() == list(range(count))
    if count >= len(shares):
        assert min(len(part) for part in found) >= 1
    slack = len(shares) + 1  # of rounding, and of parts that would have been empty
    assert all(abs(len(part) - share * count) <= slack for part, share in zip(found, shares, strict=True))


def test_doctests() -> None:
    assert doctest.testmod(parts).failed == 0
