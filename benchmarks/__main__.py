"""`python -m benchmarks`: measure, print a table, write `summary.json`."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import attacks, ledger, response_defence, server
from benchmarks.common import IN_FLIGHT, THREADS, Rig, served
from referee.report.summary import Figure, write

_MEASURES = {
    "ledger": ledger.measure,
    "server": server.measure,
    "response_defence": response_defence.measure,
    "attacks": attacks.measure,
}


@click.command(epilog="Example: python -m benchmarks --only ledger")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
@click.option("--work", default=Path("runs/bench"), type=click.Path(file_okay=False, path_type=Path))
@click.option("--only", multiple=True, type=click.Choice(list(_MEASURES)), help="May be repeated; all when left out.")
@click.option("--rounds", default=11, show_default=True, type=click.IntRange(1), help="Pairs of readings of a ratio.")
@click.option("--seconds", default=1.0, show_default=True, type=click.FloatRange(0.01), help="Of one reading.")
@click.option("--quick", is_flag=True, help="Small images: whether everything runs, not how fast.")
def main(out: Path, work: Path, only: tuple[str, ...], rounds: int, seconds: float, quick: bool) -> None:
    """Measure speed as ratios, each of two things measured alternately in this run.

    OUT gets summary.json; WORK is made anew, on the disk whose ledger is to be measured, and taken away.
    """
    torch.set_num_threads(THREADS)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    rig = Rig(work, rounds, seconds, (1, 20, 16)) if quick else Rig(work, rounds, seconds)
    started, figures = time.monotonic(), []
    try:
        with served(rig.models()) as server:
            for name in only or _MEASURES:
                figures += _MEASURES[name](server, rig)
    finally:
        shutil.rmtree(work)
    write(figures, out / "summary.json")
    Console(width=max(130, Console().width)).print(_table(figures, time.monotonic() - started))


def _table(figures: list[Figure], seconds: float) -> Table:
    load = " ".join(f"{n:.1f}" for n in os.getloadavg())
    table = Table(
        caption=f"value: median of A / B over rounds measured A B A B ..., with an interval; {seconds:.0f} s on"
        f" {os.cpu_count()} cores, load {load}; {THREADS} torch thread for the server and one for the model in process;"
        f" {IN_FLIGHT} requests in flight"
    )
    for title in ("figure", "value", "95 %", "bound", "A", "B", "unit"):
        table.add_column(title, justify="left" if title in ("figure", "unit") else "right", no_wrap=True)
    for figure in figures:
        readings = [figure.extra.get(name) for name in ("first", "second")]
        bound = "" if figure.bound is None else f"{figure.bound} {'kept' if figure.passed else 'MISSED'}"
        table.add_row(
            figure.name, f"{figure.value:.3f}", f"{figure.low:.3f} to {figure.high:.3f}", bound,
            *("" if n is None else f"{n:,.0f}" if n > 100 else f"{n:.4f}" for n in readings),
            figure.extra.get("readings_unit", figure.unit),
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main()
