"""Queries that repeat the key's recent past but for small changes, found by hashed fingerprints.

H. Li, S. Shan, E. Wenger, J. Zhang, H. Zheng, B. Y. Zhao, "Blacklight: Scalable Defense for Neural Networks against
Query-Based Black-Box Attacks", USENIX Security 2022, sections 4 and 5.

    here          paper     meaning
    step          q         width of a level of the quantised input, in the input's units (50 of 255 in the paper)
    window        w         values in a window of the flattened row; windows start at every value
    hashes        S         largest distinct hashes kept: the fingerprint
    threshold     T         hashes in common that make two rows alike
    past          -         rows of the recent past that a row is compared with
    alike         -         earlier rows that a row must be like before it is flagged (1 in the paper)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FingerprintStream", "Fingerprints"]

_BUCKETS = 1 << 16  # hashes are compared by 16 bits: 50 of them meet 50 others by chance 0.04 times


@dataclass(frozen=True)
class Fingerprints:
    """Flag a row that is like at least `alike` of the last `past` rows of its key.

    Two rows are alike when `threshold` of their `hashes` agree: the largest hashes of all windows, under a hash that
    only the server can compute, so that nobody can choose what is compared. A search that asks around one point is
    like hundreds of its own queries; one photo that is asked twice is like one, and a frame of a film like those
    around it.

    Difference from the reference: the paper flags the first match; `alike` lets repeats and films pass. A window's
    hash is a polynomial over secret 64-bit values of its levels, modulo 2^64, and not SHA-256; every row takes
    `past` * `hashes` comparisons in a table of 16-bit values instead of look-ups in an index that grows.
    """

    step: float = 0.1
    window: int = 20
    hashes: int = 50
    threshold: int = 25
    past: int = 1000
    alike: int = 128

    def __post_init__(self) -> None:
        if not self.step > 0:
            raise ValueError(f"step={self.step} must be positive")
        for name in ("window", "hashes", "threshold", "past", "alike"):
            value = getattr(self, name)
            if not 1 <= value <= 100_000 or value != int(value):
                raise ValueError(f"{name}={value} must be a whole number from 1 to 100000")
            object.__setattr__(self, name, int(value))  # contracts carry floats
        if self.threshold > self.hashes:
            raise ValueError(f"threshold={self.threshold} must be at most hashes={self.hashes}")
        if self.alike > self.past:
            raise ValueError(f"alike={self.alike} must be at most past={self.past}")

    def start(self, input_shape: tuple[int, ...], secret: bytes) -> FingerprintStream:
        """The stream of one key; `secret` salts the hashes."""
        return FingerprintStream(self, int(np.prod(input_shape)), secret)


class FingerprintStream:
    """The fingerprints of a key's last `past` rows, in a ring: past * hashes * 2 bytes."""

    def __init__(self, method: Fingerprints, size: int, secret: bytes) -> None:
        seed = int.from_bytes(hashlib.sha256(b"fingerprints" + secret).digest(), "little")
        rng = np.random.Generator(np.random.PCG64(seed))
        words = rng.integers(0, 2**64, 256 + 3, dtype=np.uint64)
        self._method, self._size = method, size
        self._window = min(method.window, size)
        self._levels, (r, self._mix, self._mix_2) = words[:256], words[256:] | np.uint64(1)
        inverse = np.uint64(pow(int(r), -1, 2**64))  # an odd number has one
        one = np.ones(1, np.uint64)
        with np.errstate(over="ignore"):
            self._powers = np.concatenate((one, np.full(size - 1, r).cumprod(dtype=np.uint64)))  # r^i
            self._back = np.concatenate((one, np.full(size - self._window, inverse).cumprod(dtype=np.uint64)))  # r^-j
        width = min(method.hashes, size - self._window + 1)
        self._past = np.zeros((method.past, width), np.uint16)
        self._used = np.zeros((method.past, width), bool)
        self._counts = np.zeros(method.past, np.intp)  # distinct hashes of each row
        self._least = min(method.threshold, width)
        self._seen = 0

    def observe(self, rows: NDArray[np.floating]) -> NDArray[np.bool_]:
        """rows (N, *shape) in the order in which they were asked -> flagged (N,)."""
        flagged = np.zeros(len(rows), bool)
        for first in range(0, len(rows), 64):  # 64 rows of 4,096 values at once: a few MB
            marks, used = self._fingerprints(np.asarray(rows[first : first + 64]).reshape(-1, self._size))
            for i, (mark, real) in enumerate(zip(marks, used, strict=True)):
                table = np.zeros(_BUCKETS, bool)
                table[mark[real]] = True
                shared = (table[self._past] & self._used).sum(1)
                count = max(1, int(real.sum()))  # a blank row has one hash, and is like blank rows only
                needed = np.minimum(self._least, np.maximum(count, self._counts))
                flagged[first + i] = np.count_nonzero(shared >= needed) >= self._method.alike
                place = self._seen % self._method.past
                self._past[place], self._used[place], self._counts[place] = mark, real, count
                self._seen += 1
        return flagged

    def _fingerprints(self, x: NDArray[np.floating]) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """x (n, d) -> 16 bits of the largest distinct hashes of each row (n, S), and which of these there are."""
        w = self._window
        levels = np.rint(x / self._method.step).astype(np.int64) & 255
        terms = self._levels[levels] * self._powers
        P = np.zeros((len(x), x.shape[1] + 1), np.uint64)
        np.cumsum(terms, axis=1, dtype=np.uint64, out=P[:, 1:])
        h = (P[:, w:] - P[:, :-w]) * self._back  # sum over t < w of value(j + t) r^t
        h ^= h >> np.uint64(32)
        h *= self._mix
        h ^= h >> np.uint64(29)
        h *= self._mix_2
        h.sort(axis=1)
        h[:, 1:][h[:, 1:] == h[:, :-1]] = 0  # flat regions repeat one hash
        S = self._past.shape[1]
        top = np.partition(h, h.shape[1] - S, axis=1)[:, -S:]
        return (top >> np.uint64(16)).astype(np.uint16), top > 0  # the highest bits of the largest are all ones
