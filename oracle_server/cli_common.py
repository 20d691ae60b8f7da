"""What every command of `oracle-server` shares: the folder option, and errors in one sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from oracle_server.ledger import LedgerError
from oracle_server.models.importing import ModelRefused
from oracle_server.operator import OperatorError
from oracle_server.server import ServerError
from oracle_server.victims.images import ImagesUnavailableError
from oracle_server.victims.table import TableUnavailableError

__all__ = ["ROOT", "one_sentence"]

ROOT = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("oracle"),
    show_default=True,
    envvar="MIRAGE_ROOT",
    help="The server's folder: models, ledger, admin socket.",
)


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Foreseen errors end the command with their sentence instead of a traceback."""
    try:
        yield
    except (
        ServerError, LedgerError, OperatorError, ModelRefused, ImagesUnavailableError, TableUnavailableError,
        FileExistsError, LookupError, ValueError, OSError,
    ) as error:  # fmt: skip
        raise click.ClickException(str(error.args[0] if isinstance(error, LookupError) else error)) from error
