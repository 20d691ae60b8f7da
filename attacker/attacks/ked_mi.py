"""KED-MI: a GAN that learns from the target's soft labels, then a distribution of codes for each target.

S. Chen, M. Kahla, R. Jia, G.-J. Qi, "Knowledge-Enriched Distributional Model Inversion Attacks", ICCV 2021. Real or
generated from C outputs: T. Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, section 5.

    here           paper      meaning
    entropy        lambda_h   of the entropy of the target's prediction, beside feature matching, in G's loss
    weight         lambda_i   of the identity loss beside the prior loss
    steps          2,400      of Adam on mean and deviation
    step           0.02       its learning rate
    batch          -          draws of each target in a step
    x, z           x, z       a public image, pixels scaled to [0, 1]; a code, m = `latent` numbers from N(0, I)
    G, D           G, D       generator and discriminator, which has an output for each of the target's C classes
    f              f          what D's last layer is given
    Z              Z          log-sum-exp of D's outputs: the logit of "real"
    E              -          G with the running average of its weights, from which images are made
    q              N(mu, sigma)  a Gaussian for each target, with a diagonal covariance
    T, S           -          targets, draws of a step
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from attacker.attacks.descent import check_above, identity_loss, lowest
from attacker.attacks.families import Gaussian
from attacker.attacks.latent import next_due
from attacker.needs import Needs
from attacker.on_device import OnDevice
from attacker.priors import rounds
from attacker.priors.average import follow, settle
from attacker.priors.codes import Codes
from attacker.priors.critic import BETAS, Critic
from attacker.priors.layers import Generator, doublings, finished
from attacker.priors.learning import Learning
from attacker.priors.prior import Prior, PriorCard
from attacker.public import public_images
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["KEDMI", "Discriminator", "contest_loss", "label_loss", "prior_loss"]

_AVERAGE = 0.995  # of G's weights that E keeps at a step
_AT_ONCE = 256  # images of one pass without gradient


class Discriminator(Critic):
    """The critic of the priors with C outputs."""

    def __init__(self, shape: tuple[int, ...], w: int, classes: int, *, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(shape, w, low=low, high=high)
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        self.layers[-1] = spectral_norm(nn.Linear(last.in_features, classes))

    def features(self, x: Tensor) -> Tensor:
        """f of images in [0, 1], (N, d)."""
        told: Tensor = self.layers[:-1](2 * x - 1)
        return told


def label_loss(told: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of D's outputs (N, C) on public images against the target's soft labels (N, C)."""
    return functional.cross_entropy(told, labels)


def contest_loss(told: Tensor, of_made: Tensor) -> Tensor:
    """-log p(real) of public images and -log(1 - p(real)) of generated ones, from D's outputs (N, C) on either, where
    p(real) = e^Z / (e^Z + 1).
    """
    return prior_loss(told).mean() + functional.softplus(of_made.logsumexp(1)).mean()


def prior_loss(told: Tensor) -> Tensor:
    """-log p(real) (N,) = softplus(Z) - Z, from D's outputs (N, C)."""
    return functional.softplus(-told.logsumexp(1))


