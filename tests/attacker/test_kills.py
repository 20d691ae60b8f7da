"""A run of any method that is killed at random moments ends with the same result and the same count; a planted fault of
each kind is seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from attacker.attacks import METHODS
from tests.attacker.kills import CASES, Range, kill_series
from tests.serving import Forker

_PAYS_TWICE = """
import secrets
from attacker.journal import Journal
original = Journal.__init__
def init(self, path, run):
    original(self, path, run)
    self.nonce = secrets.token_hex(16)
    self._answers.clear()
Journal.__init__ = init
"""
_DRAWS_ANEW = """
import numpy as np
original = np.random.default_rng
np.random.default_rng = lambda seed=None: original()
"""
_FORGETS_ITS_OPTIMISER = """
from attacker.checkpoint import Training
original = Training.resume
def resume(self):
    rest, self._rest = self._rest, ()
    import attacker.checkpoint as module
    module.zip = lambda *parts, strict: ()
    original(self)
    self._rest = rest
Training.resume = resume
"""


@pytest.fixture(scope="module")
def place(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Range]:
    with contextlib.closing(Range(forker, tmp_path_factory.mktemp("range"))) as place:
        yield place


def test_every_method_is_killed() -> None:
    assert list(CASES) == list(METHODS)


@pytest.mark.parametrize("method", CASES)
def test_killed_at_random_moments_it_ends_the_same(place: Range, method: str) -> None:
    outcome = kill_series(place, method, 1)
    assert outcome.kills == 1
    assert outcome.unequal == []


@pytest.mark.parametrize(
    ("method", "fault", "at", "seen"),
    [
        ("random_draws", _PAYS_TWICE, "journal", "rows were counted and"),
        ("random_guess", _DRAWS_ANEW, "time", "reconstructions.npz differ"),
        ("inversion_network", _FORGETS_ITS_OPTIMISER, "checkpoint", "inversion_network.pt, reconstructions.npz differ"),
    ],
)
def test_a_planted_fault_is_seen(place: Range, method: str, fault: str, at: str, seen: str) -> None:
    outcome = kill_series(place, method, 2, seed=1, before=fault, at=at)
    assert outcome.kills == 2
    assert any(seen in sentence for sentence in outcome.unequal), outcome.unequal
