"""What the commands of `oracle-server` share: options for folders, a progress bar, errors in one sentence."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from oracle_server.ledger import LedgerError
from oracle_server.models.importing import ModelRefused
from oracle_server.operator import OperatorError
from oracle_server.transport import ServerError
from oracle_server.victims.data import DATA_ROOT_VARIABLE
from oracle_server.victims.images import ImagesUnavailableError
from oracle_server.victims.table import TableUnavailableError
from oracle_server.victims.trained import Epoch

__all__ = ["AUDIT_KEY", "DATA_ROOT", "ROOT", "named_defence", "one_sentence", "training_bar"]

ROOT = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("oracle"),
    show_default=True,
    envvar="MIRAGE_ROOT",
    help="The server's folder: models, ledger, admin socket.",
)

AUDIT_KEY = click.option(
    "--audit-key",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="MIRAGE_AUDIT_KEY",
    help="File of the key that chains the log; serve makes it when missing. Default: audit.key in --root.",
)


def _set_data_root(context: click.Context, parameter: click.Parameter, root: Path | None) -> None:
    if root is not None:
        os.environ[DATA_ROOT_VARIABLE] = str(root.resolve())  # for this process and those that it starts


DATA_ROOT = click.option(
    "--data-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar=DATA_ROOT_VARIABLE,
    expose_value=False,
    callback=_set_data_root,
    help="Folder of the data sets that no package carries: MNIST/raw, cifar-10-batches-py, facescrub, celeba,"
    " ChestX-ray14.",
)


def named_defence(text: str) -> tuple[str, tuple[tuple[str, float], ...]]:
    """Name and sorted parameters of `name:parameter=value,parameter=value`, as --defence takes them."""
    name, _, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",") if pair]
    try:
        return name, tuple(sorted((key, float(value)) for key, _, value in pairs))
    except ValueError:
        raise click.UsageError(f"--defence {text}: write name:parameter=value,parameter=value") from None


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


@contextlib.contextmanager
def training_bar(title: str) -> Iterator[Callable[[Epoch], None]]:
    """A progress bar of a training; what is yielded takes each epoch."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title)
        yield lambda epoch: bar.update(task, completed=epoch.number, total=epoch.total)
