"""`oracle-server train-features`: a model that answers with named numbers, as commercial interfaces do."""

from __future__ import annotations

from pathlib import Path

import click

from oracle_server.cli_common import DATA_ROOT, ROOT, one_sentence, training_bar
from oracle_server.models.repository import Repository
from oracle_server.victims.feature_network import train_and_host_features

__all__ = ["train_features"]


@click.command("train-features", epilog="Example: oracle-server train-features digits-five --name morphometrics")
@click.argument("split")
@ROOT
@click.option("--name", help="Name of the hosted model; by default morphometrics and the split.")
@click.option("--version", default="1", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True)
@DATA_ROOT
def train_features(split: str, root: Path, name: str | None, version: str, seed: int, device: str) -> None:
    """Train a network to measure the shapes of SPLIT's images, all but its test rows, and host it.

    Its outputs are 80 numbers in [0, 1] of the groups shape, pose and landmarks; a key may get some of the groups
    (oracle-server keys create --features shape,pose).
    """
    with one_sentence(), training_bar(f"training morphometrics of {split}") as report:
        card = train_and_host_features(
            split,
            Repository(root),
            name=name or f"morphometrics-{split}",
            version=version,
            seed=seed,
            device=device,
            progress=report,
        )
    click.echo(f"{card.id}: {card.description}")
