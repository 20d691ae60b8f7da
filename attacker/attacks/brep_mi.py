"""Model inversion with labels only: a code that is repelled from the boundary of its class.

M. Kahla, S. Chen, H. A. Just, R. Jia, "Label-Only Model Inversion Attacks via Boundary Repulsion", CVPR 2022.

    here          paper       meaning
    points        N           points on the sphere around a code
    radius        R           of the sphere; grows by `growth` whenever the sphere lies inside the class
    longest       3           bound of a step, which is R / 3
    prior         G           the generator
    z, c          z, y*       codes (T, m), one for each target; the targets' classes
    U             u_i         unit vectors (T, N, m)
    M             M-hat_N     estimated direction (T, m): the mean over N of -u_i where z + R u_i lies outside, else 0
    inside        Phi         whether z + R u_i has the label c
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from attacker.attacks.latent import ask_codes, next_due
from attacker.needs import Needs
from attacker.priors.prior import Prior, prior_for
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["BrepMI", "repulsion"]

_DRAWN = 100  # codes at a time


@dataclass(frozen=True)
class BrepMI:
    """All targets side by side, each with a radius of its own.

    `rows` is the most for each target, its share of the draws among them. First points come from draws of the prior
    that serve all targets, at most `draws` of them for each; a class that never appears is not found: its image is the
    lowest there is, and `found` (T,) bool in the extras says so. Further extras: `radius` (T,), `iterations` (T,),
    `codes` (T, m). A code never leaves its class. `untargeted` > 0 attacks only so many of the targets: those that the
    draws show first.

    What makes it cheaper or better than its authors, each with its own option; `compatible` sets them all to what the
    authors' code does:

    radius       of the first sphere (2 in the paper); it grows by `growth` (1.3 in the paper)
    first        "mean": the mean of the codes of all draws with the target's label, or, where that is labelled
                 otherwise, the draw nearest to it; "draw": the first draw with the label. `pool` draws for each target
                 are made for the mean, whether or not all have been seen
    fewest       points on the first sphere; they grow in proportion to the radius up to `points` (0: always `points`)
    normalised   a step is R / 3 long, not R / 3 times the length of M, which is about a tenth in 60 dimensions
    reuse        a point of somebody's sphere with the label of a target that no draw has shown is that one's first
    iterations   at one radius, after which a target is given up (1,000 in the paper)
    mass         codes stay where the prior has mass: at most `mass` times the root mean square distance from its
                 centre, and a target is done when its radius exceeds that distance (0: free)
    clamp        each number of a code stays within that many standard deviations (0: free)
    share        of the points that must be inside before a radius grows
    moves_only   rejected moves do not count as iterations
    """

    needs: ClassVar[Needs] = Needs.LABELS
    kind: ClassVar[str] = "labels only, latent space, boundary repulsion"
    paper: ClassVar[str] = "Kahla et al., CVPR 2022"

    rows: int = 3000
    draws: int = 100
    points: int = 32
    radius: float = 3.0
    growth: float = 1.15
    longest: float = 3.0
    iterations: int = 1000
    first: Literal["mean", "draw"] = "mean"
    pool: int = 50
    fewest: int = 0
    normalised: bool = True
    reuse: bool = True
    mass: float = 1.0
    clamp: float = 0.0
    share: float = 1.0
    moves_only: bool = False
    untargeted: int = 0
    compatible: bool = False
    prior: Path | None = None

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Reconstruct one image of each of `targets`; `seed` makes draws and directions."""
        if self.compatible:
            yield from replace(self, **_COMPATIBLE).run(oracle, targets, seed)
            return
        self._check(len(targets))
        prior = prior_for(self.prior, oracle)
        state = _Search(self, oracle, prior, np.asarray(targets), torch.Generator().manual_seed(seed))
        yield state.snapshot()  # what the draws alone give
        shown, due = state.mark, next_due(state.mark)
        while len(state.live):
            state.advance()
            if state.mark >= due:
                yield state.snapshot()
                shown, due = state.mark, next_due(state.mark)
        if state.mark > shown:
            yield state.snapshot()

    def _check(self, T: int) -> None:
        """`ValueError` for a setting out of range."""
        for name in ("rows", "draws", "points", "radius", "longest", "iterations"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        for name in ("pool", "fewest", "mass", "clamp"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be below 0")
        if not self.growth > 1 or not 0 < self.share <= 1:
            raise ValueError(f"growth={self.growth} must be above 1, share={self.share} above 0 and at most 1")
        if self.first not in ("mean", "draw"):
            raise ValueError(f"first={self.first!r} must be 'mean' or 'draw'")
        if not 0 <= self.untargeted <= T:
            raise ValueError(f"untargeted={self.untargeted} must be 0, or at most the number of targets, {T}")


_COMPATIBLE: dict[str, Any] = {"radius": 2.0, "growth": 1.3, "first": "draw", "fewest": 0, "normalised": False}
_COMPATIBLE |= {"reuse": False, "mass": 0.0, "clamp": 1.5, "share": 29 / 32, "iterations": 1000, "moves_only": True}
_COMPATIBLE |= {"compatible": False}


def repulsion(U: Tensor, outside: Tensor) -> Tensor:
    """M (..., m): the mean over all N unit vectors (..., N, m) of -u where the point lies outside (..., N) bool."""
    return -(outside[..., None] * U).mean(-2)


class _Search:
    """Codes, radii and counters of all targets, (T,) or (T, m); `live` are the places of those that go on."""

    def __init__(
        self, method: BrepMI, oracle: Oracle, prior: Prior, targets: np.ndarray, random: torch.Generator
    ) -> None:
        self._method, self._oracle, self._prior, self._c, self._random = method, oracle, prior, targets, random
        self._before = oracle.spent
        T, m = len(targets), prior.card.latent
        self._middle, self._scale = prior.codes.centre, prior.codes.spread
        drawn, labels = self._draw()
        self._found = np.array([bool((labels == c).any()) for c in targets])
        if method.untargeted:
            came = [np.append(labels, c).tolist().index(c) for c in targets]  # the draw that showed each
            self._found &= np.argsort(np.argsort(came, kind="stable"), kind="stable") < method.untargeted
        self._z = torch.zeros(T, m)
        self._spent = np.zeros(T, np.int64)  # rows of each target, without its share of the draws
        self._R = torch.full((T,), method.radius)
        self._tried, self._count = np.zeros(T, np.int64), np.zeros(T, np.int64)  # at this radius; in all
        self.live = np.flatnonzero(self._found)
        self._start(drawn, labels)
        self.live = self.live[self._pays(self.live)]

    @property
    def mark(self) -> float:
        """Rows for each target so far."""
        return (self._oracle.spent - self._before) / len(self._c)

    def _left(self) -> np.ndarray:
        """Rows that each target still has (T,)."""
        share = (self._oracle.spent - self._before - self._spent.sum()) / len(self._c)  # of the draws
        return np.asarray(self._method.rows - share - self._spent)

    def _pays(self, live: np.ndarray) -> np.ndarray:
        """Whether they can pay for an iteration, a sphere and a step."""
        return np.asarray(self._left()[live] >= self._points(self._R[live]).numpy() + 1)

    def _draw(self) -> tuple[Tensor, np.ndarray]:
        """Codes (n, m) of the prior with their labels (n,), until every target has been seen or the draws are spent."""
        method, T = self._method, len(self._c)
        most, least = min(method.draws, method.rows) * T, method.pool * T if method.first == "mean" else 0
        codes, labels = torch.empty(0, self._prior.card.latent), np.empty(0, np.int64)
        wanted = method.untargeted or T
        while len(codes) < most and (len(codes) < least or np.isin(self._c, labels).sum() < wanted):
            z = self._kept(self._prior.codes.draw(min(_DRAWN, most - len(codes)), self._random))
            codes = torch.cat((codes, z))
            labels = np.append(labels, ask_codes(self._oracle, self._prior, z, None).decision())
        return codes, labels

    def _start(self, drawn: Tensor, labels: np.ndarray) -> None:
        """First points of the targets that were found."""
        if not len(self.live):
            return
        mine = [drawn[labels == c] for c in self._c[self.live]]
        if self._method.first == "draw":
            self._z[self.live] = torch.stack([z[0] for z in mine])
            return
        mean = torch.stack([z.mean(0) for z in mine])
        nearest = torch.stack([z[(z - z.mean(0)).norm(dim=1).argmin()] for z in mine])
        if (self._left() < 1).any():  # the draws have used up the rows that the mean would be asked with
            self._z[self.live] = nearest
            return
        kept = torch.from_numpy(self._labels(mean, self.live) == self._c[self.live])
        self._z[self.live] = torch.where(kept[:, None], mean, nearest)

    def advance(self) -> None:
        """One iteration of every live target: its sphere, and then a larger radius or a step."""
        method, live = self._method, self.live
        z, R = self._z[live], self._R[live]
        N = self._points(R)
        U = torch.randn(len(live), int(N.max()), z.shape[1], generator=self._random)
        U /= U.norm(dim=2, keepdim=True)
        asked = torch.arange(U.shape[1]) < N[:, None]
        points = self._kept(z[:, None] + R[:, None, None] * U)[asked]
        whose = np.repeat(live, N.numpy())
        labels = self._labels(points, whose)
        outside = torch.zeros_like(asked)
        outside[asked] = torch.from_numpy(labels != self._c[whose])
        grown = (outside.sum(1) <= (1 - method.share) * N).numpy()
        M = repulsion(U, outside) * (U.shape[1] / N)[:, None]  # the mean over the N points that were asked
        length = M.norm(dim=1, keepdim=True)
        if method.normalised:
            M = M / length.clamp(min=1e-12)
        moving = np.flatnonzero(~grown & (length[:, 0] > 0).numpy())
        kept = np.zeros(len(live), bool)
        if len(moving):
            to = self._kept(z + (R / 3).clamp(max=method.longest)[:, None] * M)[moving]
            kept[moving] = self._labels(to, live[moving]) == self._c[live[moving]]
            self._z[live[kept]] = to[torch.from_numpy(kept[moving])]
        self._count[live] += 1
        self._tried[live] += kept if method.moves_only else 1
        self._tried[live[grown]] = 0
        self._R[live[grown]] *= method.growth
        if method.reuse and not method.untargeted:
            live = np.append(live, self._adopt(points, labels))
        goes_on = (self._tried[live] < method.iterations) & (self._R[live] <= self._largest()).numpy()
        self.live = live[goes_on & self._pays(live)]

    def _adopt(self, points: Tensor, labels: np.ndarray) -> np.ndarray:
        """Places of the targets that had no first point and have one now, among points with these labels."""
        new = np.flatnonzero(~self._found & np.isin(self._c, labels))
        for t in new:
            self._z[t] = points[np.flatnonzero(labels == self._c[t])[0]]
        self._found[new] = True
        return new

    def _largest(self) -> float:
        """The radius beyond which a sphere says nothing: it no longer lies where the prior has mass."""
        return float(self._scale.norm()) * self._method.mass if self._method.mass else np.inf

    def _points(self, R: Tensor) -> Tensor:
        """N for each radius."""
        method = self._method
        few = torch.full_like(R, method.points) if not method.fewest else method.fewest * R / method.radius
        return few.round().clamp(max=method.points).long()

    def _kept(self, z: Tensor) -> Tensor:
        """Codes (..., m), moved to where the prior has mass."""
        method = self._method
        if method.clamp:
            z = z.clamp(self._middle - method.clamp * self._scale, self._middle + method.clamp * self._scale)
        if method.mass:
            away = (z - self._middle) / self._scale
            length = away.norm(dim=-1, keepdim=True) / z.shape[-1] ** 0.5
            z = torch.where(length > method.mass, self._middle + away / length * method.mass * self._scale, z)
        return z

    def _labels(self, z: Tensor, whose: np.ndarray) -> np.ndarray:
        """Labels (n,) of codes (n, m), asked for the targets in the places `whose` (n,)."""
        self._spent += np.bincount(whose, minlength=len(self._c))
        return ask_codes(self._oracle, self._prior, z, self._c[whose]).decision()

    def snapshot(self) -> Snapshot:
        """The codes as they are; the lowest image for a target that was not found."""
        images = self._prior.images(self._z).clip(self._oracle.low, self._oracle.high)
        images[~self._found] = self._oracle.low
        extras = {"found": self._found.copy(), "radius": self._R.numpy().copy(), "codes": self._z.numpy().copy()}
        return Snapshot(images, self.mark, extras | {"iterations": self._count.copy()})
