"""An image prior: a generator learned from public images, as attacks use it and as it lies on disk.

    here          meaning
    z             a code, (N, m); in the extended latent space of a layered generator one for each layer, (N, L, m)
    generator     z -> images (N, *shape) between low and high
    encoder       images -> z, where there is one
    critic        images -> how natural they look (N, 1), where there is one: a network that learned against the
                  generator
    codes         how codes of natural images are distributed: a mixture of Gaussians (`attacker.priors.codes`)

On disk a prior is a folder: card.json (written last), generator.pt2 (of a layered one mapping.pt2 and synthesis.pt2),
encoder.pt2 and critic.pt2 (where there are such), codes.npz, and samples.png, a sheet to look at. The networks are
archives that run no code when they are loaded (`protos.archive`), so that a stranger's prior can be used.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from attacker.on_device import OnDevice
from attacker.priors.codes import Codes
from attacker.priors.layered import Layered
from protos import archive

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["Prior", "PriorCard", "load_prior", "prior_for", "save_card", "save_prior", "sha256_of_prior"]

_FORMAT = "mirage prior 1"
_AT_ONCE = 256  # images of one pass without gradient
_NETWORKS = ("generator.pt2", "mapping.pt2", "synthesis.pt2", "encoder.pt2", "critic.pt2")


@dataclass(frozen=True)
class PriorCard:
    """What a prior is.

    kind           pca, vae, dcgan, style, or imported
    latent         m, numbers in a code
    shape          of an image, (C, H, W)
    low, high      range of the pixels
    public_sha256  hash of the images that it was learned from; "" where nobody knows
    made           parameters and seed of its training
    layers         L, how many layers of the generator take a code of their own; 1: it is not layered
    """

    kind: str
    latent: int
    shape: tuple[int, ...]
    low: float
    high: float
    public_sha256: str
    made: dict[str, Any] = field(default_factory=dict)
    layers: int = 1


class Prior:
    """A loaded prior. Tensors stay on the CPU, wherever generator and encoder compute."""

    def __init__(
        self,
        card: PriorCard,
        generator: nn.Module,
        codes: Codes,
        encoder: nn.Module | None = None,
        critic: nn.Module | None = None,
    ) -> None:
        self.card, self.generator, self.codes, self.encoder, self.critic = card, generator, codes, encoder, critic

    @property
    def layers(self) -> int:
        """L, codes of a point in the extended latent space; 1 for a generator that takes one code."""
        return self.card.layers

    def decode(self, z: Tensor) -> Tensor:
        """Images (N, *shape) of codes (N, m), or (N, L, m) in the extended space, float32, in the range;
        differentiable.
        """
        images: Tensor = self.generator(z).clamp(self.card.low, self.card.high)
        return images

    @torch.no_grad()
    def images(self, z: Tensor) -> np.ndarray:
        """Images (N, *shape) float32 of any number of codes (N, m) or (N, L, m)."""
        return np.concatenate([self.decode(part).numpy() for part in z.float().split(_AT_ONCE)])

    @torch.no_grad()
    def encode(self, images: np.ndarray) -> Tensor:
        """Codes (N, m) float32 of images (N, *shape); `ValueError` for a prior without an encoder."""
        if self.encoder is None:
            raise ValueError(f"a {self.card.kind} prior has no encoder: start from draws of its codes")
        x = torch.from_numpy(np.asarray(images, np.float32))
        return torch.cat([self.encoder(part) for part in x.split(_AT_ONCE)])


def save_prior(prior: Prior, folder: Path) -> None:
    """Write a prior to `folder`; the card comes last, so a folder with a card is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    m, shape, generator = (prior.card.latent,), prior.card.shape, prior.generator
    if isinstance(generator, Layered):
        archive.save(generator.mapping, folder / "mapping.pt2", input_shape=m)
        with torch.no_grad():
            d = generator.mapping(torch.zeros(1, *m)).shape[1]
        archive.save(generator.synthesis, folder / "synthesis.pt2", input_shape=(generator.layers, d))
    else:
        archive.save(generator, folder / "generator.pt2", input_shape=m)
    for name, network in (("encoder.pt2", prior.encoder), ("critic.pt2", prior.critic)):
        if network is not None:
            archive.save(network, folder / name, input_shape=shape)
    prior.codes.save(folder / "codes.npz")
    save_card(prior.card, folder)


def save_card(card: PriorCard, folder: Path) -> None:
    """Write the card, in one step."""
    part = folder / "card.part"
    part.write_text(json.dumps({"format": _FORMAT, **asdict(card)}, indent=2, sort_keys=True) + "\n")
    part.replace(folder / "card.json")


def load_prior(folder: Path, device: torch.device | str = "cpu") -> Prior:
    """The prior in a folder; `ValueError` for a folder without one, `UnsafeArchive` for one that could run code."""
    card = _card(folder)
    codes = Codes.load(folder / "codes.npz")
    if codes.latent != card.latent:
        raise ValueError(f"{folder} holds codes of {codes.latent} numbers and a generator that takes {card.latent}")

    def part(name: str) -> nn.Module:
        return OnDevice(archive.load(folder / name, device), device)

    def optional(name: str) -> nn.Module | None:
        return part(name) if (folder / name).exists() else None

    if card.layers > 1:
        generator: nn.Module = Layered(part("mapping.pt2"), part("synthesis.pt2"), card.layers)
    else:
        generator = part("generator.pt2")
    return Prior(card, generator, codes, optional("encoder.pt2"), optional("critic.pt2"))


def prior_for(folder: Path | None, oracle: Oracle) -> Prior:
    """The prior of an attack on `oracle`; `ValueError` where none is named or it makes other images than it takes."""
    if folder is None:
        raise ValueError("this method searches the codes of an image prior: name its folder with --prior")
    prior = load_prior(folder, oracle.device)
    card = prior.card
    if tuple(card.shape) != tuple(oracle.input_shape) or card.low < oracle.low or card.high > oracle.high:
        raise ValueError(
            f"the prior in {folder} makes images {tuple(card.shape)} from {card.low:g} to {card.high:g}, the model"
            f" takes {tuple(oracle.input_shape)} from {oracle.low:g} to {oracle.high:g}: train one on what was"
            " published for it"
        )
    return prior


def sha256_of_prior(folder: Path) -> str:
    """One hash of everything that a prior computes with."""
    _card(folder)
    sha256 = hashlib.sha256()
    for name in ("card.json", *_NETWORKS, "codes.npz"):
        if (folder / name).exists():
            sha256.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return sha256.hexdigest()


def _card(folder: Path) -> PriorCard:
    try:
        text = json.loads((folder / "card.json").read_text())
        if text.pop("format") != _FORMAT:
            raise ValueError("another format")
        return PriorCard(**text | {"shape": tuple(text["shape"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{folder} holds no image prior: name a folder that attacker prior train wrote") from None
