"""`oracle-server`: host models and keep their contracts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from oracle_server.contracts import contract_from_message, contract_message, contract_words
from oracle_server.ledger import LedgerError, SqliteLedger
from oracle_server.models.importing import Draft, ModelRefused, find_model, host
from oracle_server.models.repository import Repository
from oracle_server.operator import OperatorError, ledger_path, open_operator
from oracle_server.server import ServeOptions, ServerError, serve, write_address
from oracle_server.threat_model import Access, Contract
from oracle_server.victims.hosting import train_and_host
from oracle_server.victims.training import Epoch
from protos.mirage.v1 import admin_pb2

__all__ = ["main"]

_ROOT = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("oracle"),
    show_default=True,
    envvar="MIRAGE_ROOT",
    help="The server's folder: models, ledger, admin socket.",
)


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
    """Foreseen errors end the command with their sentence instead of a traceback."""
    try:
        yield
    except (
        ServerError, LedgerError, OperatorError, ModelRefused, FileExistsError, LookupError, ValueError, OSError
    ) as error:  # fmt: skip
        raise click.ClickException(str(error.args[0] if isinstance(error, LookupError) else error)) from error


@click.group(epilog="Example: oracle-server train softmax_regression --split att40 && oracle-server serve")
@click.version_option(package_name="mirage-range")
def main() -> None:
    """Host models and enforce, for each API key, what may leave them."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)


@main.command("serve", epilog="Example: oracle-server serve --root oracle --port 50051 --device auto")
@_ROOT
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; plain text on loopback only."
)
@click.option("--port", default=50051, show_default=True, help="0 picks a free port; see server.json in --root.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--threads", default=1, show_default=True, help="Torch threads of a forward pass on the CPU.")
@click.option("--batch", default=64, show_default=True, help="Rows in one forward pass.")
@click.option("--max-rows", default=1024, show_default=True, help="Rows that one request may carry.")
@click.option("--max-waiting", default=16_384, show_default=True, help="Rows that may wait for one model.")
@click.option("--tls-certificate", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="PEM chain.")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="PEM private key.")
@click.option("--reflection", is_flag=True, help="Serve gRPC reflection.")
def serve_(**options: Any) -> None:
    """Serve every model below --root until SIGTERM."""
    if (options["tls_certificate"] is None) != (options["tls_key"] is None):
        raise click.UsageError("--tls-certificate and --tls-key go together")
    with _one_sentence():
        if options["threads"] < 1 or options["batch"] < 1 or options["max_rows"] < 1:
            raise click.UsageError("--threads, --batch and --max-rows must be at least 1")
        ledger = SqliteLedger(ledger_path(options["root"]))
        with contextlib.closing(ledger), contextlib.ExitStack() as stack:

            def started(address: str) -> None:
                stack.callback(write_address(options["root"], address))
                click.echo(f"serving on {address}")

            asyncio.run(serve(ServeOptions(**options), ledger, started))


@main.command(epilog="Example: oracle-server train softmax_regression --split att40")
@click.argument("architecture")
@click.option("--split", default="att40", show_default=True, help="att40, att30, or random-SEED.")
@_ROOT
@click.option("--name", help="Name of the hosted model; ARCHITECTURE-SPLIT by default.")
@click.option("--version", default="1", show_default=True)
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
    """Train a model on private data and host it."""
    with _one_sentence(), _progress(f"training {architecture} on {split}") as report:
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


@main.command("import", epilog="Example: oracle-server import mypackage:make_model --name mine --input-shape 3,64,64")
@click.argument("source")
@_ROOT
@click.option("--name", required=True)
@click.option("--version", default="1", show_default=True)
@click.option("--input-shape", required=True, help="Shape of one row, for example 1,112,92.")
@click.option(
    "--range", "bounds", type=(float, float), default=(0.0, 1.0), show_default=True, help="Legal input values."
)
@click.option("--deterministic", is_flag=True, help="Serve it in batches of one fixed shape.")
@click.option("--description", default="", help="One public line for the model card.")
def import_(
    source: str,
    root: Path,
    name: str,
    version: str,
    input_shape: str,
    bounds: tuple[float, float],
    deterministic: bool,
    description: str,
) -> None:
    """Host your own model: SOURCE is package:factory (returns an nn.Module) or a .pt2 file."""
    with _one_sentence():
        try:
            shape = tuple(int(n) for n in input_shape.split(","))
        except ValueError:
            raise click.UsageError(f"--input-shape {input_shape} is no shape: give for example 1,112,92") from None
        draft = Draft(name, version, shape, *bounds, deterministic, description)
        card = host(find_model(source), Repository(root), draft)
    click.echo(f"{card.id}: {card.parameters} parameters, {card.classes} classes, sha256 {card.archive_sha256}")


