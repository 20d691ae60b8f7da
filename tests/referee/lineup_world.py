"""A data set of forty people in small, for the tests of line-ups."""

from __future__ import annotations

import numpy as np

__all__ = ["NUMBER", "OWNERS", "PEOPLE", "PHOTOS", "SEEN", "SHAPE", "TRAINING", "VALIDATION", "world"]

PEOPLE, PHOTOS, SEEN = 40, 10, 7
OWNERS = np.repeat(np.arange(PEOPLE), PHOTOS)
NUMBER = np.tile(np.arange(PHOTOS), PEOPLE)
TRAINING, VALIDATION = np.flatnonzero(NUMBER < SEEN), np.flatnonzero(NUMBER >= SEEN)
SHAPE = (1, 8, 6)


def world() -> tuple[np.ndarray, np.ndarray]:
    """Photos (400, 1, 8, 6), of which the same person's are alike, and the mean one of each person."""
    random = np.random.default_rng(0)
    faces = random.random((PEOPLE, *SHAPE), dtype=np.float32)
    photos = (0.8 * faces[OWNERS] + 0.2 * random.random((len(OWNERS), *SHAPE))).astype(np.float32)
    return photos, faces
