"""How much of a model's own speed is left behind the server.

In process means: the form of the model that the server chose, called with a tensor that lies ready, and nothing else.
"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median

from benchmarks.callers import Callers
from benchmarks.common import BATCH, IN_FLIGHT, THREADS, Rig, Served
from benchmarks.readings import added, alternated, in_process, over
from protos import archive
from referee.report.summary import Figure

__all__ = ["measure"]

_CALLERS = 32
_BATCH64, _CALLERS32, _ONE = "batch64_over_in_process", "32_callers_over_in_process32", "one_caller_over_in_process"
_EAGER = "32_callers_over_eager"
_BOUNDS = {
    "softmax": {},
    "cnn": {_BATCH64: 0.95, _CALLERS32: 0.90, _ONE: 0.80, _EAGER: 1.9},
    "resnet18": {_BATCH64: 0.95, _CALLERS32: 0.85},
}


def measure(server: Served, rig: Rig) -> list[Figure]:
    """Requests of 64 rows, 32 callers with a row each, and one such caller, of each model."""
    return [figure for model in rig.shapes for figure in _measure(server, rig, model)]


def _measure(server: Served, rig: Rig, model: str) -> list[Figure]:
    bounds, form = _BOUNDS[model], archive.load(server.archive(model))
    told = {"threads": THREADS, "form": "eager"}
    with ExitStack() as stack:
        many, all_, one = (
            stack.enter_context(Callers(server.load(model, rig.shapes[model], callers, rows)))
            for callers, rows in ((IN_FLIGHT, BATCH), (_CALLERS, 1), (1, 1))
        )
        of = {rows: in_process(form, rig.noise(model, rows), rig.seconds) for rows in (BATCH, _CALLERS, 1)}
        eager = archive.load(server.archive(model))
        eager32, eager64 = (in_process(eager, rig.noise(model, rows), rig.seconds) for rows in (_CALLERS, BATCH))
        large = alternated((lambda: many.run(rig.seconds), of[BATCH]), rig.rounds)
        crowd = alternated((lambda: all_.run(rig.seconds), of[_CALLERS], eager32, eager64), rig.rounds)
        alone = alternated((lambda: one.run(rig.seconds), of[1]), rig.rounds)
    at_64 = median(here.rows_a_second / there.rows_a_second for here, _, _, there in crowd)
    return [
        over(f"bench/{model}/{_BATCH64}", large, bounds.get(_BATCH64), callers=IN_FLIGHT, **told),
        over(f"bench/{model}/{_CALLERS32}", [runs[:2] for runs in crowd], bounds.get(_CALLERS32), **told),
        over(f"bench/{model}/{_EAGER}", [runs[::2] for runs in crowd], bounds.get(_EAGER), over_eager_64=at_64, **told),
        over(f"bench/{model}/{_ONE}", alone, bounds.get(_ONE), **told),
        added(f"bench/{model}/one_caller_added_median_ms", alone, **told),
    ]
