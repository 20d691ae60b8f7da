"""Model inversion in the latent space of a generator, with gradients from perturbed codes and released scores.

S. Yoshimura, K. Nakamura, N. Nitta, N. Babaguchi, "Model Inversion Attack against a Face Recognition System in a
Black-Box Setting", APSIPA 2021, section IV.

    here              paper       meaning
    prior             D           the generator, (N, m) -> images; its encoder makes the starts
    perturbations     M           perturbed codes for one gradient
    sizes             sigma^2     how many variances from 1e-4 to 1 are tried
    step              0.1         length of a step, |alpha g|
    most              100         largest learning rate alpha
    confidence        0.99        a search stops when its score exceeds it
    z, L              z^(t), L    codes (N, m), one for each start of each target; -log of the target's score at them
    E, s              E, s        perturbations (N, M, m), and the rise of L at each (N, M)
    g, crit           g, C        equation 14 and equation 17
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from attacker.attacks.latent import ask_codes, log_scores, mean_codes, next_due
from attacker.needs import Needs
from attacker.priors.prior import Prior, prior_for
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["LatentDescent", "Yoshimura", "criterion", "least_squares"]

_VARIANCES = (1e-4, 1.0)


class LatentSlope(Protocol):
    """Where losses and gradients come from: perturbations here, the weights in `yoshimura_white`."""

    def loss(self, z: Tensor, live: np.ndarray) -> np.ndarray:
        """L (n,) of the codes z (n, m), which are those of the searches `live` (n,)."""

    def gradient(self, keep: np.ndarray) -> Tensor:
        """dL/dz (k, m) at the codes of the last `loss` in the places `keep` (k,)."""

    def price(self, i: int) -> int:
        """Rows for each search that step i costs: its loss and its gradient."""


@dataclass(frozen=True)
class LatentDescent:
    """The descent of section IV, for an attack that says where gradients come from: see `Yoshimura`."""

    rows: int = 10_000
    starts: int = 1
    step: float = 0.1
    most: float = 100.0
    confidence: float = 0.99
    prior: Path | None = None
    public: Path | None = None

    def check(self) -> None:
        """`ValueError` for a setting out of range."""
        for name in ("rows", "starts", "step", "most"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        if not 0 < self.confidence <= 1:
            raise ValueError(f"confidence={self.confidence} must be above 0 and at most 1, which no score exceeds")

    def descend(self, f: LatentSlope, prior: Prior, oracle: Oracle, T: int, seed: int) -> Iterator[Snapshot]:
        """All searches side by side: `starts` for each of T targets, search n is of target n // starts."""
        S = self.starts
        z = mean_codes(prior, self.public, oracle, S, seed).repeat(T, 1)
        N = len(z)
        best, least = z.clone(), np.full(N, np.inf)
        steps, paid = np.zeros(N, np.int64), np.zeros(N, np.int64)
        live, spent, due, shown, i = np.arange(N), 0, 0.0, -1.0, 0
        before = oracle.spent

        def snapshot() -> Snapshot:
            images = prior.images(best).clip(oracle.low, oracle.high).reshape(T, S, *oracle.input_shape)
            top = least.reshape(T, S).argmin(1)
            score = np.exp(-least).reshape(T, S)
            extras = {"start_images": images, "start_confidence": score}
            extras |= {"start_codes": best.reshape(T, S, -1).numpy().copy()}
            extras |= {"start_steps": steps.reshape(T, S).copy(), "start_rows": paid.reshape(T, S).copy()}
            spent_on = (oracle.spent - before) / T
            mark = spent_on if spent_on else float(paid.sum() / T)  # a white box asks nothing: its own steps
            return Snapshot(images[np.arange(T), top].copy(), mark, extras)

        while len(live) and spent + f.price(i) <= self.rows:
            L = f.loss(z[live], live)
            better = least[live] > L
            best[live[better]], least[live[better]] = z[live[better]], L[better]
            keep = np.flatnonzero(np.exp(-L) <= self.confidence)
            paid[live] = spent + 1
            if len(keep):
                g = f.gradient(keep)
                alpha = (self.step / g.norm(dim=1, keepdim=True)).clamp(max=self.most)  # section V-A
                z[live[keep]] -= torch.where(g.any(1, keepdim=True), alpha * g, 0)  # equation 15
            live = live[keep]
            spent += f.price(i)
            paid[live], steps[live] = spent, i + 1
            i += 1
            if paid.sum() / T >= due:
                yield (now := snapshot())
                due, shown = next_due(now.mark), now.mark
        if (last := snapshot()).mark > shown:
            yield last


