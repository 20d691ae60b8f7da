"""MI-Face through scores alone on a fixed budget of rows: its gradient from a few probes a step.

M. Fredrikson, S. Jha, T. Ristenpart, "Model inversion attacks that exploit confidence information and basic
countermeasures", CCS 2015, section 5.3, which leaves attacks with approximate gradients to later work. Not from that
paper: the estimators. Antithetic random directions: T. Salimans et al., "Evolution strategies as a scalable
alternative to reinforcement learning", 2017.

    here                 paper      meaning
    estimator            -          what the directions are: "basis", "blocks" or "random"
    directions           -          K, directions a step, each a row forth and a row back
    probe                -          how far a probe goes, root mean square over the pixels that it moves
    rows                 -          most rows for each target
    step                 lambda     length of a step, root mean square over all pixels
    momentum             -          share of the last move that is kept
    confidence           gamma      a target stops when its score reaches it
    x, live              x_i        the iterates, one row for each target; the rows of those that have not stopped
    U                    -          directions (K, d)
    F                    -          the target's scores at both ends of the probes (2, T, K), or their logarithms
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from attacker.attacks.mi_face import first_image
from attacker.needs import Needs
from attacker.public import public_images
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["EstimatedGradient", "gradient"]

Directions = Callable[[int, int], Tensor]  # of the step and K: (at most K, d)
_RIDGE = 1e-6  # share of the probes' mean square that keeps the solution finite when two of them are the same


@dataclass(frozen=True)
class EstimatedGradient:
    """Ascent on the target's score along the least-squares gradient in the span of a step's probes.

    The directions are the leading principal components of the public images in `public`/images.npy ("basis"), the
    tiles of a grid that is moved at random at every step and has four times as many tiles, and probes, in the second
    half of the rows ("blocks"), or Gaussian noise ("random"). All targets advance together; a step costs each 2K + 1
    rows. There is a snapshot after every step: the images are the best so far by the released score, the later one of
    equals; `mark` is rows for each target; the extra `steps` (T,) int64 the number of steps of each.

    Differences from the reference:
    - The score's logarithm is followed where all its probes show a score above 0, and the score itself elsewhere.
    - There is no line 6: an estimate may fail once and be right the next time.
    - Steps have a fixed length: what a slope says of the distance is lost where scores are rounded.
    - A probe whose two scores are equal says nothing. When all of a target's are, its probes go twice as far.
    """

    needs: ClassVar[Needs] = Needs.SCORES
    kind: ClassVar[str] = "black box, estimated gradient"
    paper: ClassVar[str] = "Fredrikson et al., CCS 2015, section 5.3"

    estimator: Literal["basis", "blocks", "random"] = "blocks"
    directions: int = 200
    rows: int = 20_000
    probe: float = 0.2
    step: float = 0.01
    momentum: float = 0.5
    confidence: float = 0.99
    start: Literal["zeros", "public_mean"] = "public_mean"
    public: Path | None = None

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Reconstruct one image of each of `targets`; `seed` makes the directions, the same for all of them."""
        for name in ("directions", "probe", "step"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        if self.rows < 4 or not 0 <= self.momentum < 1:
            raise ValueError(f"rows={self.rows} must be at least 4, momentum={self.momentum} at least 0 and below 1")
        draw = self._directions(oracle, seed)
        x0 = torch.from_numpy(first_image(self.start, self.public, oracle)).flatten()  # line 3
        T, low, high, label = len(targets), oracle.low, oracle.high, np.asarray(targets)
        x, v, live = x0.repeat(T, 1), torch.zeros(T, len(x0)), np.arange(T)
        h = torch.full((T,), self.probe)
        best, top, steps = x.clone(), np.zeros(T), np.zeros(T, np.int64)
        before, left = oracle.spent, self.rows

        def ask(images: Tensor) -> np.ndarray:
            """Scores (M, n) of images (M, n, d), row m for the target `live[m]`."""
            rows = images.reshape(-1, *oracle.input_shape).numpy()
            tags = label[live].repeat(images.shape[1])
            scores = oracle.query(rows, tags).scores
            if scores is None:
                raise ValueError("this key's contract releases no scores: use a key with access 'scores'")
            own = np.nan_to_num(scores, nan=0.0)[np.arange(len(rows)), tags]  # a withheld score counts as 0
            return np.asarray(own.reshape(len(live), -1))

        i = 0
        while True:  # line 4; it ends with the rows, not after alpha steps
            k = min(self._at_once(left), (left - 2) // 2)  # a row is kept for the last image
            U = draw(i, k) if k > 0 else x.new_empty(0, len(x0))
            reach = (h[live, None, None] * U).repeat(1, 2, 1)
            reach[:, len(U) :].neg_()
            ends = (x[live, None] + reach).clamp_(low, high)
            scores = ask(torch.cat([x[live, None], ends], 1))  # line 2, at the image and at all of its probes
            left -= 1 + 2 * len(U)
            better = scores[:, 0] >= top[live]  # line 10: the image of the least cost so far
            best[live[better]], top[live[better]], steps[live] = x[live[better]], scores[better, 0], i
            yield Snapshot(
                best.reshape(T, *oracle.input_shape).numpy().copy(),
                (oracle.spent - before) / T,
                {"steps": steps.copy()},
            )
            on = scores[:, 0] < self.confidence  # line 8
            live, F, ends = live[on], scores[on, 1:], ends[torch.from_numpy(on)]
            if not len(live) or not len(U):
                break
            up, down = ends.split(len(U), 1)
            # line 5, with an estimate in the place of the gradient; PROCESS is the clip to the legal range
            g = gradient(up - down, _climb(F[:, : len(U)], F[:, len(U) :]))
            length = g.square().mean(1, keepdim=True).sqrt()
            h[live[(length == 0).numpy()[:, 0]]] *= 2  # clipped to the range: it ends at the widest there is
            v[live] = self.momentum * v[live] + torch.where(length > 0, g / length, 0)
            x[live] = (x[live] + self.step * (1 - self.momentum) * v[live]).clamp(low, high)
            i += 1

    def _at_once(self, left: int) -> int:
        return self.directions * (4 if self.estimator == "blocks" and 2 * left <= self.rows else 1)

    def _directions(self, oracle: Oracle, seed: int) -> Directions:
        shape = tuple(oracle.input_shape)
        if self.estimator == "random":
            return lambda i, k: torch.randn(k, prod(shape), generator=torch.Generator().manual_seed(seed + i))
        if self.estimator == "basis":
            basis = _components(self.public, oracle)
            return lambda i, k: basis[:k]
        if self.estimator != "blocks":
            raise ValueError(f"estimator={self.estimator!r} must be 'basis', 'blocks' or 'random'")
        if len(shape) < 2:
            raise ValueError(f"the model's inputs have shape {shape}: blocks need images, use estimator='random'")
        return lambda i, k: _tiles(shape, k, np.random.default_rng((seed, i)))


def gradient(moved: Tensor, rise: Tensor) -> Tensor:
    """The shortest g (T, d) whose rise along what each probe moved (T, K, d) is nearest to what was seen (T, K)."""
    gram = (moved @ moved.mT).double()
    mean = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp(min=torch.finfo(torch.float64).tiny)
    weight = torch.linalg.solve(gram + _RIDGE * mean * torch.eye(gram.shape[1]), rise[..., None])
    g: Tensor = (moved.mT @ weight.to(moved.dtype))[..., 0]
    return g


def _climb(up: np.ndarray, down: np.ndarray) -> Tensor:
    """Differences (T, K) of the scores' logarithms for targets none of whose scores is 0, else of the scores."""
    shown = ((up > 0) & (down > 0)).all(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        rise = np.where(shown, np.log(up) - np.log(down), up - down)
    return torch.from_numpy(rise)


def _components(public: Path | None, oracle: Oracle) -> Tensor:
    """Principal components of the public images, the leading ones first, each of root mean square 1."""
    if public is None:
        raise ValueError(
            "estimator='basis' needs public data: name its folder (images.npy), or use 'random' or 'blocks'"
        )
    images = torch.from_numpy(np.array(public_images(public, oracle), np.float32)).flatten(1)
    if len(images) < 2:
        raise ValueError(f"{public}/images.npy holds one image, a basis needs two: use 'random' or 'blocks'")
    _, S, Vh = torch.linalg.svd(images - images.mean(0), full_matrices=False)
    basis: Tensor = Vh[1e-5 * S[0] < S] * images.shape[1] ** 0.5
    return basis


def _tiles(shape: tuple[int, ...], k: int, rng: np.random.Generator) -> Tensor:
    """At most k tiles, as even as can be, that cover an image: 1 on the tile, (n, d)."""
    H, W = shape[-2:]
    rows = min(H, max(1, round((k * H / W) ** 0.5)))
    columns = max(1, min(W, k // rows))
    r = (np.arange(H) + rng.integers(H)) % H * min(rows, k) // H  # the grid wraps around the edges
    c = (np.arange(W) + rng.integers(W)) % W * columns // W
    tile = r[:, None] * columns + c
    on = tile == np.arange(min(rows, k) * columns)[:, None, None]
    everywhere = np.broadcast_to(on[:, None], (len(on), prod(shape[:-2]), H, W))  # in all channels
    return torch.from_numpy(everywhere.reshape(len(on), -1).astype(np.float32))
