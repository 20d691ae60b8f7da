"""What the commands share: errors as one sentence, Ctrl-C, the device."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

import click
import grpc
import torch
from rich.progress import Progress

from attacker.journal import JournalError
from attacker.oracle import OracleError
from attacker.run import RunRefused

__all__ = ["REFUSED", "chosen_device", "ends_at_ctrl_c", "one_sentence"]

REFUSED = 3  # exit status: the contract gives less than the method needs


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Foreseen errors end the command with their sentence; a refusal has a status of its own."""
    try:
        yield
    except RunRefused as error:
        click.echo(f"Refused: {error}", err=True)
        raise SystemExit(REFUSED) from error
    except (OracleError, JournalError, ValueError, OSError, grpc.RpcError) as error:
        raise click.ClickException(str(error)) from error


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
