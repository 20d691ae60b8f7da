"""Which snapshots of a run are kept."""

from __future__ import annotations

import pytest

from attacker.run import _far_apart


@pytest.mark.parametrize(
    ("mark", "following", "kept"),
    [
        (90, 100, True),  # a rung between them
        (90, 99, False),
        (409.6, 819.2, True),  # no rung, but a factor of two
        (400, 599, False),
        (400, 600, True),
        (100, 300, True),
        (0, 5, True),
    ],
)
def test_a_snapshot_is_kept_when_a_rung_or_a_factor_lies_before_the_next(mark, following, kept):
    assert _far_apart(mark, following) == kept
