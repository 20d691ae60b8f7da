"""Countermeasures on the answer: scores (N, C) -> scores (N, C), applied before rounding and truncation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np

from defenses.response.gaussian_noise import GaussianNoise
from defenses.response.temperature import Temperature

__all__ = ["RESPONSES", "GaussianNoise", "Temperature", "defend"]

RESPONSES: dict[str, type] = {"gaussian_noise": GaussianNoise, "temperature": Temperature}


def defend(
    defences: Iterable[tuple[str, tuple[tuple[str, float], ...]]], seed: tuple[bytes, ...]
) -> Callable[[np.ndarray], np.ndarray]:
    """The named defences one after another. What is random in them is a function of `seed` and the row's place alone.

    A server passes (its secret, key id, request id): asking again under the same id gives the same draw, and a new
    draw needs a new id and so a new charge.
    """
    steps = [RESPONSES[name](**dict(parameters)) for name, parameters in defences]

    def apply(scores: np.ndarray) -> np.ndarray:
        for place, step in enumerate(steps):  # a generator each: no step's draws depend on how many another took
            scores = step(scores, _generator((*seed, place.to_bytes(8, "little"))))
        return scores

    return apply


def _generator(seed: tuple[bytes, ...]) -> np.random.Generator:
    material = b"".join(len(part).to_bytes(8, "little") + part for part in seed)
    key = int.from_bytes(hashlib.sha256(material).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))
