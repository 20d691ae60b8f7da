"""How a key is told to its holder, once, and how it gets a new secret."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from oracle_server.cli_common import ROOT, one_sentence
from oracle_server.new_files import new_file
from oracle_server.operator import open_operator
from protos.mirage.v1 import admin_pb2

__all__ = ["KEY_OUT", "rotate", "told"]

KEY_OUT = click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the key into this new file, which you alone can read, and do not print it.",
)


@contextlib.contextmanager
def told(out: Path | None) -> Iterator[Callable[[str, str], None]]:
    """What tells a key and its id: prints the key, or writes it into the file `out`, which is made before there is a
    key. `FileExistsError` when the file is there.
    """
    if out is None:
        yield lambda key, key_id: click.echo(key)
        return
    with new_file(out) as file:

        def write(key: str, key_id: str) -> None:
            file.write(f"{key}\n".encode())
            click.echo(f"the key {key_id} is in {out}")

        yield write


@click.command(epilog="Example: oracle-server keys rotate 5f0c2a9d41b7e603 --overlap 86400 --out key")
@ROOT
@click.argument("key_id")
@click.option(
    "--overlap",
    default=3600.0,
    show_default=True,
    help="Seconds for which the old secret is accepted, too; 0 refuses it at once.",
)
@KEY_OUT
def rotate(root: Path, key_id: str, overlap: float, out: Path | None) -> None:
    """Give a key a new secret and print the key, once. Contract, budget and what is spent stay.

    A key has two secrets at most: a rotation during the overlap of another refuses the older one at once.
    """
    with one_sentence(), open_operator(root) as operator, told(out) as tell:
        rotated = operator.rotate_key(admin_pb2.RotateKeyRequest(key_id=key_id, overlap=overlap))
        tell(rotated.key, key_id)
    old = f"is accepted for {overlap:g} s more" if overlap else "is refused from now on"
    click.echo(f"the old secret {old}" + (", the one before it no more" if rotated.dropped else ""), err=True)
