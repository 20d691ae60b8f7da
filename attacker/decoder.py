"""The inversion network: from what an oracle released on an image back to the image.

Z. Yang, J. Zhang, E.-C. Chang, Z. Liang, "Neural Network Inversion in Adversarial Setting via Background Knowledge
Alignment", CCS 2019, sections 4.2 and 4.3.

    here                 paper      meaning
    answers              trunc_m(F_w(x))  scores (N, K) in [0, 1], NaN where the contract withholds them
    c                    c          of equation 9, z = log F_w(x) + c; learned
    z                    z          the logits, up to what `standardise` does
    width                -          channels of the last hidden block; each block before it has twice as many
    hidden               -          units of each of two dense layers before the blocks; 0 for none, as in the paper
"""

from __future__ import annotations

import math
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Decoder", "load_decoder", "save_decoder"]

_FORMAT = "mirage inversion network 2"
_FLAT = 1e-6  # variance below which an output tells nothing and is left as it is
_FIRST = 4  # pixels on a side after the first block
_PRESENT = 1.0  # the first value of c: apart from the 0 of a score that is withheld


class Decoder(nn.Module):
    """Transposed convolutions, each but the last with batch norm and tanh; a sigmoid at the end.

    The first block makes 4 x 4 pixels of the answer, each further one doubles the side until the image is covered: four
    blocks for 32 pixels, five for 64, as in the paper. An image of another shape is scaled down to its own.

    Two dense layers (batch norm, leaky ReLU) come first. The paper has none; on full MNIST, ten classes and five epochs
    of 9,000 images, they lower the error on unseen digits from 0.032 to 0.027 for a quarter more time.

    Equation 9 turns scores back into logits, `rescale=False` leaves them as they are (features, say). A score of 0 has
    no logarithm: it counts as `least`. A withheld one counts as 0 on either scale, and flags beside the scores tell
    the network which ones were released. `standardise` brings what comes before c to mean 0 and variance 1.

    Shapes:
        ``(N, answers)`` with NaN where withheld to ``(N, *output_shape)`` in [0, 1].
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        answers: int,
        output_shape: tuple[int, ...],
        width: int = 32,
        *,
        hidden: int = 256,
        rescale: bool = True,
        least: float = 1e-38,
    ) -> None:
        super().__init__()
        if len(output_shape) != 3:
            raise ValueError(f"output_shape must be (C, H, W), not {tuple(output_shape)}: it makes images")
        if min(answers, width, *output_shape) < 1 or hidden < 0 or not 0 < least < 1:
            raise ValueError("answers, width and every side must be at least 1, hidden 0 or more, and 0 < least < 1")
        channels, *size = output_shape
        doublings = max(1, math.ceil(math.log2(max(size) / _FIRST)))
        widths = [width * 2**n for n in reversed(range(doublings))]
        dense = [2 * answers, hidden, hidden] if hidden else [2 * answers]
        self.made: dict[str, Any] = {"answers": answers, "output_shape": tuple(output_shape), "width": width}
        self.made |= {"hidden": hidden, "rescale": rescale, "least": least}
        self.size, self.rescale, self.least = tuple(size), rescale, least
        self.c = nn.Parameter(torch.tensor(_PRESENT))
        self.register_buffer("centre", torch.zeros(answers, dtype=torch.float64))
        self.register_buffer("spread", torch.ones(answers, dtype=torch.float64))
        self.dense = nn.Sequential(
            *(nn.Sequential(nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.LeakyReLU()) for a, b in pairwise(dense))
        )
        self.blocks = nn.Sequential(
            _block(nn.ConvTranspose2d(dense[-1], widths[0], _FIRST, bias=False)),
            *(_block(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False)) for a, b in pairwise(widths)),
            nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1),
        )

    def standardise(self, answers: Tensor) -> None:
        """Take mean and spread of each of the K outputs from answers (N, K), where they were released."""
        z = self._scale(answers)
        present = ~answers.isnan()
        count = present.sum(0).clamp(min=1)
        self.centre.copy_((z * present).sum(0) / count)
        variance = ((z - self.centre) * present).square().sum(0) / count
        self.spread.copy_(torch.where(variance > _FLAT, variance, 1.0).sqrt())

    def forward(self, answers: Tensor) -> Tensor:
        present = ~answers.isnan()
        z = torch.where(present, (self._scale(answers) - self.centre) / self.spread + self.c, 0.0)
        inputs = torch.cat((z, present.to(z.dtype)), 1).float()
        images: Tensor = self.blocks(self.dense(inputs)[:, :, None, None]).sigmoid()
        if images.shape[2:] != self.size:
            images = functional.interpolate(images, self.size, mode="bilinear", antialias=True)
        return images

    @torch.no_grad()
    def invert(self, answers: np.ndarray, batch: int = 500) -> np.ndarray:
        """Images (N, *output_shape) float32 in [0, 1] for answers (N, K), in one pass; the network is in evaluation
        mode afterwards.
        """
        self.eval()
        parts = torch.from_numpy(np.asarray(answers, np.float64)).split(batch)
        return np.asarray(torch.cat([self(part.to(self.c.device)).cpu() for part in parts]).numpy())

    def _scale(self, answers: Tensor) -> Tensor:
        """log F(x) of what was released, in float64; or the answers themselves."""
        p = answers.double().nan_to_num(0.0)
        return p.clamp(min=self.least).log() if self.rescale else p


def save_decoder(network: Decoder, path: Path) -> None:
    """Write a network to a file that `load_decoder` reads; in one step."""
    part = path.with_suffix(".part")
    torch.save({"format": _FORMAT, "made": network.made, "state": network.state_dict()}, part)
    part.replace(path)


def load_decoder(path: Path) -> Decoder:
    """The network in a file, on the CPU, in evaluation mode; `ValueError` for a file that is none."""
    try:
        kept = torch.load(path, weights_only=True, map_location="cpu")
        if kept["format"] != _FORMAT:
            raise ValueError("another format")
        made = kept["made"]
        network = Decoder(made.pop("answers"), tuple(made.pop("output_shape")), **made)
        network.load_state_dict(kept["state"])
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}: name the inversion_network.pt of a finished run") from None
    except (KeyError, TypeError, ValueError, RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is no inversion network: name the inversion_network.pt of a finished run") from error
    return network.eval()


def _block(layer: nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.Tanh())