@dataclass(frozen=True)
class KEDMI:
    """Train G and D on `public`/images.npy with the target's soft labels, then minimise over mean and deviation of q
    E_q[prior loss + weight * cross-entropy of the target on E(z)], for all targets in one batch.

    What is found is a distribution: the last snapshot holds n = `samples` images of each target, drawn from q, in
    `samples` (T, n, *shape), with their `codes` (T, n, m), and the `divergence` (T,) of q from N(0, I) in nats. The
    image of a target is, of the last step's draws, the one with the lowest loss.

    Marks are evaluations of the target model for each target: those of its own draws, and its share of the
    `evaluations_training` (), soft labels and (unless `entropy` is 0) generated images, which serve all targets.
    A training that was stopped goes on after its last round.

    Differences from the reference:
    - D has spectral norm in place of batch and layer norms, G and D the layers of our other GANs.
    - Images are made by an average of G's weights, of the last 200 steps or so.
    - With `mirrored` an image is exchanged left and right every second time, and keeps its soft label; this suits
      faces and not digits.
    - Far fewer steps of training; public images are the same in both parts of D's loss.
    """

    needs: ClassVar[Needs] = Needs.WEIGHTS
    kind: ClassVar[str] = "white box, latent space, variational"
    paper: ClassVar[str] = "Chen et al., ICCV 2021"

    latent: int = 32
    training_steps: int = 2000
    batch_size: int = 32
    width: int = 64
    learning_rate: float = 4e-4
    critic_rate: float = 8e-4
    entropy: float = 1e-4
    mirrored: bool = True
    weight: float = 100.0
    steps: int = 2400
    batch: int = 8
    step: float = 0.02
    samples: int = 100
    public: Path | None = None

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Fit a distribution to each of `targets`; `seed` draws weights, batches, noise. `ValueError` without public
        images, or for ones that are too small.
        """
        x, model = self._checked(oracle), oracle.model()
        prior, D = self._learn(oracle, model, x, seed)
        T, S, m = len(targets), self.batch, self.latent
        label = torch.as_tensor(targets).repeat_interleave(S)
        random = torch.Generator().manual_seed(seed)
        q = Gaussian(T, m, random)
        descent = torch.optim.Adam(q.parameters(), self.step)
        shared = len(x) + (self.training_steps * min(self.batch_size, len(x)) if self.entropy else 0)
        due = 0.0
        for i in range(self.steps):
            with torch.enable_grad():
                z = q.draw(S, random)[0].flatten(0, 1)  # mu + sigma * epsilon, (T * S, m)
                made = prior.decode(z)
                loss = prior_loss(D(made)) + self.weight * identity_loss(model(made), label, "cross_entropy")
                loss = loss.reshape(T, S)
                descent.zero_grad()
                loss.mean(1).sum().backward()
            mark, last = shared / T + (i + 1) * S, i + 1 == self.steps
            best = z.detach()[lowest(loss)]
            if not last and mark >= due:
                yield Snapshot(prior.images(best), mark)
                due = next_due(mark)
            descent.step()
        with torch.no_grad():
            codes, divergence = q.draw(self.samples, random)[0], q.divergence()
        drawn = prior.images(codes.flatten(0, 1))
        extras: dict[str, np.ndarray] = {
            "samples": drawn.reshape(T, self.samples, *drawn.shape[1:]),
            "codes": codes.numpy(),
            "divergence": divergence.numpy(),
            "evaluations_training": np.array(shared),
        }
        yield Snapshot(prior.images(best), mark, extras)

    def _learn(self, oracle: Oracle, model: nn.Module, images: np.ndarray, seed: int) -> tuple[Prior, nn.Module]:
        """E as a prior, and D, which takes its images."""
        shape, device, low, high = tuple(images.shape[1:]), oracle.device, oracle.low, oracle.high

        def tell(done: int, total: int, words: str) -> None:
            if done % rounds.STEPS == 0 or done == total:
                oracle.notice(f"training: step {done} of {total} {words}")

        learning = Learning(oracle.folder, device, low, high, tell)
        x, labels = rounds.unit_images(images, learning), _soft_labels(model, images).to(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            G = Generator(self.latent, shape, self.width, low=low, high=high)
            D = Discriminator(shape, self.width, labels.shape[1], low=low, high=high)
        E = copy.deepcopy(G)
        networks = nn.ModuleList((G, D, E)).to(device).to(memory_format=torch.channels_last).train()
        for_g = torch.optim.Adam(G.parameters(), self.learning_rate, betas=BETAS)
        for_d = torch.optim.Adam(D.parameters(), self.critic_rate, betas=BETAS)

        def step(places: Tensor, draws: rounds.Draws, number: int) -> dict[str, float]:
            places = places.flatten()
            real = x[places]
            if self.mirrored:
                flip = draws.uniform(len(real), 1, 1, 1) < 0.5
                real = torch.where(flip, real.flip(-1), real)
            real = real.contiguous(memory_format=torch.channels_last)
            made = G(draws.normal(len(real), self.latent))
            unit = (made - low) / (high - low)
            # D: the target's knowledge, and real or generated
            told = D.unit(real)
            for_d.zero_grad()
            known, contest = label_loss(told, labels[places]), contest_loss(told, D.unit(unit.detach()))
            (known + contest).backward()
            for_d.step()
            # G: feature matching, and images of which the target is sure
            D.requires_grad_(False)
            with torch.no_grad():
                wanted = D.features(real).mean(0)
            matching = (D.features(unit).mean(0) - wanted).abs().mean()
            unsure = _entropy(model(made)) if self.entropy else torch.zeros((), device=device)
            for_g.zero_grad()
            (matching + self.entropy * unsure).backward()
            for_g.step()
            D.requires_grad_(True)
            follow(E, G, number, _AVERAGE)
            values = {"labels": known, "critic": contest, "matching": matching, "entropy": unsure}
            return {name: float(value.detach()) for name, value in values.items()}

        digest = hashlib.sha256(x.cpu().numpy().tobytes() + labels.cpu().numpy().tobytes()).hexdigest()
        rounds.work_through(
            step,
            self.training_steps,
            (self, digest),
            seed,
            torch.arange(len(x), device=device).reshape(-1, 1, 1, 1),  # a batch is the places of its images and labels
            networks,
            (for_g, for_d),
            learning,
            batch_size=self.batch_size,
            mirrored=False,
            curves=("labels", "critic", "matching", "entropy"),
        )
        draws = rounds.Draws(seed, -1 % 2**32, device)
        settle(E, lambda: draws.normal(max(self.batch_size, 64), self.latent))
        card = PriorCard("ked_mi", self.latent, shape, low, high, "")
        E_, D_ = (OnDevice(network.to(device), device) for network in (finished(E), D.finished()))
        return Prior(card, E_, Codes.standard(self.latent)), D_

    def _checked(self, oracle: Oracle) -> np.ndarray:
        """The public images (N, C, H, W); `ValueError` for a setting out of range, or images that don't fit."""
        check_above(self, "latent", "training_steps", "width", "learning_rate", "critic_rate")
        check_above(self, "weight", "steps", "batch", "step", "samples")
        if self.batch_size < 2:
            raise ValueError(f"batch_size={self.batch_size} must be at least 2: batch norm compares images")
        if not 0 <= self.entropy < math.inf:
            raise ValueError(f"entropy={self.entropy} must be at least 0 and finite")
        if self.public is None:
            raise ValueError("ked_mi trains a GAN on public images: name a folder with images.npy (--public)")
        doublings(tuple(oracle.input_shape))
        return np.asarray(public_images(self.public, oracle), np.float32).clip(oracle.low, oracle.high)


@torch.no_grad()
def _soft_labels(model: nn.Module, images: np.ndarray) -> Tensor:
    """The target's softmax (N, C) on images (N, C, H, W)."""
    return torch.cat([model(part).softmax(1) for part in torch.from_numpy(images).split(_AT_ONCE)])


def _entropy(logits: Tensor) -> Tensor:
    """Of predictions, in nats, averaged over them."""
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1).mean()
