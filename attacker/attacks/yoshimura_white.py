"""The white-box twin of `yoshimura`: the same descent with the gradient that the weights give (equations 7 and 8).

S. Yoshimura, K. Nakamura, N. Nitta, N. Babaguchi, "Model Inversion Attack against a Face Recognition System in a
Black-Box Setting", APSIPA 2021, section IV-A. Notation as in `yoshimura`; R is the target model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from attacker.attacks.yoshimura import LatentDescent
from attacker.needs import Needs
from attacker.priors.prior import Prior, prior_for
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["YoshimuraWhite"]


@dataclass(frozen=True)
class YoshimuraWhite(LatentDescent):
    """`Yoshimura` with downloaded weights: with the same seed, prior and public data it has the same starts.

    `rows` are steps here, the most for each start; marks are steps for each target, all starts together. Extras as
    there.
    """

    needs: ClassVar[Needs] = Needs.WEIGHTS
    kind: ClassVar[str] = "white box, latent space, gradient descent"
    paper: ClassVar[str] = "Yoshimura et al., APSIPA 2021, section IV-A"

    rows: int = 200

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Reconstruct one image of each of `targets`; `seed` makes the starts."""
        self.check()
        prior = prior_for(self.prior, oracle)
        f = _Exact(oracle.model(), prior, np.repeat(np.asarray(targets), self.starts))
        yield from self.descend(f, prior, oracle, len(targets), seed)


class _Exact:
    """Losses and gradients from R(D(z)): a pass forward and one back."""

    def __init__(self, model: nn.Module, prior: Prior, labels: np.ndarray) -> None:
        self._model, self._prior, self._labels = model, prior, torch.from_numpy(labels)

    def price(self, i: int) -> int:
        return 1

    def loss(self, z: Tensor, live: np.ndarray) -> np.ndarray:
        self._z = z.detach().requires_grad_()
        with torch.enable_grad():
            logits = self._model(self._prior.decode(self._z))
            self._L = functional.cross_entropy(logits.double(), self._labels[live], reduction="none")  # equation 3
        return self._L.detach().numpy()

    def gradient(self, keep: np.ndarray) -> Tensor:
        (g,) = torch.autograd.grad(self._L.sum(), self._z)  # equation 8
        return g[keep]
