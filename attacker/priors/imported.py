"""A user's own generator as an image prior: an archive of torch.export, read without running any code of it."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import torch

from attacker.priors.codes import Codes
from attacker.priors.prior import Prior, PriorCard, load_prior, save_card
from attacker.priors.train import sheet_of_samples
from attacker.public import read_public, sha256_of_public
from protos import archive

__all__ = ["KIND", "import_prior"]

KIND = "imported"
_DRAWS = 8  # images that are looked at before a generator is taken
_SLACK = 1e-3  # of the range: what a sum of rounded numbers may go beyond it


def import_prior(
    generator: Path,
    out: Path,
    *,
    low: float = 0.0,
    high: float = 1.0,
    encoder: Path | None = None,
    public: Path | None = None,
) -> Prior:
    """Make `out` the prior of a generator (N, m) -> (N, C, H, W) whose codes are N(0, I), with an encoder back where
    there is one; `public` is the folder of images that it was learned from.

    Raises `ValueError` for archives of other shapes, images that are not finite or not between `low` and `high`, or a
    folder with another prior; `UnsafeArchive` for a file that could run code. `out` is then left as it was.
    """
    if not low < high:
        raise ValueError(f"--low {low:g} must be below --high {high:g}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".import-") as name:
        folder = Path(name) / "prior"
        folder.mkdir()
        made = {"generator_sha256": _stripped(generator, folder / "generator.pt2")}
        m, shape = _sizes(archive.check(folder / "generator.pt2"), generator)
        if encoder is not None:
            made["encoder_sha256"] = _stripped(encoder, folder / "encoder.pt2")
            found = archive.check(folder / "encoder.pt2")
            if (found.input_shape[1:], found.output_shape[1:]) != (shape, (m,)):
                raise ValueError(
                    f"{encoder} maps {found.input_shape[1:]} to {found.output_shape[1:]}: the encoder of this"
                    f" generator maps images {shape} to codes {(m,)}"
                )
        digest = "" if public is None else _digest(public, shape)
        card = PriorCard(KIND, m, shape, low, high, digest, made)
        if (out / "card.json").exists():
            kept = load_prior(out)
            if kept.card != card:
                raise ValueError(f"{out} holds another prior ({kept.card.kind}): choose another --out, or delete it")
            return kept
        Codes.standard(m).save(folder / "codes.npz")
        save_card(card, folder)
        prior = load_prior(folder)
        _look(prior, generator)
        sheet_of_samples(prior).save(folder / "samples.png")
        out.mkdir(exist_ok=True)
        for file in sorted(folder.iterdir(), key=lambda file: file.name == "card.json"):  # the card comes last
            file.replace(out / file.name)
    return load_prior(out)


def _stripped(source: Path, target: Path) -> str:
    """The hash of what is kept of an archive."""
    archive.strip(source, target)
    return hashlib.sha256(target.read_bytes()).hexdigest()


def _sizes(info: archive.ArchiveInfo, source: Path) -> tuple[int, tuple[int, ...]]:
    """m and (C, H, W)."""
    takes, gives = info.input_shape, info.output_shape
    fixed = [size for size in (*takes[1:], *gives[1:]) if size is not None]
    if (len(takes), len(gives), len(fixed)) != (2, 4, 4) or takes[0] is not None or info.dtype != "float32":
        raise ValueError(
            f"{source} maps {info.dtype} {takes} to {gives}: a prior maps float32 codes (N, m), N free, to images"
            " (N, C, H, W); wrap the generator and export it again"
        )
    return fixed[0], tuple(fixed[1:])


def _digest(public: Path, shape: tuple[int, ...]) -> str:
    images = read_public(public)
    if images.shape[1:] != shape:
        raise ValueError(
            f"{public}/images.npy has shape {images.shape}, the generator makes {shape}: name the images"
            " that it was trained on, or leave --public out"
        )
    return sha256_of_public(public)


def _look(prior: Prior, source: Path) -> None:
    """`ValueError` unless a few draws give images as the card says."""
    card = prior.card
    with torch.no_grad():
        images = prior.generator(prior.codes.draw(_DRAWS, torch.Generator().manual_seed(0))).numpy()
    if images.shape != (_DRAWS, *card.shape) or not np.isfinite(images).all():
        raise ValueError(f"{source} makes pixels that are not finite of codes drawn from N(0, I): it is no prior")
    least, most = float(images.min()), float(images.max())
    slack = _SLACK * (card.high - card.low)
    if least < card.low - slack or most > card.high + slack:
        raise ValueError(
            f"{source} makes pixels from {least:.3g} to {most:.3g}, beyond {card.low:g} to {card.high:g}: name its"
            " range with --low and --high, or scale its images to the model's"
        )
