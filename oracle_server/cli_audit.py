"""`oracle-server audit`: export the log of everything charged, or verify it."""

from __future__ import annotations

from pathlib import Path

import click

from oracle_server.cli_common import AUDIT_KEY, ROOT, one_sentence
from oracle_server.ledger import audit_key_path
from oracle_server.ledger.verify import verify
from oracle_server.operator import ledger_path, open_operator
from protos.mirage.v1 import admin_pb2

__all__ = ["audit"]

_MOST_SHOWN = 20


def _heads(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> list[tuple[int, bytes]]:
    heads = []
    for word in words:
        sequence, _, link = word.partition(":")
        try:
            heads.append((int(sequence), bytes.fromhex(link)))
        except ValueError:
            raise click.BadParameter(f"{word!r} is no NUMBER:HEX, the sequence and head of a receipt") from None
    return heads


@click.command(epilog="Example: oracle-server audit --out log.parquet; oracle-server audit --verify")
@ROOT
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the log to this Parquet file.")
@click.option("--verify", "check", is_flag=True, help="Look for lines that were edited, removed, moved or cut off.")
@AUDIT_KEY
@click.option(
    "heads", "--head", multiple=True, callback=_heads, help="With --verify: NUMBER:HEX of a receipt; repeatable."
)
def audit(root: Path, out: Path | None, check: bool, audit_key: Path | None, heads: list[tuple[int, bytes]]) -> None:
    """Export the log of everything charged as Parquet, or verify its chain, or both; the server may run meanwhile.

    Each line of the log carries an HMAC of itself and of the line before it; each answer's receipt carries that of its
    own line. Lines cut off at the end show against audit.head beside the audit key, and against a receipt's --head.
    """
    if out is None and not check:
        raise click.UsageError("say what to do: --out FILE, --verify, or both")
    if heads and not check:
        raise click.UsageError("--head belongs to --verify")
    if check:
        with one_sentence():
            path = ledger_path(root)
            verdict = verify(path, audit_key or audit_key_path(path), heads)
        for finding in verdict.findings[:_MOST_SHOWN]:
            click.echo(finding)
        if verdict.findings:
            raise click.ClickException(f"the log is not what was written: {len(verdict.findings)} findings")
        sequence, link = verdict.head
        click.echo(f"the chain of {verdict.lines:,} lines is whole; its head is {sequence}:{link.hex()}")
    if out is not None:
        from oracle_server.audit import write_parquet

        with one_sentence(), open_operator(root) as operator:
            lines = write_parquet(operator.audit(admin_pb2.AuditRequest()), out)
        click.echo(f"{lines} lines in {out}")
