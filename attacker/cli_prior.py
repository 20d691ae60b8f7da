"""`attacker prior`: what an attacker learns from public images, once, for all attacks that search its codes."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from attacker.cli_common import chosen_device, ends_at_ctrl_c, one_sentence
from attacker.priors import KINDS
from attacker.priors.imported import import_prior
from attacker.priors.prior import Prior, load_prior, sha256_of_prior
from attacker.priors.train import sheet_of_samples, train_prior

__all__ = ["prior"]

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_SHEET = "samples.png"


@click.group(epilog="Example: attacker prior train vae --public public --out priors/faces")
def prior() -> None:
    """Image priors: generators learned from public images, whose codes an attack searches (attacker run --prior)."""


@prior.command(
    "train", epilog="Example: attacker prior train dcgan --public public --set mirrored=False --out priors/digits"
)
@click.argument("kind")
@click.option("--public", required=True, type=_FOLDER, help="Folder of public data, as oracle-server publish wrote it.")
@click.option("--out", required=True, type=_FOLDER, help="The prior's own folder.")
@click.option("--set", "settings", multiple=True, help="parameter=value; see attacker prior kinds. May be repeated.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Torch threads.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def train(
    kind: str, public: Path, out: Path, settings: tuple[str, ...], seed: int, device: str, threads: int, quiet: bool
) -> None:
    """Learn a prior of KIND (see attacker prior kinds); the same command again resumes a training that was stopped."""
    torch.set_num_threads(threads)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    more = (TextColumn("{task.fields[words]}"), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, *more, console=Console(stderr=True), transient=True, disable=quiet)
    with bar, ends_at_ctrl_c(bar, f"the training in {out}"), one_sentence():
        task = bar.add_task(kind, total=None, words="")

        def progress(done: int, total: int, words: str) -> None:
            bar.update(task, completed=done, total=total, words=words)

        trained = train_prior(kind, settings, public, seed, out, device=chosen_device(device), progress=progress)
    _show(trained, out)


@prior.command(epilog="Example: attacker prior kinds")
def kinds() -> None:
    """Every kind of prior: what it is, its paper, its parameters."""
    table = Table(show_lines=True)
    for title in ("kind", "what it is", "parameters"):
        table.add_column(title, overflow="fold")
    for name, kind in KINDS.items():
        parameters = "\n".join(f"{field.name}={field.default!r}" for field in fields(kind))
        table.add_row(name, f"{kind.kind}\n{kind.paper}", parameters)
    Console().print(table)


@prior.command(epilog="Example: attacker prior show priors/faces")
@click.argument("folder", type=_FOLDER)
def show(folder: Path) -> None:
    """What the prior in FOLDER is, and where its sheet of samples lies."""
    with one_sentence():
        loaded = load_prior(folder)
        if not (folder / _SHEET).exists():
            sheet_of_samples(loaded, loaded.card.made.get("seed", 0)).save(folder / _SHEET)
    _show(loaded, folder)


@prior.command("import", epilog="Example: attacker prior import stylegan.pt2 --low -1 --high 1 --out priors/theirs")
@click.argument("file", type=_FILE, required=False)
@click.option("--mapping", type=_FILE, help="In place of FILE, with --synthesis: from codes (N, m) to styles (N, d).")
@click.option("--synthesis", type=_FILE, help="From one style for each layer, (N, L, d), to images (N, C, H, W).")
@click.option("--out", required=True, type=_FOLDER, help="The prior's own folder.")
@click.option("--public", type=_FOLDER, help="Folder of the images that it was learned from, where they are known.")
@click.option("--low", default=0.0, show_default=True, help="Least value of a pixel.")
@click.option("--high", default=1.0, show_default=True, help="Greatest value of a pixel.")
@click.option("--encoder", type=_FILE, help="A .pt2 file from images back to codes.")
@click.option("--critic", type=_FILE, help="A .pt2 file from images to how natural they look, (N, 1).")
def import_(
    file: Path | None,
    mapping: Path | None,
    synthesis: Path | None,
    out: Path,
    public: Path | None,
    low: float,
    high: float,
    encoder: Path | None,
    critic: Path | None,
) -> None:
    """Take a generator of one's own: FILE is what torch.export.save wrote of a module from codes (N, m), drawn from
    N(0, I), to images (N, C, H, W), with N free; one that takes a style for each layer is two such files, --mapping
    and --synthesis. No code of them is run.
    """
    with one_sentence():
        generator = _generator(file, mapping, synthesis)
        taken = import_prior(generator, out, low=low, high=high, encoder=encoder, critic=critic, public=public)
    _show(taken, out)


def _generator(file: Path | None, mapping: Path | None, synthesis: Path | None) -> Path | tuple[Path, Path]:
    """What was named, of exactly one form."""
    if file is not None and mapping is None and synthesis is None:
        return file
    if file is None and mapping is not None and synthesis is not None:
        return mapping, synthesis
    if file is not None:
        raise ValueError("a generator is one FILE, or --mapping and --synthesis: name one of the two forms")
    if mapping is None and synthesis is None:
        raise ValueError("name the generator: one FILE, or --mapping and --synthesis")
    raise ValueError(f"a generator of two parts needs --{'synthesis' if mapping else 'mapping'}, too")


def _show(shown: Prior, folder: Path) -> None:
    card, made = shown.card, dict(shown.card.made)
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    settings = made.pop("parameters", {})
    for name, value in (
        ("kind", card.kind),
        ("code", f"{card.latent} numbers, {len(shown.codes.weights)} Gaussian(s)"),
        ("images", f"{card.shape} from {card.low:g} to {card.high:g}"),
        ("layers", f"{card.layers}, each takes a code of its own" if card.layers > 1 else "1"),
        ("encoder", "yes" if shown.encoder is not None else "no"),
        ("critic", "yes" if shown.critic is not None else "no"),
        *((name.replace("_", " "), f"{value}") for name, value in made.items()),
        ("parameters", ", ".join(f"{name}={value}" for name, value in settings.items())),
        ("public images", card.public_sha256 or "unknown"),
        ("sha256", sha256_of_prior(folder)),
        ("samples", str(folder / _SHEET)),
    ):
        if value:
            table.add_row(name, value)
    Console().print(table)
