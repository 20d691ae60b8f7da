"""`oracle-server certs`: what TLS and mutual TLS are tried with."""

from __future__ import annotations

from pathlib import Path

import click

from oracle_server.cli_common import one_sentence

__all__ = ["certs"]


@click.command(epilog="Example: oracle-server certs --out tls --host oracle.example.org --host 192.0.2.7")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the files.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    default=("127.0.0.1", "::1", "localhost"),
    show_default=True,
    help="Name or address by which clients reach the server; may be repeated.",
)
@click.option("--days", type=click.IntRange(1, 365), default=30, show_default=True, help="How long they are valid.")
def certs(out: Path, hosts: tuple[str, ...], days: int) -> None:
    """Make certificates FOR TESTS: an authority of their own, a server's, a client's, and their keys.

    Whoever can read --out can pass for the server and for every client. Where more than tests depends on it, take
    certificates of your own authority.
    """
    try:
        from oracle_server.certificates import write_test_set
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("cryptography"):
            raise
        raise click.ClickException("certs needs the extra: pip install 'mirage-range[tls]'") from None
    with one_sentence():
        for path in write_test_set(out, hosts, days):
            click.echo(path)
    click.echo(
        f"for tests, {days} days; the keys are in the folder, without a password\n"
        f"server: oracle-server serve --tls-certificate {out}/server.pem --tls-key {out}/server-key.pem"
        f" --tls-client-ca {out}/ca.pem\n"
        f"client: attacker run ... --certificate {out}/ca.pem --client-certificate {out}/client.pem"
        f" --client-key {out}/client-key.pem",
        err=True,
    )
