"""The critic of adversarial training, and its contest with a generator: what all such priors share.

Spectral norm and the hinge loss: T. Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR
2018. The Wasserstein loss with a gradient penalty: I. Gulrajani et al., "Improved Training of Wasserstein GANs",
NeurIPS 2017. Shifts of real and generated images: S. Zhao et al., "Differentiable Augmentation for Data-Efficient GAN
Training", NeurIPS 2020.

    here        paper     meaning
    x           x         a public image, pixels scaled to [0, 1]
    z           z         what the generator makes an image of
    G, D        G, D      generator and critic
    E           -         G with the running average of its weights: the prior
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from attacker.priors.average import follow
from attacker.priors.layers import doublings, finished, widths
from attacker.priors.learning import Learning
from attacker.priors.rounds import Draws, work_through

__all__ = ["BETAS", "Contest", "Critic", "Loss", "check_settings", "contend", "gradient_penalty"]

BETAS = (0.0, 0.9)  # of Adam
Loss = Literal["hinge", "wasserstein"]


class Critic(nn.Module):
    """n convolutions that halve the side, with leaky ReLU; one number at the end. `spectral` norm for the hinge loss;
    the Wasserstein loss has its gradient penalty instead. Never batch norm: what it says of an image, it says of that
    one alone.

    Pixels go in between -1 and 1: spectral norm bounds how much that number changes with the image, and between 0 and 1
    the critic tells images apart half as well.

    Shapes:
        ``(N, C, H, W)`` between low and high to ``(N, 1)``; the greater, the more natural.
    """

    def __init__(
        self, shape: tuple[int, ...], w: int, *, low: float = 0.0, high: float = 1.0, spectral: bool = True
    ) -> None:
        super().__init__()
        n = doublings(shape)
        self.low, self.range = low, high - low
        normed: Callable[[nn.Module], nn.Module] = spectral_norm if spectral else nn.Identity()
        blocks: list[nn.Module] = []
        for a, b in pairwise((shape[0], *reversed(widths(n, w)))):
            blocks += [normed(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2)]
        last = nn.Linear(b * (shape[1] // 2**n) * (shape[2] // 2**n), 1)
        self.layers = nn.Sequential(*blocks, nn.Flatten(), normed(last))

    def unit(self, x: Tensor) -> Tensor:
        """What it says of images in [0, 1]."""
        told: Tensor = self.layers(2 * x - 1)
        return told

    def forward(self, x: Tensor) -> Tensor:
        return self.unit((x - self.low) / self.range)

    def finished(self) -> nn.Module:
        """As a prior keeps it: the weights that spectral norm makes are put in the place of what makes them."""
        finished(self)  # in evaluation mode first: in training it would take one more step of the power iteration
        for layer in self.layers:
            if is_parametrized(layer, "weight"):
                remove_parametrizations(layer, "weight", leave_parametrized=True)
        return self.requires_grad_(False)


@dataclass(frozen=True, eq=False)
class Contest:
    """In turn `critic_steps` steps of D and one of G, after which E follows G.

    D: with "hinge" on max(0, 1 - D(x)) + max(0, 1 + D(G(z))), with "wasserstein" on D(G(z)) - D(x) and `penalty` times
    the gradient penalty. G: on -D(G(z)). Before D looks, real and generated images are shifted alike.

    method   settings of the prior, such as DCGAN
    x        all public images, for the steps of D after the first
    make     batch size and draws to images in [0, 1], made by G
    """

    method: Any
    x: Tensor
    make: Callable[[int, Draws], Tensor]
    G: nn.Module
    D: Critic
    E: nn.Module
    for_g: torch.optim.Optimizer
    for_d: torch.optim.Optimizer

    def step(self, batch: Tensor, draws: Draws, number: int) -> dict[str, float]:
        """One turn; both losses."""
        further = draws.batches(self.x, self.method.batch_size, self.method.mirrored)  # draws nothing until it is asked
        for x in islice(further, self.method.critic_steps - 1):
            with torch.no_grad():
                made = self.make(len(x), draws)
            place = self._place(draws, tuple(x.shape[1:]))
            self._teach(place(x), place(made), draws)
        made = self.make(len(batch), draws)
        place = self._place(draws, tuple(batch.shape[1:]))
        batch, made = place(batch), place(made)
        loss = self._teach(batch, made.detach(), draws)
        self.D.requires_grad_(False)
        fooled = -self.D.unit(made).mean()
        self.for_g.zero_grad()
        fooled.backward()
        self.for_g.step()
        self.D.requires_grad_(True)
        follow(self.E, self.G, number, self.method.average)
        return {"critic": loss, "generator": float(fooled.detach())}

    def _teach(self, x: Tensor, made: Tensor, draws: Draws) -> float:
        """One step of D."""
        if self.method.loss == "hinge":
            loss = functional.relu(1 - self.D.unit(x)).mean() + functional.relu(1 + self.D.unit(made)).mean()
        else:
            loss = self.D.unit(made).mean() - self.D.unit(x).mean()
            loss = loss + self.method.penalty * gradient_penalty(self.D.unit, x, made, draws.uniform(len(x), 1, 1, 1))
        self.for_d.zero_grad()
        loss.backward()
        self.for_d.step()
        return float(loss.detach())

    def _place(self, draws: Draws, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
        """One shift for all images of a step; what lies beyond an edge is the edge's own pixels."""
        down, right = (int(self.method.shift * side) for side in shape[1:])
        top, left = draws.whole(2 * down + 1), draws.whole(2 * right + 1)

        def place(x: Tensor) -> Tensor:
            padded = functional.pad(x, (right, right, down, down), mode="replicate")
            return padded[:, :, top : top + shape[1], left : left + shape[2]]

        return place


