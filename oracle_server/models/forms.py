"""The forms in which a network's forward pass can run, and the choice of the fastest that answers as eager does.

    eager          the module as `archive.load` gives it: the reference, and what is served when nothing else holds
    channels_last  its graph without the exporter's checks, weights and inputs in channels-last layout throughout
    frozen         the same, with all arithmetic that does not depend on the input done beforehand (`folding.py`)
    compiled       the frozen graph through torch.compile; it wants a C++ compiler and takes most of a minute, so that
                   it is tried only when it is asked for

A form is taken only if its logits are those of eager on random legal rows at every number of rows that it will run:
the sizes of a ladder, to which a pass is filled up. On the trial's rows they must be within half of `TOLERANCE`, which
leaves the other half to rows that are worse. A form that raises, or that differs, is left out and named in the log.

TorchScript, frozen and optimised, is no form: deprecated, a trace for each number of rows, and no faster than the
folded graph. What makes 64 rows of a convolutional network dearer than twice 32 is memory: blocks beyond 32 MB are new
to the process at each pass, and each of their pages a fault; the choice of the batch finds that out by itself.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, fx

from oracle_server.models.folding import channels_last, fold, plain

__all__ = ["AUTO", "TOLERANCE", "Choice", "Form", "Pass", "choose", "ladder"]

_LOG = logging.getLogger(__name__)

TOLERANCE = 1e-5  # logits of any form against those of eager
AUTO = "auto"
_TRIAL = 16  # rows of the passes that are timed to find the fastest form
_ROUNDS = 4  # of them for each form; the best counts, since noise and a first pass only add
_ROUNDS_SECONDS = 0.3  # after so long there is no third or further round
_PASS_SECONDS = 2e-4  # what the server adds to a pass of any size: the way to the thread and back
_DEARER = 1.1  # than a row of the best batch, and still worth a smaller pass
_FASTER = 0.97  # of eager's time, or of a larger batch's, is a gain; less may be noise

Pass = Callable[[Tensor], Tensor]
Build = Callable[["Form", Pass], Pass]


class Form(StrEnum):
    EAGER = "eager"
    CHANNELS_LAST = "channels_last"
    FROZEN = "frozen"
    COMPILED = "compiled"


_TRIED = (Form.FROZEN, Form.CHANNELS_LAST)  # the second only where the first, which has less to do, does not hold


@dataclass(frozen=True)
class Choice:
    """What the server runs.

    batch   rows in one pass at most
    sizes   numbers of rows that the form was checked at, ascending, the last is `batch`; none for eager, which may run
            any
    grain   rows from which on a row costs hardly less in a larger pass
    reads_only  a pass was seen to leave its input as it is
    """

    form: Form
    run: Pass
    batch: int
    grain: int
    sizes: tuple[int, ...] = ()
    reads_only: bool = False

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
    build: Build | None = None,
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
    forward = graph.forward

    def run(rows: Tensor) -> Tensor:
        logits: Tensor = forward(rows.contiguous(memory_format=torch.channels_last) if rows.dim() == 4 else rows)
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

    def __init__(self, eager: Pass, rows: Tensor, build: Build, clock: Callable[[], float]) -> None:
        self._eager, self._rows, self._build, self._clock = eager, rows, build, clock
        self._batch = len(rows)
        self._few = min(_TRIAL, self._batch)

    def chosen(self, wanted: str) -> Choice:
        shown = self._rows.clone()
        expected = self._eager(shown)
        if not torch.equal(shown, self._rows):
            _LOG.info("the model writes to its input, and is served eager")
            return Choice(Form.EAGER, self._eager, self._batch, self._batch)
        for form in _TRIED if wanted == AUTO else (Form(wanted),):
            run = None if form is Form.EAGER else self._made(form)
            if run is None or not self._agrees(form, run, expected, [self._few]):
                continue
            if wanted == AUTO and not self._faster(form, run):
                break  # nor is one that has more to do
            batch, grain = self._best_batch(run)
            sizes = ladder(batch)
            if self._agrees(form, run, expected, sizes):
                return Choice(form, run, batch, grain, sizes, reads_only=True)
        return Choice(Form.EAGER, self._eager, *self._best_batch(self._eager), reads_only=True)

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

    def _faster(self, form: Form, run: Pass) -> bool:
        seconds = self._best_times([(self._eager, self._few), (run, self._few)])
        if seconds[1] < _FASTER * seconds[0]:
            return True
        _LOG.info("the %s form is no faster: %.3g ms for %d rows", form, seconds[1] * 1e3, self._few)
        return False

    def _best_batch(self, run: Pass) -> tuple[int, int]:
        """Rows of a pass at which a row costs least: the largest batch, or a power of two that is cheaper; and the
        smallest power of two, 8 at least, at which it costs hardly more.
        """
        sizes = [self._batch, *(1 << power for power in range(3, self._batch.bit_length()) if 1 << power < self._batch)]
        if len(sizes) == 1:
            return self._batch, self._batch
        seconds = self._best_times([(run, size) for size in sizes])
        costs = {size: (spent + _PASS_SECONDS) / size for size, spent in zip(sizes, seconds, strict=True)}
        best = min((size for size in sizes if size >= _TRIAL or size == self._batch), key=costs.__getitem__)
        best = best if costs[best] < _FASTER * costs[self._batch] else self._batch
        return best, min(size for size in sizes if size <= best and costs[size] <= _DEARER * costs[best])

    def _best_times(self, passes: list[tuple[Pass, int]]) -> list[float]:
        """Seconds of each pass of so many rows, in turn: the best of a few rounds."""
        best = [math.inf] * len(passes)
        spent = 0.0
        for done in range(1, _ROUNDS + 1):
            for number, (run, rows) in enumerate(passes):
                start = self._clock()
                run(self._rows[:rows])
                seconds = self._clock() - start
                best[number] = min(best[number], seconds)
                spent += seconds
            if done > 1 and spent > _ROUNDS_SECONDS:
                break
        return best


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
