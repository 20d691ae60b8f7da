"""What the wire costs an attack, and what it saves to attack all targets together.

Each method runs through a server process with the attacker's own client, its journal and, where the contract gives the
weights, a download; and in this process on the same model, by the same code, with the same arithmetic on what is
released. A run is short: enough steps for the time of one to be a matter of the steps, and no more.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from attacker.oracle import BudgetSpent
from benchmarks.attacks_place import Place
from benchmarks.common import THREADS, Rig
from benchmarks.readings import Reading, paired
from referee.report.summary import Figure
from tests.attacker.kills import CASES

__all__ = ["ATTACKS", "measure"]

_ROUNDS, _FEW_ROUNDS = 9, 5  # of the figures that have a bound, and of the others
_BOUND = 1.3


@dataclass(frozen=True)
class _Run:
    """Settings of a run that takes less than a second, how many targets it has, and the rows after which it is over; on
    a model of `Place`. The access that its key has and the files that it is handed are those of the tests' `CASES`.
    """

    settings: str
    targets: int = 4
    model: str = "cnn"
    budget: int | None = None


_SURE = "confidence=1.1"  # which nobody is: no run ends early
ATTACKS = {
    "mi_face": _Run(f"max_steps=30 patience=31 {_SURE}"),
    "mi_face_code": _Run(f"max_steps=40 patience=41 {_SURE} process_every=8", model="coded"),
    "numeric": _Run(f"max_steps=1 {_SURE}", budget=513),
    "estimated_gradient": _Run(f"rows=80 directions=20 {_SURE}"),
    "deblur": _Run("max_steps=2 sigma=1.0"),
    "yoshimura": _Run("rows=70 perturbations=16 sizes=2 confidence=1.0"),
    "yoshimura_white": _Run("rows=40 confidence=1.0"),
    "brep_mi": _Run("rows=120 radius=0.5 points=16"),
    "gmi": _Run("steps=20 starts=1"),
    "ked_mi": _Run("latent=4 width=4 training_steps=4 batch_size=8 steps=4 samples=4 batch=2"),
    "vmi": _Run("steps=4 batch=4 samples=10"),
    "latent_gradient": _Run("steps=20 starts=1"),
    "inversion_network": _Run("epochs=1 batch_size=16 width=4 hidden=16 held_out=0.2 rows=400"),
    "equation_solving": _Run("rounds=1 together=4", model="softmax"),
    "random_draws": _Run("draws=400"),
    "adversarial": _Run("steps=10 starts=4"),
    "map_inversion": _Run("unknown=a", 50, "tree"),
    "white_box_counts": _Run("unknown=a", 50, "tree"),
    "random_guess": _Run("unknown=a", 50, "tree"),
    "marginal_mode": _Run("unknown=a", 50, "tree"),
    "ideal_model": _Run("", 50, "tree"),
}
if set(ATTACKS) != set(CASES):
    raise RuntimeError(f"these methods have no run here, or no case: {set(ATTACKS) ^ set(CASES)}")


def measure(rig: Rig, methods: Collection[str] = tuple(ATTACKS)) -> list[Figure]:
    """Of each method: seconds of a run through the wire over in process, and of all targets in one run over one after
    another.
    """
    with ExitStack() as stack:
        place = Place(rig, stack)
        return [figure for name in methods for figure in _measure(place, name, min(rig.rounds, _ROUNDS))]


def _measure(place: Place, name: str, rounds: int) -> list[Figure]:
    run = ATTACKS[name]
    method, targets = place.method(name, run.settings), list(range(run.targets))
    wire, direct = (
        _timed(functools.partial(make, name, run.model, run.budget), method, [targets])
        for make in (place.wire, place.direct)
    )
    loaded = functools.partial(place.loaded, name, run.model)
    together, alone = (_timed(loaded, method, runs) for runs in ([targets], [[target] for target in targets]))
    told = {"model": run.model, "targets": run.targets, "threads": THREADS}
    over = paired(f"bench/attacks/{name}/wire_over_in_process", wire, direct, rounds, "s/run")
    figures = [replace(over, at_most=_BOUND if run.model == "cnn" else None, extra=over.extra | told)]
    if run.budget is None:
        over = paired(
            f"bench/attacks/{name}/together_over_one_by_one", together, alone, min(rounds, _FEW_ROUNDS), "s/run"
        )
        figures.append(replace(over, extra=over.extra | told))
    return figures


def _timed(make: Callable[[], Any], method: Any, runs: list[list[int]]) -> Reading:
    """Seconds of runs for these targets, one after another, with a fresh oracle that was begun before."""

    def reading() -> float:
        with contextlib.closing(make()) as oracle:
            begun = time.perf_counter()
            for targets in runs:
                with contextlib.suppress(BudgetSpent):
                    for _ in method.run(oracle, targets, seed=0):
                        pass
            return time.perf_counter() - begun

    return reading
