"""How much of a model's own speed is left behind the server.

In process means: the form of the model that the server chose, called with a tensor that lies ready, and nothing else.
Eager means: what its maker would have without a server, the model in eager torch and in torch's own memory layout; how
it does against the archive as `archive.load` gives it, eager too but laid out for convolutions, stands
beside it.
"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median

from benchmarks.callers import Callers
from benchmarks.common import BATCH, IN_FLIGHT, THREADS, Rig, Served
from benchmarks.in_process import AS_TORCH_HAS_IT, InProcess
from benchmarks.readings import added, alternated, over
from benchmarks.worker import Run
from oracle_server.models.forms import Form
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
    with InProcess() as beside:
        return [figure for model in rig.shapes for figure in _measure(server, beside, rig, model)]


def _measure(server: Served, beside: InProcess, rig: Rig, model: str) -> list[Figure]:
    bounds, (form, batch) = _BOUNDS[model], server.form(model)
    shape, path, seconds = rig.shapes[model], server.archive(model), rig.seconds

    def same(rows: int) -> Run:
        return beside.run(path, form, rows, shape, seconds)

    def eager(rows: int, form: str = AS_TORCH_HAS_IT) -> Run:
        return beside.run(path, form, rows, shape, seconds)

    with ExitStack() as stack:
        many, crowd, one = (
            stack.enter_context(Callers(server.load(model, shape, callers, rows)))
            for callers, rows in ((IN_FLIGHT, BATCH), (_CALLERS, 1), (1, 1))
        )
        large = alternated((lambda: many.run(seconds), lambda: same(BATCH)), rig.rounds)
        small = alternated(
            (
                lambda: crowd.run(seconds),
                lambda: same(_CALLERS),
                lambda: eager(_CALLERS),
                lambda: eager(BATCH),
                lambda: eager(_CALLERS, Form.EAGER),
            ),
            rig.rounds,
        )
        alone = alternated((lambda: one.run(seconds), lambda: same(1)), rig.rounds)
    at_64, as_loaded = (median(runs[0].rows_a_second / runs[place].rows_a_second for runs in small) for place in (3, 4))
    told = {"threads": THREADS, "form": form, "rows_in_a_pass": batch}
    return [
        over(f"bench/{model}/{_BATCH64}", large, bounds.get(_BATCH64), callers=IN_FLIGHT, **told),
        over(f"bench/{model}/{_CALLERS32}", [runs[:2] for runs in small], bounds.get(_CALLERS32), **told),
        over(
            f"bench/{model}/{_EAGER}",
            [runs[:3:2] for runs in small],
            bounds.get(_EAGER),
            over_eager_64=at_64,
            over_archive_as_loaded=as_loaded,
            **told,
        ),
        over(f"bench/{model}/{_ONE}", alone, bounds.get(_ONE), **told),
        added(f"bench/{model}/one_caller_added_median_ms", alone, **told),
    ]
