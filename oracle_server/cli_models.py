"""`oracle-server train | train-table | import | publish`: where hosted models and public data come from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from defenses.training import TRAINING, training_defence
from oracle_server.cli_common import DATA_ROOT, ROOT, named_defence, one_sentence, training_bar
from oracle_server.models.card import Card
from oracle_server.models.importing import Draft, find_model, host
from oracle_server.models.regression import host_regression
from oracle_server.models.repository import Repository
from oracle_server.models.tree import host_tree
from oracle_server.victims import table_models
from oracle_server.victims.hosting import train_and_host
from oracle_server.victims.joint import WEIGHT, find_decoder, train_and_host_joint
from oracle_server.victims.publish import publish as publish_split
from oracle_server.victims.splits import SPLIT_NAMES, split_named
from oracle_server.victims.table_files import read_table
from oracle_server.victims.tables import table_named
from protos.tree import Tree

__all__ = ["MODEL_COMMANDS"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NAME = click.option("--name", help="Name of the hosted model; by default what it is and of which data.")
_VERSION = click.option("--version", default="1", show_default=True)
_SPLITS = f"Splits: {', '.join(SPLIT_NAMES)}."


@click.command(epilog="Example: oracle-server train cnn --split att20 --defence mid:beta=0.01")
@click.argument("architecture")
@click.option("--split", default="att40", show_default=True, help=_SPLITS)
@DATA_ROOT
@ROOT
@_NAME
@_VERSION
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--deterministic", is_flag=True, help="Serve it in batches of one fixed shape: the same bits in any company."
)
@click.option(
    "--joint",
    metavar="PACKAGE:FACTORY",
    help="Train it with a network that inverts it, as a malicious developer would; e.g. attacker.decoder:Decoder.",
)
@click.option("--joint-weight", type=click.FloatRange(0), help=f"Of the squared error beside the loss [{WEIGHT:g}].")
@click.option("--defence", metavar="NAME:PARAMETER=VALUE,...", help=f"A countermeasure: {', '.join(TRAINING)}.")
def train(
    architecture: str,
    split: str,
    root: Path,
    name: str | None,
    version: str,
    seed: int,
    device: str,
    deterministic: bool,
    joint: str | None,
    joint_weight: float | None,
    defence: str | None,
) -> None:
    """Train a classifier on private photos and host it: softmax_regression, mlp, cnn, conv_classifier, ..."""
    if joint is None and joint_weight is not None:
        raise click.UsageError("--joint-weight needs --joint PACKAGE:FACTORY")
    if joint is not None and defence is not None:
        raise click.UsageError("--joint trains for the attacker: leave --defence out")
    named = None if defence is None else named_defence(defence)
    with one_sentence(), training_bar(f"training {architecture} on {split}") as report:
        if named is not None:
            training_defence(*named)  # a sentence before anything is loaded
        trained: Callable[..., Card] = partial(train_and_host, defence=named)
        if joint is not None:
            weight = WEIGHT if joint_weight is None else joint_weight
            trained = partial(train_and_host_joint, decoder=find_decoder(joint), decoder_name=joint, weight=weight)
        card = trained(
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


@click.command("train-table", epilog="Example: oracle-server train-table tree --csv a.csv --schema a.toml --min-leaf 3")
@click.argument("model", type=click.Choice(["tree", "linear_regression"]))
@click.option("--table", help="One at hand: affairs601, gss, diabetes; or steak, with its --csv.")
@click.option("--csv", type=_FILE, help="The file of a table.")
@click.option("--schema", type=_FILE, help="What its columns mean, a TOML file.")
@ROOT
@_NAME
@_VERSION
@click.option("--min-leaf", type=click.IntRange(1), default=1, show_default=True, help="Fewest training rows a leaf.")
@click.option("--max-depth", type=click.IntRange(1), help="Most splits on a path.")
@click.option(
    "--priority",
    type=click.IntRange(1),
    help="The sensitive feature splits once on a path, after PRIORITY - 1 others: a countermeasure.",
)
@click.option(
    "--prune",
    type=click.FloatRange(0),
    metavar="ALPHA",
    help="Cut the grown tree back: a split must save ALPHA of all rows for each leaf that it adds. A countermeasure.",
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
    prune: float | None,
) -> None:
    """Grow a classification tree, or fit a linear regression, on a whole table of people, and host it."""
    with one_sentence():
        if table is not None and schema is None:
            data = table_named(table, csv)
        elif table is None and schema is not None and csv is not None:
            data = read_table(csv, schema)
        else:
            raise click.UsageError("name a table with --table, or give one with --csv and --schema")
        rows, words = np.arange(len(data.X)), f"{model} of {data.name}; {data.credit}"
        name = name or f"{model}-{data.name}".replace("_", "-")
        if model == "linear_regression":
            if prune is not None:
                raise click.UsageError("--prune is for a tree: leave it out")
            card = host_regression(
                table_models.fit_linear(data, rows), Repository(root), name, version, description=words
            )
        else:
            limits: dict[str, Any] = {"min_leaf": min_leaf, "max_depth": max_depth, "prune": prune or 0.0}
            tree = (
                table_models.grow(data, rows, **limits)
                if priority is None
                else table_models.grow_priority(data, rows, priority, **limits)
            )
            if prune:
                words = f"{model} of {data.name}, pruned with alpha {prune:g}; {data.credit}"
            card = host_tree(tree, Repository(root), name, version, description=words)
    click.echo(f"{card.id}: {card.description}")


@click.command("import", epilog="Example: oracle-server import mypackage:make_model --name mine --input-shape 3,64,64")
@click.argument("source")
@ROOT
@click.option("--name", required=True)
@_VERSION
@click.option("--input-shape", help="Shape of one row, for example 1,112,92; a tree says so itself.")
@click.option(
    "--range", "bounds", type=(float, float), default=(0.0, 1.0), show_default=True, help="Legal input values."
)
@click.option("--deterministic", is_flag=True, help="Serve it in batches of one fixed shape.")
@click.option(
    "--payload",
    default="uint8,float16",
    show_default=True,
    help="What inputs may be beside float32: uint8, whose 0 to 255 are the range from end to end, float16, or none.",
)
@click.option(
    "--autocast",
    type=click.Choice(["float16", "bfloat16"]),
    help="Compute in this on CUDA, as the card then says; wants --deterministic.",
)
@click.option("--description", default="", help="One public line for the model card.")
def import_(
    source: str,
    root: Path,
    name: str,
    version: str,
    input_shape: str | None,
    bounds: tuple[float, float],
    deterministic: bool,
    payload: str,
    autocast: str | None,
    description: str,
) -> None:
    """Host your own model: SOURCE is package:factory (returns an nn.Module), a .pt2 file, or a tree's .json file."""
    with one_sentence():
        repository = Repository(root)
        if source.endswith(".json"):
            tree = Tree.from_json(Path(source).read_bytes())
            card = host_tree(tree, repository, name, version, description=description)
        else:
            try:
                shape = tuple(int(n) for n in (input_shape or "").split(","))
            except ValueError:
                said = f"{input_shape} is no shape" if input_shape else "is missing"
                raise click.UsageError(f"--input-shape {said}: give for example 1,112,92") from None
            accepted = () if payload == "none" else tuple(payload.split(","))
            chosen: dict[str, Any] = {"accepted_dtypes": accepted, "autocast": autocast or ""}
            draft = Draft(name, version, shape, *bounds, deterministic, description, **chosen)
            card = host(find_model(source), repository, draft)
    click.echo(f"{card.id}: {card.parameters} parameters, {card.classes} classes, sha256 {card.archive_sha256}")


@click.command(epilog=f"Example: oracle-server publish att30 --out public --accept-terms. {_SPLITS}")
@click.argument("split")
@DATA_ROOT
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--accept-terms", is_flag=True, help="You keep the terms of use of the data set.")
def publish(split: str, out: Path, accept_terms: bool) -> None:
    """Write the public part of a split: all the data that an attacker gets."""
    with one_sentence():
        publish_split(split_named(split), out, accept_terms)
    click.echo(f"published {split} to {out}")


MODEL_COMMANDS = (train, train_table, import_, publish)
