"""`oracle-server serve`: the server with its options."""

from __future__ import annotations

import contextlib
import logging
import signal
from pathlib import Path
from typing import Any

import click
import uvloop

from oracle_server.cli_common import AUDIT_KEY, ROOT, one_sentence
from oracle_server.ledger import SqliteLedger
from oracle_server.logs import FORMATTERS
from oracle_server.metrics import UNCOUNTED
from oracle_server.models.forms import AUTO, Form
from oracle_server.operator import ledger_path
from oracle_server.prometheus import Prometheus, metrics_listener
from oracle_server.server import ServeOptions, serve, write_address
from oracle_server.transport import TlsFiles
from oracle_server.upstream import Upstream

__all__ = ["serve_"]

_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("serve", epilog="Example: oracle-server serve --root oracle --port 50051 --device auto")
@ROOT
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; plain text on loopback only."
)
@click.option("--port", default=50051, show_default=True, help="0 picks a free port; see server.json in --root.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--threads", default=1, show_default=True, help="Torch threads of a forward pass on the CPU.")
@click.option("--batch", default=64, show_default=True, help="Rows in one forward pass at most.")
@click.option(
    "--forward",
    default=AUTO,
    show_default=True,
    type=click.Choice([AUTO, *(form.value for form in Form)]),
    help="Form in which networks run: auto is the fastest that answers as eager does, to 1e-5 in logits, compiled left "
    "out, which takes most of a minute at each start and wants a C++ compiler. Where the form fails, eager runs.",
)
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
    "--open-inference/--no-open-inference",
    default=True,
    show_default=True,
    help="Answer clients of the Open Inference Protocol (KServe V2), too, under the same keys and contracts.",
)
@click.option(
    "--grace",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds that calls in flight have after SIGTERM.",
)
@click.option(
    "--upstream",
    "upstreams",
    multiple=True,
    metavar="NAME=ADDRESS[?FACT=VALUE&...]",
    help="Put keys and contracts in front of a model that runs elsewhere; may be repeated.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Metrics for Prometheus on a port of their own; 0 picks one.",
)
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Address of the metrics; loopback only.")
@click.option(
    "--metrics-beyond-loopback", is_flag=True, help="Show the metrics on other addresses too: they need no key."
)
@click.option("--log-format", type=click.Choice(list(FORMATTERS)), default="text", show_default=True)
@click.option("--log-requests", is_flag=True, help="A line in the log for each call, without inputs or answers.")
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
    upstreams: tuple[str, ...],
    metrics_port: int | None,
    metrics_host: str,
    metrics_beyond_loopback: bool,
    log_format: str,
    **options: Any,
) -> None:
    """Serve every model below --root until SIGTERM.

    --upstream puts this server's keys, contracts and ledger in front of a model of your own that runs elsewhere:
    'mine=grpc://127.0.0.1:8001/mnist' on a V2 (Open Inference Protocol) server, grpcs:// with TLS; or in a function of
    yours, 'mine=python:package.module:function?shape=1,28,28' or path/to/file.py:function, WHICH RUNS IN THIS PROCESS:
    rows (N, *shape) float32 -> scores (N, C).

    Facts follow as ?fact=value&fact=value where the upstream does not say them: shape=1,28,28 of a row, range=0,1,
    outputs=logits or probabilities, input=TENSOR, output=TENSOR, batch=ROWS, timeout=10 seconds, contents=raw or typed,
    description=WORDS, key-file=PATH, ca=PATH, plain-text-beyond-loopback=yes. The first start writes the model's card;
    later ones name the upstream again. That a row's answer is the same in any company, and at a retry, is not known of
    a model that runs elsewhere.
    """
    if (tls_certificate is None) != (tls_key is None):
        raise click.UsageError("--tls-certificate and --tls-key go together")
    if tls_client_ca is not None and tls_certificate is None:
        raise click.UsageError("--tls-client-ca needs --tls-certificate and --tls-key")
    tls = TlsFiles(tls_certificate, tls_key, tls_client_ca) if tls_certificate and tls_key else None
    for handler in logging.getLogger().handlers:
        handler.setFormatter(FORMATTERS[log_format]())
    with one_sentence():
        proxied = tuple(Upstream.parse(text) for text in upstreams)
        if twice := {one.model for one in proxied if [other.model for other in proxied].count(one.model) > 1}:
            raise click.UsageError(f"--upstream {min(twice)} is there twice: a model has one")
        if options["threads"] < 1 or options["batch"] < 1 or options["max_rows"] < 1:
            raise click.UsageError("--threads, --batch and --max-rows must be at least 1")
        with contextlib.ExitStack() as stack:
            metrics = UNCOUNTED
            if metrics_port is not None:
                listener = metrics_listener(metrics_host, metrics_port, metrics_beyond_loopback)
                metrics = Prometheus(stack.enter_context(listener))
            ledger = SqliteLedger(ledger_path(options["root"]), audit_key, adopt_ledger, metrics)
            stack.enter_context(contextlib.closing(ledger))
            ledger.open_chain()

            def started(address: str) -> None:
                stack.callback(write_address(options["root"], address, metrics.address))
                click.echo(f"serving on {address}")
                if metrics.address:
                    click.echo(f"metrics on http://{metrics.address}/metrics")

            try:
                uvloop.run(serve(ServeOptions(tls=tls, upstreams=proxied, **options), ledger, started, metrics))
            finally:  # what is left takes a moment, and a second signal does not cut it short
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
