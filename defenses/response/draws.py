"""Where the random numbers of a response defence come from: the request, or the input."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

__all__ = ["Draws"]


@dataclass(frozen=True)
class Draws:
    """Standard normal numbers for one step of a request's defences; the same again whenever they are asked for again.

    fresh_seed  what a draw of `fresh` belongs to: a server's secret, a key, a request id, the step's place
    keyed_seed  what a draw of `keyed` belongs to beside the input: the secret, the model, the steps up to this one
    inputs      the rows (N, *shape) that were asked about, of any numeric dtype; None when nobody gave them
    """

    fresh_seed: tuple[bytes, ...]
    keyed_seed: tuple[bytes, ...] = ()
    inputs: np.ndarray | None = None

    def fresh(self, shape: tuple[int, int]) -> np.ndarray:
        """Numbers (N, C), float64, that belong to the request and the place of each row in it."""
        seed = int.from_bytes(_digest(self.fresh_seed)[:16], "little")
        return np.random.Generator(np.random.Philox(key=seed)).standard_normal(shape)

    def keyed(self, shape: tuple[int, int]) -> np.ndarray:
        """Numbers (N, C), float64, row by row a function of the input row's values alone (and its dtype and shape).

        Each row's values, with 0 for -0, are hashed with a keyed BLAKE3, whose output is as long as C numbers need; the
        Box-Muller transform (Box and Muller 1958) makes 53-bit uniforms normal. `ValueError` when there are no inputs,
        or not N of them: noise that the input does not decide would be averaged away.
        """
        if self.inputs is None or not self.keyed_seed or len(self.inputs) != shape[0]:
            raise ValueError("keyed noise needs the server's seed and the input row of each row of scores")
        rows, half = self.inputs, -(-shape[1] // 2)
        key = _digest((b"keyed", *self.keyed_seed, rows.dtype.str.encode(), str(rows.shape[1:]).encode()))
        flat = rows.reshape(len(rows), -1)
        # -0 + 0 is 0
        hashed = [blake3((row + 0).view(np.uint8).data, key=key).digest(length=16 * half) for row in flat]
        words = np.frombuffer(b"".join(hashed), "<u8").reshape(-1, 2, half) >> 11
        u, v = np.ascontiguousarray(words.swapaxes(0, 1)) * 2.0**-53  # in [0, 1), each (N, half) and contiguous
        radius, angle = np.sqrt(-2 * np.log1p(-u)), 2 * np.pi * v
        return np.hstack([radius * np.cos(angle), radius * np.sin(angle)])[:, : shape[1]]


def _digest(parts: tuple[bytes, ...]) -> bytes:
    """32 bytes that belong to these parts, cut exactly here."""
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).digest()
