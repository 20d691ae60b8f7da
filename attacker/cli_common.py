"""What the commands share: how a server is reached and with which keys, errors as one sentence, Ctrl-C, the device."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click
import grpc
import torch
from rich.progress import Progress

from attacker.journal import JournalError
from attacker.oracle import OracleError
from attacker.run import RunRefused
from attacker.transport import Tls

__all__ = ["KEY_FILE", "REFUSED", "chosen_device", "ends_at_ctrl_c", "one_sentence", "private", "reaches", "read_keys"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = 3  # exit status: the contract gives less than the method needs

_KEY = re.compile(r"[A-Za-z0-9_]+")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
KEY_FILE = click.option(
    "--key-file",
    type=_FILE,
    help="File with the API key, or several; nobody else may read it. Default: the environment's MIRAGE_KEY.",
)


def reaches(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that talks to a server. It is given `address`, and as `reach` what else `Oracle` takes."""

    @click.option("--address", default="127.0.0.1:50051", show_default=True)
    @click.option("--certificate", type=_FILE, help="PEM to trust; uses TLS.")
    @click.option("--client-certificate", type=_FILE, help="PEM to show to a server that asks for it (mutual TLS).")
    @click.option("--client-key", type=_FILE, help="PEM private key of --client-certificate.")
    @click.option(
        "--plain-text-beyond-loopback",
        is_flag=True,
        help="Without TLS, talk to other machines too: the key and the answers travel readable.",
    )
    @functools.wraps(command)
    def with_options(
        certificate: Path | None,
        client_certificate: Path | None,
        client_key: Path | None,
        plain_text_beyond_loopback: bool,
        **others: Any,
    ) -> None:
        if (client_certificate is None) != (client_key is None):
            raise click.UsageError("--client-certificate and --client-key go together")
        if client_certificate is not None and certificate is None:
            raise click.UsageError("--client-certificate needs --certificate: what to trust of the server")
        tls = None if certificate is None else Tls(certificate, client_certificate, client_key)
        command(**others, reach={"tls": tls, "plain_text_beyond_loopback": plain_text_beyond_loopback})

    return with_options


def read_keys(file: Path | None) -> list[str]:
    """The API keys, with commas or white space between them, in a file or else in MIRAGE_KEY. Never on a command line,
    which every user of the machine can read.
    """
    text = os.environ.get("MIRAGE_KEY", "") if file is None else private(file).read_text("utf-8", "replace")
    keys = [key for key in re.split(r"[,\s]+", text) if key]
    if not keys:
        where = "put it into the environment as MIRAGE_KEY" if file is None else f"{file} has none in it"
        raise click.ClickException(f"no API key: {where}")
    if not all(_KEY.fullmatch(key) for key in keys):  # of a wrong file, nothing is sent to anybody
        raise click.ClickException(f"{file or 'MIRAGE_KEY'} has something in it that is no API key: letters, digits, _")
    return keys


def private(file: Path) -> Path:
    """The same file, when its owner alone can read it; `ValueError` otherwise."""
    if file.stat().st_mode & 0o077:
        raise ValueError(f"{file} holds keys and others may use it: chmod 600 {file}")
    return file


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Foreseen errors end the command with their sentence; a refusal has a status of its own."""
    try:
        yield
    except RunRefused as error:
        click.echo(f"Refused: {error}", err=True)
        raise SystemExit(REFUSED) from error
    except (OracleError, JournalError, ValueError, OSError, grpc.RpcError) as error:
        full = isinstance(error, OSError) and error.errno in _FULL
        raise click.ClickException(f"{error}{': free space; the same command resumes' if full else ''}") from error


@contextlib.contextmanager
def ends_at_ctrl_c(bar: Progress, what: str) -> Iterator[None]:
    """Ctrl-C ends the process where it stands, as a crash would: the files have all that `what`, resumed, needs. An
    exception could arise inside gRPC while a lock is held, and closing the channel would then wait for ever.
    """

    def end(number: int, frame: FrameType | None) -> None:
        bar.stop()
        click.echo(f"Error: stopped; the same command resumes {what}", err=True)
        os._exit(1)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where it is ignored, as in a background job
        signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def chosen_device(wanted: str) -> str:
    """A device for torch; `auto` takes the GPU where there is one."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted
