"""Style-based GAN: a mapping turns a code into a style, and each layer of the synthesis takes a style of its own.

T. Karras, S. Laine, T. Aila, "A Style-Based Generator Architecture for Generative Adversarial Networks", CVPR 2019;
T. Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020. The critic, its loss and the
shifts before it are in `attacker.priors.critic`.

    here        paper     meaning
    z           z         a code, m = `latent` numbers from N(0, I)
    style       w         what the mapping makes of it, d = `style` numbers; in the extended space one for each layer
    s           s         a scale for each channel that goes into a convolution, an affine map of its style
    w           w         the convolution's weights, which all images share
    L           -         layers: one at the smallest side, two at each side after it
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from attacker.priors.codes import Codes
from attacker.priors.critic import Critic, Loss, check_settings, contend
from attacker.priors.layered import Layered
from attacker.priors.layers import doublings, finished, widths
from attacker.priors.learning import Learned, Learning
from attacker.priors.rounds import Draws, unit_images

__all__ = ["Mapping", "Modulated", "Style", "Synthesis"]

_SLOPE = 0.2  # of a leaky ReLU below 0
_DEEP = 3  # linear layers of the mapping
_EPS = 1e-8  # keeps a division from one by 0
_CENTRE = 0.01  # the same for codes: the mapping can be differentiated at z = 0, where a search may start


@dataclass(frozen=True)
class Style:
    """In turn `critic_steps` steps of the critic and one of mapping and synthesis; what is kept is the running average
    of their weights. In a share `mixing` of images two codes share the layers, the first up to a layer that is drawn,
    so that the synthesis learns to take a code for each layer. No batch norm keeps images apart: with "hinge" and a
    `learning_rate` of 1e-3 all digits became one.

    Before the critic looks, real and generated images are shifted alike by up to `shift` of a side, which hinders it
    from learning a few images by heart (0.125, for some hundred). With `mirrored` an image is exchanged left and right
    every second time, which suits faces and not digits.

    Differences from the reference: no noise inputs, so that an image is a function of its code; the plain critic of our
    DCGAN, the Wasserstein loss with `penalty` times its gradient penalty; no equalised learning rates or penalty on
    path lengths; nearest neighbours in place of filtered upsampling; images of all sides are added up by maps without
    a style, before a sigmoid; a mapping of three layers, which divides codes by their length, less so near 0; fewer
    channels.
    """

    kind: ClassVar[str] = "style-based generative adversarial network"
    paper: ClassVar[str] = "Karras et al., CVPR 2020"

    latent: int = 32
    style: int = 64
    steps: int = 3000
    batch_size: int = 32
    learning_rate: float = 5e-4
    critic_rate: float = 8e-4
    width: int = 64
    average: float = 0.995
    mixing: float = 0.5
    shift: float = 0.0
    mirrored: bool = True
    loss: Loss = "wasserstein"
    penalty: float = 10.0
    critic_steps: int = 1

    def learn(self, images: np.ndarray, seed: int, learning: Learning) -> Learned:
        """Train on images (N, C, H, W); `seed` draws weights, batches, codes. `ValueError` for a setting out of range
        or images that are too small; a training that was stopped goes on.
        """
        self._check()
        shape = tuple(images.shape[1:])
        doublings(shape)
        x = unit_images(images, learning)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            synthesis = Synthesis(self.style, shape, self.width, low=learning.low, high=learning.high)
            G = Layered(Mapping(self.latent, self.style), synthesis, synthesis.layers)
            D = Critic(shape, self.width, low=learning.low, high=learning.high, spectral=self.loss != "wasserstein")

        def make(size: int, draws: Draws) -> Tensor:
            one, other = G.mapping(draws.normal(2 * size, self.latent)).chunk(2)
            return synthesis.unit(self._mix(one, other, G.layers, draws))

        E = contend(self, x, make, G, D, seed, learning)
        return Learned(finished(E), Codes.standard(self.latent), critic=D.finished())

    def _mix(self, one: Tensor, other: Tensor, L: int, draws: Draws) -> Tensor:
        """Styles (N, L, d) of two (N, d): of `one` alone, or of `other` from a layer on that is drawn."""
        mixed, place = draws.uniform(2, len(one), 1)
        first = torch.where(mixed < self.mixing, (1 + place * (L - 1)).floor(), L)
        later = torch.arange(L, device=first.device) >= first
        return torch.where(later[..., None], other[:, None], one[:, None])

    def _check(self) -> None:
        check_settings(self)
        for name in ("style", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.mixing <= 1:
            raise ValueError(f"mixing={self.mixing} must lie between 0 and 1: it is a share of images")


class Mapping(nn.Module):
    """Linear layers with leaky ReLU, on a code that is divided by its length.

    Shapes:
        ``(N, m)`` to ``(N, d)``.
    """

    def __init__(self, m: int, d: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for k in range(_DEEP):
            linear = nn.Linear(d if k else m, d)
            nn.init.kaiming_normal_(linear.weight, _SLOPE)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.LeakyReLU(_SLOPE)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        style: Tensor = self.layers(z * (z.square().mean(1, keepdim=True) + _CENTRE).rsqrt())
        return style


class Modulated(nn.Module):
    """A convolution whose weights each image scales by s and then to length 1, output by output (demodulation). Both
    scales leave the sum over inputs: channels are scaled by s before a convolution that all images share, and by
    1 / sqrt(sum (w s)^2) after it.

    Shapes:
        ``(N, A, H, W)`` and a style ``(N, d)`` to ``(N, B, H, W)``.
    """

    def __init__(self, d: int, a: int, b: int) -> None:
        super().__init__()
        self.affine = nn.Linear(d, a)
        self.weight = nn.Parameter(torch.randn(b, a, 3, 3) / math.sqrt(9 * a))
        self.bias = nn.Parameter(torch.zeros(b))
        nn.init.normal_(self.affine.weight, std=1 / math.sqrt(d))
        nn.init.ones_(self.affine.bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        s = self.affine(style)
        length = (s.square() @ self.weight.square().sum((2, 3)).T + _EPS).sqrt()
        y: Tensor = functional.conv2d(x * s[..., None, None], self.weight, padding=1) / length[..., None, None]
        return y + self.bias[:, None, None]


class Synthesis(nn.Module):
    """A learned constant, then one modulated convolution on the smallest side and two on each that is twice as large;
    each side adds to the image, and a sigmoid ends it, scaled to [low, high].

    What is made is as large as the image or up to 2^n - 1 pixels larger, and cut to its size.

    Shapes:
        ``(N, L, d)`` to ``(N, C, H, W)``.
    """

    def __init__(self, d: int, shape: tuple[int, ...], w: int, *, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        n = doublings(shape)
        wide = widths(n + 1, w)
        self.low, self.range, self.height, self.width = low, high - low, shape[1], shape[2]
        self.constant = nn.Parameter(torch.randn(1, wide[0], -(-shape[1] // 2**n), -(-shape[2] // 2**n)))
        sizes = [(wide[0], wide[0])]
        for a, b in pairwise(wide):
            sizes += [(a, b), (b, b)]
        self.convolutions = nn.ModuleList(Modulated(d, a, b) for a, b in sizes)
        self.to_image = nn.ModuleList(nn.Conv2d(b, shape[0], 1) for b in wide)

    @property
    def layers(self) -> int:
        """L = 1 + 2n."""
        return len(self.convolutions)

    def unit(self, style: Tensor) -> Tensor:
        """Images in [0, 1]."""
        x: Tensor = self.constant
        image: Tensor | None = None
        for k, convolution in enumerate(self.convolutions):
            if k % 2:
                x = _twice(x, "nearest")
            x = functional.leaky_relu(convolution(x, style[:, k]), _SLOPE)
            if k % 2 == 0:
                seen = self.to_image[k // 2](x)
                image = seen if image is None else seen + _twice(image, "bilinear")
        assert image is not None
        return image[:, :, : self.height, : self.width].sigmoid()

    def forward(self, style: Tensor) -> Tensor:
        return self.low + self.range * self.unit(style)


def _twice(x: Tensor, mode: str) -> Tensor:
    """Images of twice the side."""
    grown: Tensor = functional.interpolate(x, scale_factor=2.0, mode=mode)
    return grown
