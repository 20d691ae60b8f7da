"""`attack`: a run of the attacker's command under a key of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.attacker.attack import Attack
from tests.serving import Forker, Server

__all__ = ["Make", "attack"]

# Long enough to be killed in the middle: 47 requests at least, and two for each step of the other.
_RUNS = {
    "random_draws": ("random_draws", "--set", "draws=3000", "--seed", "4"),
    "numeric": ("numeric", "--targets", "0,3", "--set", "max_steps=12", "--set", "confidence=1.1"),
}

Make = Callable[..., Attack]


@pytest.fixture
def attack(server: Server, forker: Forker, tmp_path: Path) -> Make:
    """`attack("numeric", access="scores", ...)` with a key of its own for that contract."""

    def make(method: str, *words: str, name: str = "run", at: Server | None = None, **contract: object) -> Attack:
        chosen = (*_RUNS.get(method, (method,)), *words)
        return Attack(forker, (at or server).new_key(**contract), chosen, tmp_path / name)

    return make