def contend(
    method: Any,
    x: Tensor,
    make: Callable[[int, Draws], Tensor],
    G: nn.Module,
    D: Critic,
    seed: int,
    learning: Learning,
) -> nn.Module:
    """Train G and D on images x (N, C, H, W) with the settings of `method`; the average of G's weights. A training that
    was stopped goes on.
    """
    E = copy.deepcopy(G)
    networks = nn.ModuleList((G, D, E)).to(learning.device).to(memory_format=torch.channels_last).train()
    for_g = torch.optim.Adam(G.parameters(), method.learning_rate, betas=BETAS)
    for_d = torch.optim.Adam(D.parameters(), method.critic_rate, betas=BETAS)
    work_through(
        Contest(method, x, make, G, D, E, for_g, for_d).step,
        method.steps,
        method,
        seed,
        x,
        networks,
        (for_g, for_d),
        learning,
        batch_size=method.batch_size,
        mirrored=method.mirrored,
        curves=("critic", "generator"),
    )
    return E


def gradient_penalty(D: Callable[[Tensor], Tensor], x: Tensor, made: Tensor, between: Tensor) -> Tensor:
    """Mean of (|grad D| - 1)^2 at x + between * (made - x), a place for each image: between (N, 1, 1, 1) in [0, 1]."""
    at = x.lerp(made, between).requires_grad_(True)
    (slope,) = torch.autograd.grad(D(at).sum(), at, create_graph=True)
    penalty: Tensor = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


def check_settings(method: Any) -> None:
    """`ValueError` for a setting out of range that all of them have."""
    for name in ("latent", "steps", "width", "critic_steps"):
        if getattr(method, name) < 1:
            raise ValueError(f"{name}={getattr(method, name)} must be at least 1")
    for name in ("learning_rate", "critic_rate"):
        if not 0 < getattr(method, name) < math.inf:
            raise ValueError(f"{name}={getattr(method, name)} must be above 0 and finite")
    if not 0 <= method.average < 1:
        raise ValueError(f"average={method.average} must be at least 0 and below 1")
    if not 0 <= method.shift <= 0.5:
        raise ValueError(f"shift={method.shift} must lie between 0 and 0.5: it is a share of a side")
    if method.loss not in get_args(Loss):
        raise ValueError(f"loss={method.loss} must be one of {', '.join(get_args(Loss))}")
    if not 0 <= method.penalty < math.inf:
        raise ValueError(f"penalty={method.penalty} must be at least 0 and finite")