@dataclass(frozen=True)
class Yoshimura(LatentDescent):
    """Least-squares gradients from Gaussian perturbations, whose size criterion C chooses.

    `rows` is the most for each start; there are `starts` of them for each target, and the target's image is that of the
    start with the largest released score. All searches advance together; a step costs each 1 + M rows, and M more for
    every further size that it tries (every `choose_every` steps). Extras: `start_images` (T, S, C, H, W), `start_codes`
    (T, S, m), `start_confidence`, `start_steps` and `start_rows` (T, S), of every start at its best code.

    `estimator` "central" or "one_sided" takes differences along each of the m axes of the latent space instead, a probe
    of `size` long: 1 + 2m or 1 + m rows a step.

    Differences from the reference:
    - The paper chooses the size anew, by its words, at every step. The rows for the sizes that are not chosen are
      charged too, hence `choose_every`. All sizes are tried with the same directions.
    - A prior without an encoder starts at the mean of 16 of its own draws.
    - The result is the code with the largest released score on the way, not the last one.
    - Contracts that the paper leaves to later work: `attacker.attacks.latent.log_scores` says what a withheld score or
      one of 0 counts as. Where no perturbation changes an answer, a search stands still and draws others.
    """

    needs: ClassVar[Needs] = Needs.SCORES
    kind: ClassVar[str] = "black box, latent space, estimated gradient"
    paper: ClassVar[str] = "Yoshimura et al., APSIPA 2021"

    estimator: Literal["least_squares", "central", "one_sided"] = "least_squares"
    perturbations: int = 64
    sizes: int = 5
    choose_every: int = 1
    size: float = 0.1

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Reconstruct one image of each of `targets`; `seed` makes the starts and the perturbations."""
        self.check()
        if self.estimator not in ("least_squares", "central", "one_sided"):
            raise ValueError(f"estimator={self.estimator!r} must be 'least_squares', 'central' or 'one_sided'")
        if min(self.sizes, self.choose_every) < 1 or not self.size > 0:
            raise ValueError("sizes, choose_every and size must be above 0")
        prior = prior_for(self.prior, oracle)
        m = prior.card.latent
        if self.estimator == "least_squares" and self.perturbations < m:
            raise ValueError(f"perturbations={self.perturbations} must be at least the latent size, {m} (section IV-B)")
        f = _Perturbed(self, oracle, prior, np.repeat(np.asarray(targets), self.starts), seed)
        if self.rows < f.price(0):
            raise ValueError(f"rows={self.rows} do not pay for the first step, which costs {f.price(0)}: allow more")
        yield from self.descend(f, prior, oracle, len(targets), seed)


class _Perturbed:
    """Losses from answers, gradients from those at perturbed codes."""

    def __init__(self, method: Yoshimura, oracle: Oracle, prior: Prior, labels: np.ndarray, seed: int) -> None:
        self._method, self._oracle, self._prior, self._labels = method, oracle, prior, labels
        self._random = torch.Generator().manual_seed(seed)
        self._sigma = torch.full((len(labels),), torch.nan)  # the size chosen for each search
        self._i = 0

    def price(self, i: int) -> int:
        m = self._prior.card.latent
        if self._method.estimator == "least_squares":
            return 1 + self._method.perturbations * (self._method.sizes if self._chooses(i) else 1)
        return 1 + m * (2 if self._method.estimator == "central" else 1)

    def _chooses(self, i: int) -> bool:
        return i % self._method.choose_every == 0

    def loss(self, z: Tensor, live: np.ndarray) -> np.ndarray:
        self._z, self._live = z, live
        self._L = self._ask(z[:, None], live)[:, 0]
        return self._L

    def gradient(self, keep: np.ndarray) -> Tensor:
        z, live, L = self._z[keep], self._live[keep], torch.from_numpy(self._L[keep])
        i, self._i = self._i, self._i + 1
        n, m = z.shape
        if self._method.estimator != "least_squares":
            return self._differences(z, live, L)
        U = torch.randn(n, self._method.perturbations, m, generator=self._random)
        if not self._chooses(i):
            E = self._sigma[live, None, None] * U
            s = torch.from_numpy(self._ask(z[:, None] + E, live)) - L[:, None]
            return least_squares(E, s)
        low, high = np.log10(_VARIANCES)
        tried = [float(10 ** (power / 2)) for power in np.linspace(low, high, self._method.sizes)]
        E = torch.stack([sigma * U for sigma in tried], 1)  # (n, sizes, M, m)
        rise = torch.from_numpy(self._ask((z[:, None, None] + E).flatten(1, 2), live))
        s = rise.unflatten(1, E.shape[1:3]) - L[:, None, None]
        g = least_squares(E.flatten(0, 1), s.flatten(0, 1)).unflatten(0, (n, -1))
        chosen = criterion(E, s, g).argmin(1)
        self._sigma[live] = torch.tensor(tried, dtype=torch.float32)[chosen]
        best: Tensor = g[torch.arange(n), chosen]
        return best

    def _differences(self, z: Tensor, live: np.ndarray, L: Tensor) -> Tensor:
        h, axes = self._method.size, torch.eye(z.shape[1])
        if self._method.estimator == "one_sided":
            up = torch.from_numpy(self._ask(z[:, None] + h * axes, live))
            return ((up - L[:, None]) / h).float()
        up, down = torch.from_numpy(self._ask(z[:, None] + h * torch.cat((axes, -axes)), live)).chunk(2, 1)
        return ((up - down) / (2 * h)).float()

    def _ask(self, z: Tensor, live: np.ndarray) -> np.ndarray:
        """L (n, k) at codes (n, k, m)."""
        labels = np.repeat(self._labels[live], z.shape[1])
        answer = ask_codes(self._oracle, self._prior, z.flatten(0, 1), labels)
        return -log_scores(answer, labels, self._oracle.contract.round_to).reshape(z.shape[:2])


def least_squares(E: Tensor, s: Tensor) -> Tensor:
    """Equation 14: g (..., m) = (E^T E)^-1 E^T s of perturbations (..., M, m) and rises (..., M), in float64."""
    wide = E.double()
    g: Tensor = torch.linalg.solve(wide.mT @ wide, (wide.mT @ s.double()[..., None]))[..., 0]
    return g.to(E.dtype)


def criterion(E: Tensor, s: Tensor, g: Tensor) -> Tensor:
    """Equation 17: C (...), the share of s that g leaves unexplained; infinite where s is zero."""
    s = s.double()
    left = (s - (E.double() @ g.double()[..., None])[..., 0]).square().sum(-1)
    whole = s.square().sum(-1)
    return torch.where(whole > 0, left / whole, torch.inf)
