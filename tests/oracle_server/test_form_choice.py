"""The choice of a form: the fastest of those that answer as eager does, by a clock that the tests hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from oracle_server.models.forms import AUTO, TOLERANCE, Choice, Form, choose, ladder
from tests.networks import NETWORKS, loaded, rows


class Clock:
    """Time that passes as forward passes say: seconds of a form for so many rows."""

    def __init__(self, seconds: Callable[[Form, int], float]) -> None:
        self.now = 0.0
        self._seconds = seconds

    def __call__(self) -> float:
        return self.now

    def form(self, form: Form, run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def timed(images: Tensor) -> Tensor:
            self.now += self._seconds(form, len(images))
            return run(images)

        return timed


def double(images: Tensor) -> Tensor:
    return 2 * images.flatten(1)


def chosen(
    seconds: Callable[[Form, int], float],
    *,
    wanted: str = AUTO,
    batch: int = 40,
    **others: Callable[[Tensor], Tensor],
) -> Choice:
    """The choice among forms that take so long and answer as eager does, but for `others`."""
    clock = Clock(seconds)

    def build(form: Form, _: object) -> Callable[[Tensor], Tensor]:
        return clock.form(form, others.get(form, double))

    images = torch.from_numpy(rows(batch))
    return choose(clock.form(Form.EAGER, double), images, wanted, build, clock)


def seconds_a_row(**of: float) -> Callable[[Form, int], float]:
    return lambda form, count: of.get(form, 1.0) * count


def test_the_fastest_is_taken_and_eager_where_there_is_nothing_to_gain() -> None:
    assert chosen(seconds_a_row(frozen=0.5)).form is Form.FROZEN
    assert chosen(seconds_a_row(frozen=1.2)).form is Form.EAGER
    assert chosen(seconds_a_row(frozen=0.99)).form is Form.EAGER  # as much may be noise


def test_compiling_is_tried_only_when_it_is_asked_for() -> None:
    assert chosen(seconds_a_row(compiled=0.1)).form is Form.EAGER
    assert chosen(seconds_a_row(compiled=0.1), wanted="compiled").form is Form.COMPILED


def test_a_form_that_was_asked_for_is_taken_however_slow() -> None:
    assert chosen(seconds_a_row(frozen=9.0), wanted="frozen").form is Form.FROZEN
    assert chosen(seconds_a_row(frozen=0.1), wanted="eager").form is Form.EAGER


def off_by(amount: float, sizes: range = range(1000)) -> Callable[[Tensor], Tensor]:
    return lambda images: double(images) + amount * (len(images) in sizes)


def failing(images: Tensor) -> Tensor:
    raise RuntimeError(f"no kernel for {len(images)} rows")


WRONG = {
    "far": off_by(2 * TOLERANCE),
    "on one shape": off_by(2 * TOLERANCE, range(9, 10)),
    "on the largest": off_by(2 * TOLERANCE, range(40, 41)),
    "no number": off_by(float("nan")),
    "another shape": lambda images: double(images)[:, :3],
    "raises": failing,
}


@pytest.mark.parametrize("wanted", [AUTO, "frozen"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_form_that_does_not_answer_as_eager_does_is_not_taken(wrong: str, wanted: str) -> None:
    fast = seconds_a_row(frozen=0.1)
    assert chosen(fast, wanted=wanted).form is Form.FROZEN
    assert chosen(fast, wanted=wanted, frozen=off_by(TOLERANCE / 4)).form is Form.FROZEN
    assert chosen(fast, wanted=wanted, frozen=WRONG[wrong]).form is Form.EAGER


def test_the_next_form_is_tried_when_one_does_not_hold() -> None:
    assert chosen(seconds_a_row(frozen=0.1, channels_last=0.5), frozen=failing).form is Form.CHANNELS_LAST
    assert chosen(seconds_a_row(frozen=0.1, channels_last=1.5), frozen=failing).form is Form.EAGER


def test_without_a_compiler_eager_is_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "compile", lambda run, dynamic: failing)
    assert choose(loaded(tmp_path, NETWORKS["plain"]), torch.from_numpy(rows(3)), "compiled").form is Form.EAGER


def test_a_pass_has_the_rows_at_which_a_row_costs_least() -> None:
    def beyond(best: int) -> Callable[[Form, int], float]:
        """A fixed cost and one for each row, which rises beyond a number of rows, as when memory runs short."""
        return lambda form, count: 1.0 + 0.1 * count + 0.2 * max(0, count - best)

    assert [chosen(beyond(best), batch=100).batch for best in (16, 32, 64, 100)] == [16, 32, 64, 100]
    assert chosen(beyond(32), batch=100, wanted="frozen").sizes[-1] == 32
    assert chosen(beyond(8), batch=12).batch == 12  # too few to look for another


@pytest.mark.parametrize(("fixed", "grain"), [(0.01, 8), (1.0, 16), (4.0, 32), (10.0, 64)])
def test_the_grain_is_where_a_row_costs_hardly_more_than_in_the_best_batch(fixed: float, grain: int) -> None:
    choice = chosen(lambda form, count: fixed + count, batch=64)
    assert (choice.batch, choice.grain) == (64, grain)
    assert chosen(lambda form, count: fixed + count, batch=5).grain == 5


def test_the_ladder_reaches_the_batch_and_fills_up_by_less_than_an_eighth() -> None:
    for batch in range(1, 300):
        sizes = ladder(batch)
        assert sizes[-1] == batch
        assert all(a < b for a, b in itertools.pairwise(sizes))
        choice = Choice(Form.FROZEN, double, batch, batch, sizes)
        for count in range(1, batch + 1):
            padded = choice.padded(count)
            assert count <= padded < count * 9 / 8 or padded == count
            assert padded in sizes
