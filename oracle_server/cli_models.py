"""`oracle-server train | import | publish`: where hosted models and public data come from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from oracle_server.cli_common import ROOT, one_sentence
from oracle_server.models.card import Card
from oracle_server.models.importing import Draft, find_model, host
from oracle_server.models.repository import Repository
from oracle_server.victims.hosting import train_and_host
from oracle_server.victims.publish import publish as publish_split
from oracle_server.victims.splits import split_named
from oracle_server.victims.training import Epoch

__all__ = ["MODEL_COMMANDS"]

_TABLE_MODELS = ("tree", "linear_regression")
_NAME = click.option("--name", help="Name of the hosted model; by default that of what it is and of its data.")
_VERSION = click.option("--version", default="1", show_default=True)


@click.command(epilog="Example: oracle-server train softmax_regression --split att40")
@click.argument("architecture")
@click.option("--split", default="att40", show_default=True, help="Of faces: att40, att30, or random-SEED.")
@ROOT
@_NAME
@_VERSION
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--deterministic", is_flag=True, help="Serve it in batches of one fixed shape: the same bits in any company."
)
def train(
    architecture: str,
    split: str,
    root: Path,
    name: str | None,
    version: str,
    seed: int,
    device: str,
    deterministic: bool,
) -> None:
    """Train a face recogniser on private photos and host it; see train-table for trees and regressions."""
    with one_sentence(), _progress(f"training {architecture} on {split}") as report:
        card = train_and_host(
            architecture,
            split,
            Repository(root),
            name=name or f"{architecture}-{split}",
            version=version,
            seed=seed,
            device=device,
            deterministic=deterministic,
            progress=report,
        )
    click.echo(f"{card.id}: {card.description}")


@click.command(
    "train-table",
    epilog="Example: oracle-server train-table tree --csv survey.csv --schema survey.toml --min-leaf 3",
)
@click.argument("model", type=click.Choice(_TABLE_MODELS))
@click.option("--table", help="A data set that is at hand: affairs601, gss, diabetes, or steak with --csv.")
@click.option("--csv", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A table of your own.")
@click.option("--schema", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its schema, a TOML file.")
@ROOT
@_NAME
@_VERSION
@click.option("--min-leaf", default=1, show_default=True, help="Trees: fewest training rows in a leaf.")
@click.option("--max-depth", type=int, help="Trees: most splits on a path.")
@click.option(
    "--priority", type=int, help="Trees: the sensitive feature splits once, after PRIORITY - 1 others on its path."
)
def train_table(
    model: str,
    table: str | None,
    csv: Path | None,
    schema: Path | None,
    root: Path,
    name: str | None,
    version: str,
    min_leaf: int,
    max_depth: int | None,
    priority: int | None,
) -> None:
    """Grow a classification tree, or fit a linear regression, on a table of people and host it."""
    with one_sentence():
        from oracle_server.victims import table_models
        from oracle_server.victims.tables import table_named
        from oracle_server.victims.table_files import read_table

        if (table is None) == (schema is None) or (schema is not None and csv is None):
            raise click.UsageError("name a data set with --table, or give your own with --csv and --schema")
        data = table_named(table, csv) if table else read_table(csv, schema)
        rows = range(len(data.X))
