"""`oracle-server`: host models and keep their contracts."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from defenses.detection import DETECTIONS
from defenses.response import RESPONSES
from oracle_server.cli_audit import audit
from oracle_server.cli_certs import certs
from oracle_server.cli_common import ROOT, named_defence, one_sentence
from oracle_server.cli_detections import named_detection, state_words
from oracle_server.cli_features import train_features
from oracle_server.cli_models import MODEL_COMMANDS
from oracle_server.cli_secrets import KEY_OUT, rotate, told
from oracle_server.cli_serve import serve_
from oracle_server.contracts import contract_from_message, contract_message, contract_words
from oracle_server.operator import OperatorError, open_operator
from oracle_server.threat_model import Access, Contract
from protos.mirage.v1 import admin_pb2

__all__ = ["main"]


@click.group(epilog="Example: oracle-server train softmax_regression --split att40 && oracle-server serve")
@click.version_option(package_name="mirage-range")
def main() -> None:
    """Host models and enforce, for each API key, what may leave them."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)


for command in MODEL_COMMANDS:
    main.add_command(command)
main.add_command(train_features)
main.add_command(serve_)
main.add_command(audit)
main.add_command(certs)


@main.group()
def keys() -> None:
    """Make, change, rotate, revoke, reinstate and list API keys; the server may run meanwhile."""


keys.add_command(rotate)


@keys.command("create", epilog="Example: oracle-server keys create --model m/1 --access scores --top-k 1 --budget 5000")
@ROOT
@click.option("--model", required=True, help="NAME or NAME/VERSION.")
@click.option("--label", default="", help="Who it is for.")
@click.option("--access", required=True, type=click.Choice([a.value for a in Access]))
@click.option("--top-k", type=int, help="Release only the k largest scores.")
@click.option("--round-to", type=float, help="Round released scores to multiples of this.")
@click.option("--features", default="", help="Feature models: release only these groups of outputs, a,b,...")
@click.option(
    "--defence",
    "defences",
    multiple=True,
    help=f"name:parameter=value,... of {', '.join(RESPONSES)}; may be repeated.",
)
@click.option(
    "--detect",
    "detections",
    multiple=True,
    help=f"name:verdict=...,parameter=value,... of {', '.join(DETECTIONS)}; repeatable.",
)
@click.option("--budget", type=int, help="Rows that may be answered.")
@click.option("--rate", type=float, help="Rows a second.")
@click.option("--expires-in", type=float, help="Seconds until the key is refused.")
@KEY_OUT
def create(
    root: Path,
    model: str,
    label: str,
    access: str,
    features: str,
    defences: tuple[str, ...],
    detections: tuple[str, ...],
    expires_in: float | None,
    out: Path | None,
    **numbers: Any,
) -> None:
    """Make a key and print it, once.

    --detect names a detector of attacks in the key's queries and what follows when it finds
    one: verdict=log (the default), throttle (to rate=1 rows a second, unless it says otherwise) or suspend.
    """
    with one_sentence(), open_operator(root) as operator, told(out) as tell:
        contract = Contract(
            Access(access),
            features=tuple(group for word in features.split(",") if (group := word.strip())),
            defences=tuple(named_defence(text) for text in defences),
            detections=tuple(named_detection(text) for text in detections),
            expires=None if expires_in is None else time.time() + expires_in,
            **numbers,
        )
        request = admin_pb2.CreateKeyRequest(label=label, model=model, contract=contract_message(contract))
        made = operator.create_key(request)
        tell(made.key, made.key_id)


@keys.command("budget", epilog="Example: oracle-server keys budget 5f0c2a9d41b7e603 20000")
@ROOT
@click.argument("key_id")
@click.argument("rows", type=click.IntRange(0), required=False)
def budget(root: Path, key_id: str, rows: int | None) -> None:
    """Change how many ROWS a key may be answered in all; without ROWS there is no bound.

    No budget goes below what the key has spent. A run under way goes on with the new one; a result names the budget
    that the key had when the run began.
    """
    with one_sentence(), open_operator(root) as operator:
        operator.set_budget(admin_pb2.SetBudgetRequest(key_id=key_id, budget=rows))
    click.echo(f"{key_id} may be answered {'any number of' if rows is None else f'{rows:,}'} rows in all")


@keys.command("revoke", epilog="Example: oracle-server keys revoke 5f0c2a9d41b7e603")
@ROOT
@click.argument("key_id")
def revoke(root: Path, key_id: str) -> None:
    """Refuse a key from now on."""
    with one_sentence(), open_operator(root) as operator:
        operator.revoke_key(admin_pb2.RevokeKeyRequest(key_id=key_id))
    click.echo(f"revoked {key_id}")


@keys.command("reinstate", epilog="Example: oracle-server keys reinstate 5f0c2a9d41b7e603")
@ROOT
@click.argument("key_id")
def reinstate(root: Path, key_id: str) -> None:
    """Serve a key again that a detection has throttled or suspended."""
    with one_sentence(), open_operator(root) as operator:
        operator.reinstate_key(admin_pb2.ReinstateKeyRequest(key_id=key_id))
    click.echo(f"reinstated {key_id}")


def _usage_table(root: Path, key_id: str | None) -> None:
    with one_sentence(), open_operator(root) as operator:
        wanted = admin_pb2.ListKeysRequest(key_ids=[] if key_id is None else [key_id])
        infos = operator.list_keys(wanted).keys
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
        state = state_words(info, expired)
        rows = f"{info.usage.spent:,}" + (f" of {contract.budget:,}" if contract.budget is not None else "")
        rows += f"\n{info.usage.downloads} downloads" if info.usage.downloads else ""
        what = f"{info.model}: {contract_words(contract)}" + (f"\n{info.label}" if info.label else "")
        table.add_row(info.key_id, what, state, rows, f"{info.usage.capacity_bits:,.0f}")
    Console().print(table)


@keys.command("list", epilog="Example: oracle-server keys list --root oracle")
@ROOT
def list_(root: Path) -> None:
    """Every key with its contract and what it has spent."""
    _usage_table(root, None)


@main.command(epilog="Example: oracle-server usage 5f0c2a9d41b7e603")
@ROOT
@click.argument("key_id", required=False)
def usage(root: Path, key_id: str | None) -> None:
    """Rows charged to a key (or to all), what is left, and the capacity in bits."""
    _usage_table(root, key_id)
