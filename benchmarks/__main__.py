"""`python -m benchmarks`: measure, print a table, write `summary.json`.

Two kinds of measure: ratios of speed, all through one server of the same models; and those that start servers of their
own, what grows, attacks, and long series of what the tests try briefly (kills, faults, hostile clients, bytes).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import attacker_kills, attacks, faults, fuzz, growth, hostile, ledger, payload, response_defence, speed
from benchmarks.common import BATCH, IN_FLIGHT, THREADS, Rig, served
from benchmarks.peers import measure as peers
from oracle_server.operator import OperatorError, admin_socket
from referee.atomic import write_atomically
from referee.report.summary import Figure, read, write

_RATIOS = {
    "speed": speed.measure,
    "ledger": ledger.measure,
    "payload": payload.measure,
    "peers": peers.measure,
    "response_defence": response_defence.measure,
}
# A measure of its own rig, and how long its series are in a quick run.
_SERIES: dict[str, tuple[Callable[..., list[Figure]], dict[str, Any]]] = {
    "faults": (faults.measure, {"kills": 2, "lines": 1000, "restarts": 1, "examples": 10}),
    "attacker_kills": (attacker_kills.measure, {"kills": 1, "methods": ("random_draws",)}),
    "hostile": (hostile.measure, {"part": 0.02}),
    "fuzz": (fuzz.measure, {"inputs": 300}),
    "attacks": (attacks.measure, {"methods": ("mi_face", "numeric", "map_inversion")}),
    "growth": (growth.measure, {"connections": 4, "keys": 50, "lines": 2000, "seconds": 0.5}),
}
_LONGEST = Path("growth", "together")  # the longest path of a server's root in WORK


@click.command(epilog="Example: python -m benchmarks --only ledger")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
@click.option("--work", default=Path("runs/bench"), type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--only", multiple=True, type=click.Choice([*_RATIOS, *_SERIES]), help="May be repeated; all when left out."
)
@click.option("--rounds", default=11, show_default=True, type=click.IntRange(1), help="Pairs of readings of a ratio.")
@click.option("--seconds", default=1.0, show_default=True, type=click.FloatRange(0.01), help="Of one reading.")
@click.option("--quick", is_flag=True, help="Small images, short series: whether everything runs.")
def main(out: Path, work: Path, only: tuple[str, ...], rounds: int, seconds: float, quick: bool) -> None:
    """Measure speed as ratios, each of two things measured alternately in this run, and what the promises of
    SECURITY.md are worth in long series of kills, faults, hostile loads and bytes.

    OUT gets summary.json, in which --only leaves all other figures as they are; WORK is made anew, on the disk whose
    ledger is to be measured, and taken away.
    """
    torch.set_num_threads(THREADS)
    work = work.absolute()  # servers run elsewhere
    try:
        admin_socket(work / _LONGEST)
    except OperatorError:
        raise click.UsageError(f"--work {work} is too long for the sockets in it: choose a shorter one") from None
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    rig = Rig(work, rounds, seconds, quick)
    chosen = only or (*_RATIOS, *_SERIES)
    started, figures, whole = time.monotonic(), [], False
    try:
        if ratios := [_RATIOS[name] for name in chosen if name in _RATIOS]:
            with served(rig.models()) as server:
                for measure in ratios:
                    figures += measure(server, rig)
        for name in chosen:
            if name in _SERIES:
                series, short = _SERIES[name]
                figures += series(rig, **(short if quick else {}))
        whole = not only
    finally:
        shutil.rmtree(work)
        _write(figures, out / "summary.json", whole)
    Console(width=max(130, Console().width)).print(_table(figures, time.monotonic() - started))


def _write(figures: list[Figure], path: Path, whole: bool) -> None:
    """Write `summary.json`; unless these are all of its figures, the others that it has stay."""
    before = read(path) if path.exists() and not whole else {}
    write(figures, path)
    if before:
        entries = list((before | read(path)).values())
        write_atomically(path, (json.dumps({"figures": entries}, indent=2) + "\n").encode())


def _table(figures: list[Figure], seconds: float) -> Table:
    load = " ".join(f"{n:.1f}" for n in os.getloadavg())
    table = Table(
        caption=f"value: median of A / B over rounds measured A B A B ..., with an interval; {seconds:.0f} s on"
        f" {os.cpu_count()} cores, load {load}; {THREADS} torch thread for the server and one for the model in process;"
        f" {IN_FLIGHT} requests of {BATCH} rows in flight"
    )
    for title in ("figure", "value", "95 %", "bound", "A", "B", "unit"):
        table.add_column(title, justify="left" if title in ("figure", "unit") else "right", no_wrap=True)
    for figure in figures:
        readings = [figure.extra.get(name) for name in ("first", "second")]
        bound = "" if figure.bound is None else f"{figure.bound} {'kept' if figure.passed else 'MISSED'}"
        table.add_row(
            figure.name, f"{figure.value:,.3f}".removesuffix(".000"),
            "" if figure.low is None else f"{figure.low:.3f} to {figure.high:.3f}", bound,
            *("" if n is None else f"{n:,.0f}" if n > 100 else f"{n:.4f}" for n in readings),
            figure.extra.get("readings_unit", figure.unit),
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main()