@main.command(epilog="Example: oracle-server publish att30 --out public --accept-terms")
@click.argument("split")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--accept-terms", is_flag=True, help="You keep the terms of use of the data set.")
def publish(split: str, out: Path, accept_terms: bool) -> None:
    """Write the public part of a split: all the data that an attacker gets."""
    from oracle_server.victims.publish import publish as publish_split
    from oracle_server.victims.splits import split_named

    with _one_sentence():
        publish_split(split_named(split), out, accept_terms)
    click.echo(f"published {split} to {out}")


@main.group()
def keys() -> None:
    """Make, revoke and list API keys; the server may run meanwhile."""


@keys.command("create", epilog="Example: oracle-server keys create --model m/1 --access scores --top-k 1 --budget 5000")
@_ROOT
@click.option("--model", required=True, help="NAME or NAME/VERSION.")
@click.option("--label", default="", help="Who it is for.")
@click.option("--access", required=True, type=click.Choice([a.value for a in Access]))
@click.option("--top-k", type=int, help="Release only the k largest scores.")
@click.option("--round-to", type=float, help="Round released scores to multiples of this.")
@click.option("--defence", "defences", multiple=True, help="name or name:parameter=value,... ; may be repeated.")
@click.option("--budget", type=int, help="Rows that may be answered.")
@click.option("--rate", type=float, help="Rows a second.")
@click.option("--expires-in", type=float, help="Seconds until the key is refused.")
def create(
    root: Path, model: str, label: str, access: str, defences: tuple[str, ...], expires_in: float | None, **numbers: Any
) -> None:
    """Make a key and print it, once."""
    with _one_sentence(), open_operator(root) as operator:
        contract = Contract(
            Access(access),
            defences=tuple(_defence(text) for text in defences),
            expires=None if expires_in is None else time.time() + expires_in,
            **numbers,
        )
        request = admin_pb2.CreateKeyRequest(label=label, model=model, contract=contract_message(contract))
        click.echo(operator.create_key(request).key)


@keys.command("revoke", epilog="Example: oracle-server keys revoke 5f0c2a9d41b7e603")
@_ROOT
@click.argument("key_id")
def revoke(root: Path, key_id: str) -> None:
    """Refuse a key from now on."""
    with _one_sentence(), open_operator(root) as operator:
        operator.revoke_key(admin_pb2.RevokeKeyRequest(key_id=key_id))
    click.echo(f"revoked {key_id}")


def _usage_table(root: Path, key_id: str | None) -> None:
    with _one_sentence(), open_operator(root) as operator:
        infos = [k for k in operator.list_keys(admin_pb2.ListKeysRequest()).keys if key_id in (None, k.key_id)]
        if key_id is not None and not infos:
            raise OperatorError(f"there is no key {key_id!r}: see oracle-server keys list")
    table = Table(caption="capacity: an upper bound in bits on what the answers could have told, not a measured leak")
    for title, justify in (
        ("key", "left"),
        ("for", "left"),
        ("state", "left"),
        ("rows", "right"),
        ("capacity", "right"),
    ):
        table.add_column(title, justify=justify, overflow="fold", no_wrap=title == "key")  # type: ignore[arg-type]
    for info in infos:
        contract = contract_from_message(info.contract)
        expired = contract.expires is not None and time.time() >= contract.expires
        state = "revoked" if info.HasField("revoked") else "expired" if expired else "valid"
        rows = f"{info.usage.spent:,}" + (f" of {contract.budget:,}" if contract.budget is not None else "")
        rows += f"\n{info.usage.downloads} downloads" if info.usage.downloads else ""
        what = f"{info.model}: {contract_words(contract)}" + (f"\n{info.label}" if info.label else "")
        table.add_row(info.key_id, what, state, rows, f"{info.usage.capacity_bits:,.0f}")
    Console().print(table)


@keys.command("list", epilog="Example: oracle-server keys list --root oracle")
@_ROOT
def list_(root: Path) -> None:
    """Every key with its contract and what it has spent."""
    _usage_table(root, None)


@main.command(epilog="Example: oracle-server usage 5f0c2a9d41b7e603")
@_ROOT
@click.argument("key_id", required=False)
def usage(root: Path, key_id: str | None) -> None:
    """Rows charged to a key (or to all), what is left, and the capacity in bits."""
    _usage_table(root, key_id)


@main.command(epilog="Example: oracle-server audit --out log.parquet")
@_ROOT
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
def audit(root: Path, out: Path) -> None:
    """Export the log of everything charged as Parquet."""
    from oracle_server.audit import write_parquet

    with _one_sentence(), open_operator(root) as operator:
        lines = write_parquet(operator.audit(admin_pb2.AuditRequest()), out)
    click.echo(f"{lines} lines in {out}")


def _defence(text: str) -> tuple[str, tuple[tuple[str, float], ...]]:
    name, _, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",") if pair]
    try:
        return name, tuple(sorted((key, float(value)) for key, _, value in pairs))
    except ValueError:
        raise click.UsageError(f"--defence {text}: write name:parameter=value,parameter=value") from None


@contextlib.contextmanager
def _progress(title: str) -> Iterator[Callable[[Epoch], None]]:
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title)
        yield lambda epoch: bar.update(task, completed=epoch.number, total=epoch.total)
