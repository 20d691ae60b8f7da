"""Equation solving: the weights of a softmax regression from its scores; then MI-Face on the recovered model.

F. Tramèr, F. Zhang, A. Juels, M. K. Reiter, T. Ristenpart, "Stealing machine learning models via prediction APIs",
USENIX Security 2016, section 4.1.2. The answer to rounding, balanced probing, is ours (see `EquationSolving`).

    here      paper      meaning
    W, b      w, beta    weights (C, d) and biases (C,), each centred: a constant over the classes changes no score
    z         -          log-scores less their mean over the classes: W x + b
    r         -          the contract's rounding step
    H         -          Walsh matrix of order N, a power of two above d: +-1, H H' = N, H[i, 0] = 1
    x0, s     -          a round's centre and its signed spread, both (d,): row i is x0 + s * H[i, 1 : d + 1]
    m         -          mean of z over a round, taken for its value at x0
    noise     -          variance of an estimated s W: read from the columns of H that no pixel uses
    seen      -          signal over noise, for each class of a round
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from attacker.attacks.mi_face import MIFace, WhiteBox, first_image
from attacker.needs import Needs
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["EquationSolving"]

_INVERSION = MIFace(step=10.0, max_steps=500)  # the images of its defaults, in a hundredth of the steps
_DROP = 1.5  # how far below the others a class is pushed whose turn it is not
_RIDGE = 0.1  # of the mean squared length of W: keeps classes that were hardly seen from ruling where to go


@dataclass(frozen=True)
class EquationSolving:
    """Recover W and b, then run `inversion` on them for all targets at once.

    Without rounding, d + 1 rows: the lowest image, which gives b, then the pixels in blocks of `together` (a power of
    two), each through a Walsh design in {low, high}. One pixel at a time is the most exact for small biases; but a
    float32 model rounds W x + b at the size of b, and where b is far larger than W a block averages that out.

    With rounding, `rounds` rounds of N rows (N = 16,384 for 10,304 pixels). A rounded score tells most where it is near
    a step, so each round probes around an image at which the model recovered so far is undecided between all classes
    (or, in turn, between as many as leave each a score of r/2). The first round knows nothing: it sets a pixel to high
    with probability `density` (four times that where equal scores would round to 0), so few that no class stands out.
    Centres then double in brightness up to mid-range, where the spread has most room.

    One snapshot after each solution. `mark` is rows for each target; the extras are `weight` (C, d) and `bias` (C,),
    centred, and `steps` (T,) of the inversion.

    Differences from the reference:
    - The paper draws its d + 1 rows at random and solves one system; a Walsh design is solved by its transpose.
    - The paper rounds to 2-5 decimals and solves as before; here a score rounded to 0 counts as r/2, and rounds are
      averaged, each weighted by how much of each class it saw. MI-Face takes longer steps than in its own paper.
    """

    needs: ClassVar[Needs] = Needs.ALL_SCORES
    kind: ClassVar[str] = "black box, model extraction"
    paper: ClassVar[str] = "Tramèr et al., USENIX Security 2016, section 4.1.2"

    together: int = 16
    rounds: int = 6
    density: float = 1 / 64
    inversion: MIFace = _INVERSION

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Reconstruct one image of each of `targets`; `seed` draws the designs of the rounds, if there are any."""
        spent_before, T = oracle.spent, len(targets)
        rounded = oracle.contract.round_to is not None
        for W, b in self._rounded(oracle, np.random.default_rng(seed)) if rounded else self._exact(oracle):
            mark = (oracle.spent - spent_before) / T
            f = WhiteBox(_softmax_regression(W, b), targets, self.inversion.cost)
            x0 = first_image(self.inversion.start, self.inversion.public, oracle)
            *_, last = self.inversion.descend(f, x0, T, oracle.low, oracle.high)
            yield Snapshot(last.images, mark, {**last.extras, "weight": W, "bias": b})

    def _exact(self, oracle: Oracle) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """W and b from d + 1 rows."""
        d, low, span = int(np.prod(oracle.input_shape)), oracle.low, oracle.high - oracle.low
        ends = [0]
        while (left := d - ends[-1]) > 0:
            ends.append(ends[-1] + (1 << min(self.together, left).bit_length() - 1))
        blocks = [slice(first, last) for first, last in pairwise(ends)]

        def rows() -> Iterator[np.ndarray]:
            yield np.full(d, low)
            for block in blocks:
                for h in _walsh_matrix(block.stop - block.start):
                    row = np.full(d, low)
                    row[block] += span * (h > 0)
                    yield row

        z = _log_scores(oracle, _batches(rows(), oracle.max_rows))
        b, y = z[0], z[1:] - z[0]
        W = np.empty((len(b), d))
        for block in blocks:
            H = _walsh_matrix(block.stop - block.start)
            W[:, block] = 2 / len(H) * (H @ y[block]).T  # the inverse of (1 + H) / 2, but for the
            W[:, block.start] -= y[block.start]  # first pixel of a block, which is high in all its rows
        W /= span
        yield W, b - low * W.sum(1)

    def _rounded(self, oracle: Oracle, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """W and b after each round; b is right at the last round's centre."""
        low, high, C = oracle.low, oracle.high, oracle.classes
        undecided = min(C, max(2, int(2 / (oracle.contract.round_to or 1) + 1e-9)))
        turn = rng.permutation(C)
        rounds = [_sparse_round(oracle, self.density * (1 if undecided == C else 4), rng)]
        for k in range(1, self.rounds + 1):
            W, shrunk = _combined(rounds)
            yield W, rounds[-1].m - W @ rounds[-1].x0
            if k < self.rounds:
                goal = np.full(C, -_DROP)
                goal[turn[:undecided]] = 0
                turn = np.roll(turn, undecided)
                bright = low + (high - low) * min(2.0 ** (k - 4), 0.5)
                x0 = _balanced(shrunk, rounds[-1], goal - goal.mean(), bright, low, high)
                rounds.append(_walsh_round(oracle, x0, rng))


class _Round(NamedTuple):
    """What a round gave: s W with noise (C, d), |s| (d,), the noise's variance (C,), m (C,), x0 (d,)."""

    estimate: np.ndarray
    s: np.ndarray
    noise: np.ndarray
    m: np.ndarray
    x0: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        signal: np.ndarray = (self.estimate**2).mean(1) / np.maximum(self.noise, 1e-18) - 1
        return np.asarray(signal.clip(0) / (self.s**2).mean())


def _sparse_round(oracle: Oracle, q: float, rng: np.random.Generator) -> _Round:
    """N rows in which a pixel is high with probability q, else low; W by correlation, since nothing is orthogonal."""
    d, low, span = int(np.prod(oracle.input_shape)), oracle.low, oracle.high - oracle.low
    N, start = _order(d), rng.bit_generator.state

    def on() -> Iterator[np.ndarray]:
        for first in range(0, N, oracle.max_rows):
            yield rng.random((min(oracle.max_rows, N - first), d), np.float32) < q

    z = _log_scores(oracle, (low + span * batch for batch in on()))
    m, at = z.mean(0), 0
    rng.bit_generator.state = start  # the same rows are drawn again, instead of being kept
    W = np.zeros((len(m), d))
    for batch in on():
        W += (z[at : at + len(batch)] - m).T.astype(np.float32) @ (batch - np.float32(q))
        at += len(batch)
    each = N * span * q * (1 - q)
    return _Round(W / each, np.ones(d), z.var(0) / (each * span), m, np.full(d, low + span * q))


def _walsh_round(oracle: Oracle, centre: np.ndarray, rng: np.random.Generator) -> _Round:
    """N rows around a centre, as far as the range allows, with signs of their own; s W by one Walsh transform."""
    d, N = len(centre), _order(len(centre))
    x0, low, high = centre.astype(np.float32), np.float32(oracle.low), np.float32(oracle.high)
    s = np.minimum(x0 - low, high - x0) * rng.choice(np.array([-1, 1], np.float32), d)

    def rows() -> Iterator[np.ndarray]:
        for first in range(0, N, oracle.max_rows):
            H = _walsh_rows(N, np.arange(first, min(first + oracle.max_rows, N)))
            yield np.clip(x0 + s * H[:, 1 : d + 1], low, high)

    t = _walsh_transform(_log_scores(oracle, rows())) / N
    return _Round(t[1 : d + 1].T * np.sign(s), np.abs(s).astype(float), t[d + 1 :].var(0), t[0], x0.astype(float))


def _combined(rounds: list[_Round]) -> tuple[np.ndarray, np.ndarray]:
    """W (C, d), and the W to act on: shrunk, class by class, by the share of noise in it."""
    above, below = np.zeros_like(rounds[0].estimate), np.zeros_like(rounds[0].estimate)
    for one in rounds:
        above += one.seen[:, None] * one.s * one.estimate
        below += one.seen[:, None] * one.s**2
    W = above / np.maximum(below, 1e-300)
    W -= W.mean(0)
    seen = below.mean(1, keepdims=True)
    return W, W * seen / (1 + seen)


def _balanced(W: np.ndarray, last: _Round, goal: np.ndarray, bright: float, low: float, high: float) -> np.ndarray:
    """An image near `bright` at which z is about `goal`, going by W and by m at the last centre."""
    room = 0.3 * min(bright - low, high - bright)
    gram = W @ W.T
    gram += _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    x = np.full(W.shape[1], bright)
    for _ in range(5):  # clipping takes back part of a move
        z = last.m + W @ (x - last.x0)
        x = np.clip(x - np.linalg.lstsq(gram, z - z.mean() - goal)[0] @ W, low + room, high - room)
    return x


def _log_scores(oracle: Oracle, batches: Iterable[np.ndarray]) -> np.ndarray:
    """z (N, C) float64 of all rows of `batches` (n, d), which serve all targets."""
    least = oracle.contract.round_to / 2 if oracle.contract.round_to else np.finfo(float).tiny
    images = ((rows.astype(np.float32).reshape(-1, *oracle.input_shape), None) for rows in batches)
    scores = [answer.scores for answer in oracle.stream(images) if answer.scores is not None]
    z = np.log(np.maximum(np.concatenate(scores), least))
    return np.asarray(z - z.mean(1, keepdims=True))


def _batches(rows: Iterable[np.ndarray], most: int) -> Iterator[np.ndarray]:
    kept: list[np.ndarray] = []
    for row in rows:
        kept.append(row)
        if len(kept) == most:
            yield np.stack(kept)
            kept = []
    if kept:
        yield np.stack(kept)


def _softmax_regression(W: np.ndarray, b: np.ndarray) -> nn.Module:
    """The recovered model, (N, *input_shape) -> logits (N, C), in float32 like its original."""
    linear = nn.Linear(W.shape[1], W.shape[0]).requires_grad_(False)
    linear.weight.copy_(torch.from_numpy(W))
    linear.bias.copy_(torch.from_numpy(b))
    return nn.Sequential(nn.Flatten(), linear)


def _order(d: int) -> int:
    """N: the least power of two that leaves some columns of H to read the noise from."""
    return 1 << (d + 8).bit_length()


def _walsh_matrix(N: int) -> np.ndarray:
    """H (N, N) int8, symmetric, by Sylvester's doubling."""
    H = np.ones((1, 1), np.int8)
    while len(H) < N:
        H = np.block([[H, H], [H, -H]])
    return H


def _walsh_rows(N: int, i: np.ndarray) -> np.ndarray:
    """Rows i (n,) of H, (n, N) int8: H is the Kronecker product of two small ones."""
    inner = 1 << (N.bit_length() - 1) // 2
    outer = _walsh_matrix(N // inner)[i // inner]
    rows: np.ndarray = outer[:, :, None] * _walsh_matrix(inner)[i % inner][:, None, :]
    return rows.reshape(len(i), N)


def _walsh_transform(z: np.ndarray) -> np.ndarray:
    """H z of z (N, C), by the same two factors."""
    N, C = z.shape
    inner = 1 << (N.bit_length() - 1) // 2
    t: np.ndarray = _walsh_matrix(N // inner).astype(float) @ z.reshape(N // inner, -1)
    t = _walsh_matrix(inner).astype(float) @ t.reshape(-1, inner, C)
    return t.reshape(N, C)
