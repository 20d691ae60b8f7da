"""The forms in which a network's forward pass can run, and the choice of the fastest that answers as eager does.

    eager          the module as `archive.load` gives it: the reference, and what is served when nothing else holds
    channels_last  its graph without the exporter's checks, weights and inputs in channels-last layout throughout
    frozen         the same, with all arithmetic that does not depend on the input done beforehand (`folding.py`)
    compiled       the frozen graph through torch.compile; it wants a C++ compiler and takes most of a minute, so that
                   it is tried only when it is asked for

A form is taken only if its logits are those of eager on random legal rows at every number of rows that it will run:
the sizes of a ladder, to which a pass is filled up. On the trial's rows they must be within half of `TOLERANCE`, which
leaves the other half to rows that are worse. A form that raises, or that differs, is left out and named in the log.

TorchScript, frozen and optimised, is no form: deprecated, a trace for each number of rows, and once the memory of one
pass is kept for the next (`oracle_server/memory.py`) no faster than the folded graph.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, fx

from oracle_server.models.folding import channels_last, fold, plain

__all__ = ["AUTO", "TOLERANCE", "Choice", "Form", "choose", "ladder"]

_LOG = logging.getLogger(__name__)

TOLERANCE = 1e-5  # logits of any form against those of eager
AUTO = "auto"
_TRIAL = 16  # rows of the passes that are timed to find the fastest form
_ROUNDS = 3  # of them for each form; the best counts, since noise only adds
_ROUNDS_SECONDS = 1.0  # no further round after so long
_PASS_SECONDS = 2e-4  # what the server adds to a pass of any size: the way to the thread and back
_FASTER = 0.97  # of eager's time, or of a larger batch's, is a gain; less may be noise

Pass = Callable[[Tensor], Tensor]


class Form(StrEnum):
    EAGER = "eager"
    CHANNELS_LAST = "channels_last"
    FROZEN = "frozen"
    COMPILED = "compiled"


@dataclass(frozen=True)
class Choice:
    """What the server runs.

    batch   rows in one pass at most
    sizes   numbers of rows that the form was checked at, ascending, the last is `batch`; none for eager, which may run
            any
    """

    form: Form
    run: Pass
    batch: int
    sizes: tuple[int, ...] = ()

    def padded(self, rows: int) -> int:
        """The number of rows to run for so many."""
        return next((size for size in self.sizes if size >= rows), rows)


def ladder(batch: int) -> tuple[int, ...]:
    """Numbers of rows up to `batch`, so close that a pass is filled up by less than an eighth."""
    sizes, size = [], 1
    while size < batch:
        sizes.append(size)
        size += max(1, size // 8)
    return (*sizes, batch)


def choose(
    eager: Pass,
    rows: Tensor,
    wanted: str = AUTO,
    build: Callable[[Form, Pass], Pass] | None = None,
    clock: Callable[[], float] | None = None,
) -> Choice:
    """The fastest form that answers as eager does, and the number of rows at which it is.

    Args:
        eager: the module of `archive.load`, on its device.
        rows: (batch, *shape) legal and random, on the device; as many as a pass may have.
        wanted: a form by its name, which is taken if it holds, however slow; or `auto`.
        build: makes a form of the module, and raises what it likes where it cannot.
        clock: seconds of work; the thread's own by default, so that neighbours on the machine do not decide.
    """
    trial = _Trial(eager, rows, build or make, clock or _clock(rows.device))
    with torch.inference_mode():
        return trial.chosen(wanted)


def make(form: Form, module: Pass) -> Pass:
    """The module's forward pass in a form; raises where there is none."""
    if form is Form.EAGER:
        return module
    graph = plain(module)
    if form is Form.CHANNELS_LAST:
        return _in_channels_last(channels_last(graph))
    run: Pass
    try:
        run = _in_channels_last(channels_last(fold(graph)))
    except ValueError:  # a graph that is bound to its layout
        run = fold(plain(module))
    if form is Form.FROZEN:
        return run
    compiled: Pass = torch.compile(run, dynamic=True)
    return compiled


