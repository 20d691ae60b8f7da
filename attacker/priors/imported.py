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
    generator: Path | tuple[Path, Path],
    out: Path,
    *,
    low: float = 0.0,
    high: float = 1.0,
    encoder: Path | None = None,
    critic: Path | None = None,
    public: Path | None = None,
) -> Prior:
    """Make `out` the prior of a generator whose codes are N(0, I), with an encoder back and a critic where there are
    such; `public` is the folder of images that it was learned from.

    A generator is one archive (N, m) -> (N, C, H, W), or two of a layered one: a mapping (N, m) -> (N, d) and a
    synthesis (N, L, d) -> (N, C, H, W). An encoder maps (N, C, H, W) -> (N, m), a critic (N, C, H, W) -> (N, 1).

    Raises `ValueError` for archives of other shapes, images that are not finite or not between `low` and `high`, or a
    folder with another prior; `UnsafeArchive` for a file that could run code. `out` is then left as it was.
    """
    if not low < high:
        raise ValueError(f"--low {low:g} must be below --high {high:g}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".import-") as name:
        folder = Path(name) / "prior"
        folder.mkdir()
        made: dict[str, str] = {}

        def taken(source: Path, part: str) -> archive.ArchiveInfo:
            """What an archive says of itself; what is kept of it is in the folder, its hash in `made`."""
            target = folder / f"{part}.pt2"
            archive.strip(source, target)
            made[f"{part}_sha256"] = hashlib.sha256(target.read_bytes()).hexdigest()
            return archive.check(target)

        if isinstance(generator, tuple):
            source = generator[1]
            m, layers, shape = _layered_sizes(taken(generator[0], "mapping"), taken(source, "synthesis"), generator)
        else:
            source, layers = generator, 1
            words = "a prior maps float32 codes (N, m), N free, to images (N, C, H, W)"
            (m,), shape = _sizes(taken(generator, "generator"), generator, (2, 4), words)
        for part, file, gives, words in (
            ("encoder", encoder, (m,), f"codes {(m,)}"),
            ("critic", critic, (1,), "one number each, (N, 1)"),
        ):
            if file is not None:
                words = f"the {part} of this generator maps images {shape} to {words}, float32, N free"
                if _sizes(taken(file, part), file, (4, 2), words) != (shape, gives):
                    raise ValueError(f"{file} is of other sizes: {words}")
        digest = "" if public is None else _digest(public, shape)
        card = PriorCard(KIND, m, shape, low, high, digest, made, layers)
        if (out / "card.json").exists():
            kept = load_prior(out)
            if kept.card != card:
                raise ValueError(f"{out} holds another prior ({kept.card.kind}): choose another --out, or delete it")
            return kept
        Codes.standard(m).save(folder / "codes.npz")
        save_card(card, folder)
        prior = load_prior(folder)
        _look(prior, source, critic)
        sheet_of_samples(prior).save(folder / "samples.png")
        out.mkdir(exist_ok=True)
        for file in sorted(folder.iterdir(), key=lambda file: file.name == "card.json"):  # the card comes last
            file.replace(out / file.name)
    return load_prior(out)


def _sizes(info: archive.ArchiveInfo, source: Path, ranks: tuple[int, int], words: str) -> tuple[tuple[int, ...], ...]:
    """What an archive takes and gives, both without N; `ValueError` unless N alone is free."""
    takes, gives = info.input_shape, info.output_shape
    fixed = [tuple(size for size in sizes[1:] if size is not None) for sizes in (takes, gives)]
    free = takes[:1] == (None,) and [len(takes) - 1, len(gives) - 1] == [len(sizes) for sizes in fixed]
    if (len(takes), len(gives)) != ranks or not free or info.dtype != "float32":
        raise ValueError(f"{source} maps {info.dtype} {takes} to {gives}: {words}; wrap it and export it again")
    return tuple(fixed)


def _layered_sizes(
    mapping: archive.ArchiveInfo, synthesis: archive.ArchiveInfo, sources: tuple[Path, Path]
) -> tuple[int, int, tuple[int, ...]]:
    """m, L and (C, H, W)."""
    words = "a mapping takes float32 codes (N, m), N free, to styles (N, d)"
    (m,), (d,) = _sizes(mapping, sources[0], (2, 2), words)
    words = "a synthesis takes float32 styles (N, L, d), N free, to images (N, C, H, W)"
    (L, wanted), shape = _sizes(synthesis, sources[1], (3, 4), words)
    if d != wanted:
        raise ValueError(f"{sources[0]} gives styles of {d} numbers, {sources[1]} takes styles of {wanted}")
    if L < 2:
        raise ValueError(f"{sources[1]} takes L={L} style: a layered generator has 2 or more; import the two as one")
    return m, L, shape


def _digest(public: Path, shape: tuple[int, ...]) -> str:
    images = read_public(public)
    if images.shape[1:] != shape:
        raise ValueError(
            f"{public}/images.npy has shape {images.shape}, the generator makes {shape}: name the images"
            " that it was trained on, or leave --public out"
        )
    return sha256_of_public(public)


def _look(prior: Prior, source: Path, critic: Path | None) -> None:
    """`ValueError` unless a few draws, and of a layered generator draws for each layer too, give images as the card
    says, and finite numbers of the critic.
    """
    card, draw = prior.card, torch.Generator().manual_seed(0)
    codes = [prior.codes.draw(_DRAWS, draw)]
    if card.layers > 1:
        codes.append(prior.codes.draw(_DRAWS * card.layers, draw).unflatten(0, (_DRAWS, card.layers)))
    for z in codes:
        with torch.no_grad():
            images = prior.generator(z).numpy()
        if images.shape != (_DRAWS, *card.shape) or not np.isfinite(images).all():
            raise ValueError(f"{source} makes pixels that are not finite of codes drawn from N(0, I): it is no prior")
        least, most = float(images.min()), float(images.max())
        slack = _SLACK * (card.high - card.low)
        if least < card.low - slack or most > card.high + slack:
            raise ValueError(
                f"{source} makes pixels from {least:.3g} to {most:.3g}, beyond {card.low:g} to {card.high:g}: name its"
                " range with --low and --high, or scale its images to the model's"
            )
        if prior.critic is not None:
            with torch.no_grad():
                told = prior.critic(torch.from_numpy(images))
            if told.shape != (_DRAWS, 1) or not told.isfinite().all():
                raise ValueError(
                    f"{critic} says numbers that are not finite of the generator's images: it is no critic"
                )
