"""Learn a prior from a folder of public images, once: a finished folder is left as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from attacker.priors import KINDS
from attacker.priors.layered import Layered
from attacker.priors.learning import Learning
from attacker.priors.prior import Prior, PriorCard, load_prior, save_prior
from attacker.public import read_public, sha256_of_public
from attacker.settings import parse_settings

__all__ = ["SHEET", "sheet_of_samples", "train_prior"]

SHEET = 8  # rows and columns of a sheet of samples
_GAP = 2  # pixels between its pictures


def train_prior(
    kind: str,
    settings: Sequence[str],
    public: Path,
    seed: int,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int, str], None] = lambda done, total, words: None,
) -> Prior:
    """Train a prior of `kind` with `settings` of the form parameter=value, and write it to `out` with a sheet of
    samples. A training that was stopped goes on; the same one again is only loaded.

    Raises `ValueError` for an unknown kind or setting, public data that is none, or a folder with another prior.
    """
    if kind not in KINDS:
        raise ValueError(f"no prior {kind!r}; there is {', '.join(KINDS)}")
    method = KINDS[kind](**parse_settings(KINDS[kind], kind, settings))
    images = read_public(public)
    if images.ndim != 4 or not len(images) or not np.isfinite(images).all():
        raise ValueError(f"{public}/images.npy has shape {images.shape}: a prior learns from finite (N, C, H, W)")
    low, high = min(0.0, float(images.min())), max(1.0, float(images.max()))
    made: dict[str, Any] = {"parameters": asdict(method), "seed": seed, "device": torch.device(device).type}
    digest = sha256_of_public(public)
    if (out / "card.json").exists():
        prior = load_prior(out, device)
        if (prior.card.kind, prior.card.made, prior.card.public_sha256) != (kind, made, digest):
            raise ValueError(f"{out} holds another prior ({prior.card.kind}): choose another --out, or delete it")
        return prior
    out.mkdir(parents=True, exist_ok=True)
    learning = Learning(out, device, low, high, progress)
    learned = method.learn(images, seed, learning)
    layers = learned.generator.layers if isinstance(learned.generator, Layered) else 1
    card = PriorCard(kind, learned.codes.latent, tuple(images.shape[1:]), low, high, digest, made, layers)
    prior = Prior(card, learned.generator, learned.codes, learned.encoder, learned.critic)
    sheet_of_samples(prior, seed).save(out / "samples.png")
    save_prior(prior, out)
    learning.checkpoint.unlink(missing_ok=True)  # the archives are the product
    return load_prior(out, device)


def sheet_of_samples(prior: Prior, seed: int = 0) -> Image.Image:
    """SHEET x SHEET images of drawn codes."""
    z = prior.codes.draw(SHEET * SHEET, torch.Generator().manual_seed(seed))
    unit = (prior.images(z) - prior.card.low) / (prior.card.high - prior.card.low)
    framed = np.pad(unit, ((0, 0), (0, 0), (0, _GAP), (0, _GAP)), constant_values=1.0)
    _, C, H, W = framed.shape
    grid = framed.reshape(SHEET, SHEET, C, H, W).transpose(0, 3, 1, 4, 2).reshape(SHEET * H, SHEET * W, C)
    pixels = (grid * 255).round().astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if C == 1 else pixels[..., :3])
