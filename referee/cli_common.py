"""What the commands of `referee` share: options, progress, errors as one sentence, and how they end."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console

from oracle_server.ledger import LedgerError
from oracle_server.operator import OperatorError
from oracle_server.victims.images import ImagesUnavailableError
from referee.campaign import CampaignError
from referee.cell import Cell
from referee.processes import ProcessError
from referee.report import Campaign, print_report

__all__ = ["DEVICE", "FOLDER", "JOBS", "PRIVATE", "command_line", "one_sentence", "progress", "show"]

DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
PRIVATE = click.option(
    "--private-images/--no-private-images",
    default=True,
    show_default=True,
    help="Show private photos and reconstructions in the report, or leave all pictures out.",
)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
JOBS = click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Cells that run at once; each is an attacker."
)


def show(cells: list[Cell], view: Campaign, out: Path) -> None:
    """How a command ends: its tables, and where its files are."""
    print_report(cells, view)
    click.echo(f"report: {out / 'report.html'}   figures: {out / 'summary.json'}")


def command_line() -> str:
    """The command as it was given, for the report."""
    return " ".join(["referee", *sys.argv[1:]])


@contextlib.contextmanager
def progress(out: Path, first: str) -> Iterator[Callable[[str], None]]:
    """What is yielded shows in a line what begins; errors end the command as in `one_sentence`."""
    console = Console(stderr=True)
    with one_sentence(out), console.status(first) as status:

        def say(line: str) -> None:
            if console.is_terminal:
                status.update(line)
            else:
                click.echo(line, err=True)

        yield say


@contextlib.contextmanager
def one_sentence(out: Path) -> Iterator[None]:
    """Foreseen errors end the command with their sentence; an interruption says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise click.ClickException(
            f"stopped, with everything that was started; run it again to go on in {out}"
        ) from None
    except (
        CampaignError,
        ImagesUnavailableError,
        LedgerError,
        OperatorError,
        ProcessError,
        ValueError,
        OSError,
    ) as error:
        raise click.ClickException(str(error)) from error
    except LookupError as error:
        raise click.ClickException(str(error.args[0])) from error
