"""Whether attackers that are killed at random moments end as if nobody had disturbed them, for every method."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Collection

import torch

from benchmarks.common import THREADS, Rig
from referee.report.summary import Figure
from tests.attacker.kills import CASES, Range, kill_series
from tests.hosted import host_models
from tests.serving import Forker

__all__ = ["measure"]


def measure(rig: Rig, kills: int = 30, methods: Collection[str] = tuple(CASES)) -> list[Figure]:
    """SIGKILL `kills` times for each method: kills that found a process running, and what differed afterwards from a
    run that nobody disturbed (files, what run.json says but for the time, rows counted and rows charged).
    """
    torch.set_num_threads(THREADS)
    host_models(rig.folder / "warm", "linear")  # what the forker imports with
    found, unequal = [], 0
    with (
        contextlib.closing(Forker(rig.folder / "warm" / "models" / "linear" / "1" / "model.pt2")) as forker,
        contextlib.closing(Range(forker, rig.folder / "killed")) as place,
    ):
        for method in methods:
            started = time.monotonic()
            outcome = kill_series(place, method, kills)
            moments = ", ".join(f"{count} by {kind}" for kind, count in sorted(outcome.at.items()))
            told = f"{method}: {outcome.kills} kills in {outcome.runs} runs ({moments})"
            print(f"{told}, {len(outcome.unequal)} unequal, {time.monotonic() - started:.0f} s", file=sys.stderr)
            for sentence in outcome.unequal:
                print(f"    {sentence}", file=sys.stderr)
            name = f"faults/attacker_kills/{method}"
            extra = {"runs": outcome.runs, "moments": dict(outcome.at)}
            found.append(Figure(name, outcome.kills, unit="kills", at_least=kills, extra=extra))
            found.append(Figure(f"{name}/unequal", len(outcome.unequal), unit="differences", at_most=0))
            unequal += len(outcome.unequal)
    return [*found, Figure("faults/attacker_kills/unequal", unequal, unit="differences", at_most=0)]
