"""`referee`: run campaigns, score reconstructions, report."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from oracle_server.cli_common import DATA_ROOT
from oracle_server.models.repository import Repository
from protos import archive
from referee.campaign import read_plan
from referee.cli_advise import advise_command
from referee.cli_common import DEVICE, JOBS, PRIVATE, command_line, one_sentence, progress, show
from referee.inspection import inspect_command
from referee.judge import Judge
from referee.lineups import score_answers
from referee.metrics.images import mse, psnr, ssim
from referee.report import tables
from referee.run import report_campaign, run_campaign

__all__ = ["main"]

_DEMO = Path(__file__).parent.parent / "campaigns" / "demo.toml"
_OUT = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/demo"),
    show_default=True,
    help="Folder of the run; the same command resumes it.",
)


@click.group(epilog="Example: referee demo")
@click.version_option(package_name="mirage-range")
def main() -> None:
    """Measure inversion attacks under contracts and budgets, against private data, and report."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, with everything that was started


main.add_command(advise_command)
main.add_command(inspect_command)


@main.command(epilog="Example: referee demo --out runs/demo")
@_OUT
@DEVICE
@PRIVATE
@DATA_ROOT
def demo(out: Path, device: str, private_images: bool) -> None:
    """Whose face does a server give away? Two victims, nine contracts, about five minutes on two cores."""
    _run(_DEMO, out, device, private_images)


@main.command(epilog="Example: referee run campaigns/demo.toml --out runs/demo")
@click.argument("campaign", type=click.Path(dir_okay=False, path_type=Path))
@_OUT
@DEVICE
@PRIVATE
@DATA_ROOT
@JOBS
def run(campaign: Path, out: Path, device: str, private_images: bool, jobs: int) -> None:
    """Run the cells of CAMPAIGN (a TOML file) that have no result in --out yet, then report."""
    _run(campaign, out, device, private_images, jobs)


@main.command(epilog="Example: referee report campaigns/demo.toml --out runs/demo --no-private-images")
@click.argument("campaign", type=click.Path(dir_okay=False, path_type=Path))
@_OUT
@DEVICE
@PRIVATE
@DATA_ROOT
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown, as the README has them.")
def report(campaign: Path, out: Path, device: str, private_images: bool, markdown: bool) -> None:
    """Write the report of CAMPAIGN again from the cells that are finished in --out; runs no attack."""
    with one_sentence(out):
        cells, view = report_campaign(
            read_plan(campaign), out, command=command_line(), device=device, private_images=private_images
        )
    if markdown:
        columns = ["contract", "method", "top1", "own", "others", "confidence", *tables.COMPARED]
        columns += ["rows_ledger", "bits", "status"]
        if cells:
            click.echo(tables.markdown(tables.build(cells, view), columns))
        click.echo(tables.sections_markdown(view))
        click.echo(tables.figures_markdown(view))
    else:
        show(cells, view, out)


@main.command(epilog="Example: referee score runs/mine --split att40 --root oracle --model softmax_regression-att40")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", default="att40", show_default=True, help="Whose private photos to score against.")
@click.option(
    "--root", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True, help="The server's."
)
@click.option("--model", required=True, help="The model that was attacked, for its true confidence.")
@DEVICE
@DATA_ROOT
def score(folder: Path, split: str, root: Path, model: str, device: str) -> None:
    """Score what `attacker run --out FOLDER` left there."""
    with one_sentence(folder):
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        repository = Repository(root)
        judge = Judge(split, device)
        with np.load(folder / "reconstructions.npz", allow_pickle=False) as arrays:
            images, marks, targets = arrays["images"], arrays["marks"], arrays["targets"]
        target = archive.load(repository.archive(repository.card(model)), device)
        table = Table(caption=judge.evaluation)
        for title in ("mark", "top-1", "top-5", "own class", "other classes", "true confidence"):
            table.add_column(title, justify="right")
        for mark, made in zip(marks, images, strict=True):
            scores = judge.score(made, targets, target)
            figures = (scores.top1, scores.top5, scores.own, scores.others, scores.confidence)
            table.add_row(f"{mark:,.0f}", *(f"{values.mean():.3f}" for values in figures))
    Console().print(table)


@main.command(epilog="Example: referee compare runs/mine --photos photos.npy")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--photos",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="The photos (N, C, H, W) behind the answers that the attacker was given: a .npy file.",
)
def compare(folder: Path, photos: Path) -> None:
    """Compare reconstructions of single photos, which `attacker run --given` left in FOLDER, with the photos."""
    with one_sentence(folder):
        real = _photos(photos)
        with np.load(folder / "reconstructions.npz", allow_pickle=False) as arrays:
            images, marks, targets = arrays["images"], arrays["marks"], arrays["targets"]
        if targets.max() >= len(real):
            raise ValueError(f"{photos} holds {len(real)} photos, and answer {targets.max()} was inverted")
        table = Table()
        for title in ("mark", "MSE", "PSNR", "SSIM", "MSE of the photos' mean"):
            table.add_column(title, justify="right")
        mean = np.broadcast_to(real[targets].mean(0), images.shape[1:])
        for mark, made in zip(marks, images, strict=True):
            values = [float(measure(made, real[targets]).mean()) for measure in (mse, psnr, ssim)]
            floor = float(mse(mean, real[targets]).mean())
            table.add_row(f"{mark:,.0f}", f"{values[0]:.4f}", f"{values[1]:.1f}", f"{values[2]:.3f}", f"{floor:.4f}")
    Console().print(table)


@main.command(epilog="Example: referee answers runs/fredrikson2015/lineups/softmax-1f2e3d")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def answers(folder: Path) -> None:
    """Rates of the line-ups in FOLDER once somebody has filled in its answers.csv."""
    with one_sentence(folder):
        rates = score_answers(folder)
    table = Table()
    for title in ("questions", "right", "95%"):
        table.add_column(title)
    for name in ("overall", "identified", "excluded", "controls"):
        if (rate := getattr(rates, name)) is not None:
            table.add_row(name, f"{rate.value:.3f}", f"{rate.low:.3f} to {rate.high:.3f}")
    Console().print(table)


def _photos(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        try:
            photos: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        except ValueError:
            photos = np.empty(0)
    if photos.ndim != 4:
        raise ValueError(f"{path} holds no photos (N, C, H, W): write them with numpy.save")
    return photos


def _run(campaign: Path, out: Path, device: str, private_images: bool, jobs: int = 1) -> None:
    with progress(out, "reading the campaign") as say:
        cells, view = run_campaign(
            read_plan(campaign),
            out,
            command=command_line(),
            device=device,
            private_images=private_images,
            say=say,
            jobs=jobs,
        )
    show(cells, view, out)
