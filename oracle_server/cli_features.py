"""`oracle-server train-features`: a model that answers with named numbers, as commercial interfaces do."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from oracle_server.cli_common import ROOT, one_sentence
from oracle_server.models.repository import Repository
from oracle_server.victims.data import DATA_ROOT_VARIABLE
from oracle_server.victims.feature_network import train_and_host_features

__all__ = ["train_features"]


@click.command("train-features", epilog="Example: oracle-server train-features digits-five --name morphometrics")
@click.argument("split")
@ROOT
@click.option("--name", help="Name of the hosted model; by default morphometrics and the split.")
@click.option("--version", default="1", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--data-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar=DATA_ROOT_VARIABLE,
    help="Folder of data sets that no package brings.",
)
def train_features(
    split: str, root: Path, name: str | None, version: str, seed: int, device: str, data_root: Path | None
) -> None:
    """Train a network to measure the shapes of SPLIT's images, all but its test rows, and host it.

    Its outputs are 80 numbers in [0, 1] of the groups shape, pose and landmarks; a key may get some of the groups
    (oracle-server keys create --features shape,pose).
    """
    if data_root is not None:
        os.environ[DATA_ROOT_VARIABLE] = str(data_root)
    with one_sentence(), Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"training morphometrics of {split}")
        card = train_and_host_features(
            split,
            Repository(root),
            name=name or f"morphometrics-{split}",
            version=version,
            seed=seed,
            device=device,
            progress=lambda epoch: bar.update(task, completed=epoch.number, total=epoch.total),
        )
    click.echo(f"{card.id}: {card.description}")