def _in_channels_last(graph: fx.GraphModule) -> Pass:
    def run(rows: Tensor) -> Tensor:
        logits: Tensor = graph(rows.contiguous(memory_format=torch.channels_last) if rows.dim() == 4 else rows)
        return logits

    return run


def _clock(device: torch.device) -> Callable[[], float]:
    if device.type != "cuda":
        return time.thread_time

    def finished() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return finished


class _Trial:
    """Runs forms against eager on the same rows."""

    def __init__(
        self, eager: Pass, rows: Tensor, build: Callable[[Form, Pass], Pass], clock: Callable[[], float]
    ) -> None:
        self._eager, self._rows, self._build, self._clock = eager, rows, build, clock
        self._batch = len(rows)

    def chosen(self, wanted: str) -> Choice:
        candidates = [Form.CHANNELS_LAST, Form.FROZEN] if wanted == AUTO else [Form(wanted)]
        expected = self._eager(self._rows)
        few = min(_TRIAL, self._batch)
        passes: dict[Form, Pass] = {Form.EAGER: self._eager}
        for form in candidates:
            if form is not Form.EAGER and (run := self._made(form)) and self._agrees(form, run, expected, (few,)):
                passes[form] = run
        for form in self._fastest_first(passes, few, wanted):
            run = passes[form]
            batch = self._best_batch(run)
            if form is Form.EAGER:
                return Choice(form, run, batch)
            sizes = ladder(batch)
            if self._agrees(form, run, expected, sizes):
                return Choice(form, run, batch, sizes)
        raise AssertionError("eager is always left")

    def _made(self, form: Form) -> Pass | None:
        try:
            return self._build(form, self._eager)
        except Exception as error:  # whatever the tools of this form make of the module: eager is served
            _LOG.info("the %s form does not exist for this model (%s: %s)", form, type(error).__name__, _line(error))
            return None

    def _agrees(self, form: Form, run: Pass, expected: Tensor, sizes: Iterable[int]) -> bool:
        try:
            for size in sizes:
                logits = run(self._rows[:size])
                if logits.shape != expected[:size].shape:
                    _LOG.info("the %s form gives another shape for %d rows", form, size)
                    return False
                difference = (logits - expected[:size]).abs().max().item()
                if not difference <= TOLERANCE / 2:  # nor when it is no number
                    _LOG.info("the %s form is off by %.1g for %d rows", form, difference, size)
                    return False
        except Exception as error:
            _LOG.info("the %s form fails (%s: %s)", form, type(error).__name__, _line(error))
            return False
        return True

    def _fastest_first(self, passes: dict[Form, Pass], rows: int, wanted: str) -> list[Form]:
        """The forms that were made, a wanted one before all others; eager and what is no faster last."""
        if wanted != AUTO:
            return sorted(passes, key=lambda form: form != wanted)
        seconds = {form: float("inf") for form in passes}
        for _ in self._rounds():
            for form, run in passes.items():
                seconds[form] = min(seconds[form], self._timed(run, rows))
        seconds[Form.EAGER] *= _FASTER
        return sorted(passes, key=seconds.__getitem__)

    def _best_batch(self, run: Pass) -> int:
        """Rows of a pass at which a row costs least: the largest batch, or a power of two that is cheaper."""
        sizes = [self._batch, *(1 << power for power in range(4, self._batch.bit_length()) if 1 << power < self._batch)]
        if len(sizes) == 1:
            return self._batch
        costs = {size: float("inf") for size in sizes}
        for size in sizes:
            run(self._rows[:size])
        for _ in self._rounds():
            for size in sizes:
                costs[size] = min(costs[size], (self._timed(run, size) + _PASS_SECONDS) / size)
        best = min(costs, key=costs.__getitem__)
        return best if costs[best] < _FASTER * costs[self._batch] else self._batch

    def _rounds(self) -> Iterator[int]:
        start = self._clock()
        for number in range(_ROUNDS):
            yield number
            if self._clock() - start > _ROUNDS_SECONDS:
                return

    def _timed(self, run: Pass, rows: int) -> float:
        start = self._clock()
        run(self._rows[:rows])
        return self._clock() - start


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
