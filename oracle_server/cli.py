"""`oracle-server`: host models and keep their contracts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
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
from oracle_server.cli_common import AUDIT_KEY, ROOT, named_defence, one_sentence
from oracle_server.cli_detections import named_detection, state_words
from oracle_server.cli_features import train_features
from oracle_server.cli_models import MODEL_COMMANDS
from oracle_server.cli_secrets import KEY_OUT, rotate, told
from oracle_server.contracts import contract_from_message, contract_message, contract_words
from oracle_server.ledger import SqliteLedger
from oracle_server.operator import OperatorError, ledger_path, open_operator
from oracle_server.server import ServeOptions, serve, write_address
from oracle_server.threat_model import Access, Contract
from oracle_server.transport import TlsFiles
from protos.mirage.v1 import admin_pb2

__all__ = ["main"]

_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(epilog="Example: oracle-server train softmax_regression --split att40 && oracle-server serve")
@click.version_option(package_name="mirage-range")
def main() -> None:
    """Host models and enforce, for each API key, what may leave them."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)


for command in MODEL_COMMANDS:
    main.add_command(command)
main.add_command(train_features)
main.add_command(audit)
main.add_command(certs)


@main.command("serve", epilog="Example: oracle-server serve --root oracle --port 50051 --device auto")
@ROOT
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; plain text on loopback only."
)
@click.option("--port", default=50051, show_default=True, help="0 picks a free port; see server.json in --root.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--threads", default=1, show_default=True, help="Torch threads of a forward pass on the CPU.")
@click.option("--batch", default=64, show_default=True, help="Rows in one forward pass.")
@click.option("--max-rows", default=1024, show_default=True, help="Rows that one request may carry.")
@click.option("--max-waiting", default=16_384, show_default=True, help="Rows that may wait for one model.")
@click.option("--tls-certificate", type=_PEM, help="PEM chain; read again when it changes, with the other TLS files.")
@click.option("--tls-key", type=_PEM, help="PEM private key.")
@click.option("--tls-client-ca", type=_PEM, help="PEM of authorities: a caller must show a certificate of theirs, too.")
@click.option(
    "--plain-text-beyond-loopback",
    is_flag=True,
    help="Without TLS, listen on other addresses too: keys and answers travel readable. Only behind what encrypts.",
)
@click.option("--reflection", is_flag=True, help="Serve gRPC reflection.")
@click.option(
    "--grace",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds that calls in flight have after SIGTERM.",
)
@AUDIT_KEY
@click.option(
    "--adopt-ledger",
    is_flag=True,
    help="Take over a ledger that is a copy, or that its audit key does not fit: its original must never serve again.",
)
def serve_(
    audit_key: Path | None,
    adopt_ledger: bool,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    **options: Any,
) -> None:
    """Serve every model below --root until SIGTERM."""
    if (tls_certificate is None) != (tls_key is None):
        raise click.UsageError("--tls-certificate and --tls-key go together")
    if tls_client_ca is not None and tls_certificate is None:
        raise click.UsageError("--tls-client-ca needs --tls-certificate and --tls-key")
    tls = TlsFiles(tls_certificate, tls_key, tls_client_ca) if tls_certificate and tls_key else None
    with one_sentence():
        if options["threads"] < 1 or options["batch"] < 1 or options["max_rows"] < 1:
            raise click.UsageError("--threads, --batch and --max-rows must be at least 1")
        ledger = SqliteLedger(ledger_path(options["root"]), audit_key, adopt_ledger)
        with contextlib.closing(ledger), contextlib.ExitStack() as stack:
            ledger.open_chain()

            def started(address: str) -> None:
                stack.callback(write_address(options["root"], address))
                click.echo(f"serving on {address}")

            try:
                asyncio.run(serve(ServeOptions(tls=tls, **options), ledger, started))
            finally:  # what is left takes a moment, and a second signal does not cut it short
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)


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
