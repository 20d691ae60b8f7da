"""Countermeasures on the stream of a key's queries: rows -> which of them give the stream away."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from defenses.detection.distances import Distances
from defenses.detection.fingerprints import Fingerprints

__all__ = ["DETECTIONS", "Detection", "Distances", "Fingerprints", "Stream", "rows_until"]


class Stream(Protocol):
    """One key's queries so far, as far as a detector keeps them."""

    def observe(self, rows: NDArray[np.floating]) -> NDArray[np.bool_]:
        """rows (N, *shape) in the order in which they were asked -> flagged (N,), however they are cut into calls."""


class Detection(Protocol):
    """A detector: a frozen dataclass of parameters."""

    def start(self, input_shape: tuple[int, ...], secret: bytes) -> Stream:
        """A new stream of rows of `input_shape`; `secret` is what its client must not know."""


DETECTIONS: dict[str, type] = {"distances": Distances, "fingerprints": Fingerprints}


def rows_until(detector: Detection, rows: NDArray[np.floating], keys: int = 1, *, secret: bytes = b"") -> int | None:
    """How many of `rows` (N, *shape) are asked until some key is flagged, when row i goes to key i mod `keys`.

    None when nobody is flagged.
    """
    if keys < 1:
        raise ValueError(f"keys={keys} must be at least 1")
    first = len(rows)
    for key in range(min(keys, len(rows))):
        stream = detector.start(rows.shape[1:], secret + key.to_bytes(8, "little"))
        for start in range(key, first, 256 * keys):  # no further than another key was flagged before
            if len(hits := np.flatnonzero(stream.observe(rows[start : start + 256 * keys : keys]))):
                first = min(first, start + int(hits[0]) * keys)
                break
    return first + 1 if first < len(rows) else None
