"""`attacker`: run one inversion method strictly through an oracle's interface."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from attacker.attacks import METHODS
from attacker.averaged import Averaged
from attacker.batch import read_batch
from attacker.cli_common import (
    KEY_FILE,
    REFUSED,
    chosen_device,
    ends_at_ctrl_c,
    one_sentence,
    private,
    reaches,
    read_keys,
)
from attacker.cli_prior import prior
from attacker.decoder import load_decoder
from attacker.images import read_images
from attacker.oracle import Oracle
from attacker.released import as_table, read_answers, write_answers
from attacker.run import make_method, run, target_count

__all__ = ["REFUSED", "main"]


@click.group(epilog="Example: attacker run mi_face --address 127.0.0.1:50051 --targets all --out runs/first")
@click.version_option(package_name="mirage-range")
def main() -> None:
    """Model inversion through the interface of a hosted model. The API key is read from MIRAGE_KEY or from --key-file;
    several keys, with commas between them, take turns.
    """


main.add_command(prior)


@main.command("list", epilog="Example: attacker list")
def list_() -> None:
    """Every method: the access it needs, its kind, its paper."""
    table = Table(show_lines=True)
    for title in ("method", "needs", "what it is", "parameters"):
        table.add_column(title, overflow="fold")
    for name, method in METHODS.items():
        parameters = "\n".join(f"{field.name}={field.default!r}" for field in fields(method))
        table.add_row(name, method.needs.value, f"{method.kind}\n{method.paper}", parameters)
    Console().print(table)


@main.command("run", epilog="Example: MIRAGE_KEY=... attacker run numeric --targets 0,1,2 --set probe=1.0 --out runs/n")
@click.argument("method")
@reaches
@KEY_FILE
@click.option("--targets", default="all", show_default=True, help="Classes, or entries of --given: all, 0-9, or 3,5,8.")
@click.option("--set", "settings", multiple=True, help="parameter=value; see attacker list. May be repeated.")
@click.option("--public", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of public data.")
@click.option(
    "--given",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with what is known of the targets: attributes (CSV), images (.npy), or released answers (.npz).",
)
@click.option(
    "--prior",
    "prior_folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of an image prior (attacker prior train).",
)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Ask every row so often and average the answers, against noise.",
)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The run's own folder.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...; for downloaded models.")
@click.option("--threads", default=1, show_default=True, help="Torch threads.")
@click.option("--patience", default=60.0, show_default=True, help="Seconds to wait for a server that is away.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def run_(
    method: str,
    address: str,
    reach: dict[str, Any],
    key_file: Path | None,
    targets: str,
    settings: tuple[str, ...],
    public: Path | None,
    given: Path | None,
    prior_folder: Path | None,
    seed: int,
    repeats: int,
    out: Path,
    device: str,
    threads: int,
    patience: float,
    quiet: bool,
) -> None:
    """Run METHOD; the same command again resumes a run that was stopped, without paying twice."""
    torch.set_num_threads(threads)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet)
    with bar, ends_at_ctrl_c(bar, f"the run in {out}"), one_sentence():
        task = bar.add_task(method, total=None, text="")

        def progress(spent: int, budget: int | None) -> None:
            left = "" if budget is None else f", {budget - spent:,} of the budget left"
            bar.update(task, completed=spent, total=budget, text=f"{spent:,} rows{left}")

        chosen = make_method(method, settings, public, given, prior_folder)

        def notice(text: str) -> None:
            bar.update(task, description=f"{method}, {text}")

        keys = read_keys(key_file)
        options = reach | {"patience": patience, "progress": progress, "notice": notice}
        oracle = (
            Oracle(address, keys, **options) if repeats == 1 else Averaged(address, keys, repeats=repeats, **options)
        )
        with contextlib.closing(oracle):
            numbers = _targets(targets, target_count(oracle, chosen))
            result = run(oracle, method, chosen, numbers, seed, out, device=chosen_device(device))
    _show(result, out)


@main.command("batch", epilog="Example: attacker batch runs.jsonl --address 127.0.0.1:50051 --out runs/trees")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@reaches
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of all the runs.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...; for downloaded models.")
@click.option("--patience", default=60.0, show_default=True, help="Seconds to wait for a server that is away.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def batch_(
    file: Path, address: str, reach: dict[str, Any], out: Path, device: str, patience: float, quiet: bool
) -> None:
    """Run many short attacks one after another: FILE has a JSON object a line, {"key", "name", "method"} and, as for
    attacker run, "set" (a list), "targets", "given", "seed". Each goes to OUT/NAME; finished ones are skipped. Nobody
    else may read FILE, for the keys in it.
    """
    torch.set_num_threads(1)
    bar = Progress(console=Console(stderr=True), transient=True, disable=quiet)
    with bar, ends_at_ctrl_c(bar, f"the run in {out}"), one_sentence():
        runs = read_batch(private(file))
        for one in bar.track(runs, description=file.name):
            chosen = make_method(one.method, one.settings, None, one.given)
            oracle = Oracle(address, one.key, patience=patience, **reach)
            with contextlib.closing(oracle):
                numbers = _targets(one.targets, target_count(oracle, chosen))
                run(oracle, one.method, chosen, numbers, one.seed, out / one.name, device=chosen_device(device))
    click.echo(f"{len(runs)} runs are finished in {out}")


@main.command(epilog="Example: MIRAGE_KEY=... attacker ask photos.npy --out runs/asked")
@click.argument("images", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@reaches
@KEY_FILE
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the answers.")
def ask(images: Path, address: str, reach: dict[str, Any], key_file: Path | None, out: Path) -> None:
    """Ask about IMAGES (a .npy file, float32) as an ordinary user does, a query for each, and keep what is released.

    OUT/answers.npz is what attacker run inversion_network --given takes. Asked again, nothing is charged twice.
    """
    with one_sentence(), contextlib.closing(Oracle(address, read_keys(key_file), **reach)) as oracle:
        rows = read_images(images, oracle)
        out.mkdir(parents=True, exist_ok=True)
        oracle.begin(out, {"asked": hashlib.sha256(rows.tobytes()).hexdigest(), "model": oracle.model_id})
        answers = as_table(oracle.query(rows), oracle.classes)
        write_answers(answers, out / "answers.npz")
    click.echo(f"{len(answers)} answers of {answers.shape[1]} values are in {out / 'answers.npz'}")


@main.command(epilog="Example: attacker invert runs/n/inversion_network.pt --given answers.npz --out images.npz")
@click.argument("network", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--given",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Released answers: a .npz file with `answers` (N, K), NaN where withheld.",
)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File for the images.")
def invert(network: Path, given: Path, out: Path) -> None:
    """Invert further answers with a NETWORK that a run of inversion_network has saved; no oracle is asked."""
    with one_sentence():
        decoder = load_decoder(network)
        images = decoder.invert(read_answers(given, decoder.made["answers"]))
        with out.open("wb") as file:
            np.savez(file, images=images)
    click.echo(f"{len(images)} images in [0, 1] of shape {images.shape[1:]} are in {out}")


def _show(result: dict[str, Any], out: Path) -> None:
    table = Table(show_header=False)
    rows = f"{result['rows']:,}" + (" (steps are the attack's own count)" if result["self_reported"] else "")
    contract = {name: value for name, value in result["contract"].items() if value}
    for name, value in (
        ("method", result["method"]),
        ("model", result["model"]),
        ("contract", json.dumps(contract)),
        ("targets", str(len(result["targets"]))),
        ("rows", rows),
        ("ended", result["ended"]),
        ("seconds", f"{result['seconds']:.1f}"),
        ("result", str(out / "reconstructions.npz")),
    ):
        table.add_row(name, value)
    Console().print(table)


def _targets(text: str, count: int) -> list[int]:
    if text == "all":
        return list(range(count))
    try:
        first, dash, last = text.partition("-")
        return list(range(int(first), int(last) + 1)) if dash else [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--targets {text}: write all, 0-9, or 3,5,8") from None
