"""Capacity counts the answers that a contract allows: exactly where they can be listed, from above elsewhere."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from defenses.response import defend
from oracle_server.capacity import bits_per_row, capacity_bits, lattice_points
from oracle_server.models.card import Card
from oracle_server.threat_model import Access, Contract, Released, release

ROUNDINGS = (1.0, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001, 1e-6, 1e-15, None)  # each a multiple of the next
CARD = Card("m", "1", (1, 8, 6), 0.0, 1.0, 5, 245, 2_000, "00" * 32, "2.14.1")


def listed(k: int, r: Fraction, partial: bool) -> int:
    """Points whose cells meet the simplex, one by one: sums of intervals in exact arithmetic."""
    half, points = Fraction(1, 2), range(math.ceil(1 / r) + k + 1)
    least = [max(Fraction(0), n - half) * r for n in points]
    most = [(n + half) * r for n in points]
    return sum(
        sum(least[i] for i in n) <= 1 and (partial or sum(most[i] for i in n) >= 1)
        for n in itertools.product(points, repeat=k)
    )


def rounded_samples(k: int, r: float, steps: int, partial: bool) -> int:
    """How many different points a dense sample of the simplex is rounded to."""
    axes = np.meshgrid(*[np.arange(steps + 1)] * (k if partial else k - 1), indexing="ij")
    free = np.stack([axis.ravel() for axis in axes], axis=1)
    free = free[free.sum(axis=1) <= steps]
    whole = free if partial else np.column_stack([free, steps - free.sum(axis=1)])
    return len(np.unique(np.rint(whole / steps / r).astype(np.int64), axis=0))


def check_against_the_list(count: Callable[..., int]) -> None:
    """`count` is the number of listed points, for every small case."""
    roundings = [Fraction(1, n) for n in (1, 2, 3, 4, 5, 10)] + [Fraction(2, 5), Fraction(7, 10), Fraction(3, 10)]
    for k, r, partial in itertools.product((1, 2, 3), roundings, (False, True)):
        assert count(k, float(r), partial=partial) == listed(k, r, partial), (k, r, partial)


def test_lattice_points_are_those_that_can_be_listed() -> None:
    check_against_the_list(lattice_points)
    for partial in (False, True):
        assert lattice_points(4, 1 / 3, partial=partial) == listed(4, Fraction(1, 3), partial)


@pytest.mark.parametrize(
    "broken",
    [
        lambda k, r, partial: math.comb(round(1 / r) + k - 1, k - 1),  # only sums of exactly one
        lambda k, r, partial: lattice_points(k, r),
        lambda k, r, partial: lattice_points(k, r, partial=partial) + (k > 1),
    ],
)
def test_a_broken_count_is_caught(broken: Callable[..., int]) -> None:
    with pytest.raises(AssertionError):
        check_against_the_list(broken)


@pytest.mark.parametrize("r", [0.3, 0.7, 0.15, 0.09])
@pytest.mark.parametrize("partial", [False, True])
def test_lattice_points_are_those_that_samples_reach(r: float, partial: bool) -> None:
    """No two cell borders add up to one with these, so that a dense sample meets every point."""
    assert rounded_samples(2, r, 700, partial) == lattice_points(2, r, partial=partial)
    if not partial:
        assert rounded_samples(3, r, 700, partial) == lattice_points(3, r)


@pytest.mark.parametrize("r", [0.5, 0.25, 0.1, 0.05])
def test_lattice_points_are_no_fewer_than_samples_reach(r: float) -> None:
    for k, partial in itertools.product((2, 3), (False, True)):
        reached = rounded_samples(k, r, {2: 700, 3: 70}[k], partial)
        assert reached <= lattice_points(k, r, partial=partial) <= 3 * reached


def test_bits_of_a_row() -> None:
    for classes in (2, 5, 40, 1000):
        assert bits_per_row(Access.LABEL, None, None, classes) == math.log2(classes)
        assert bits_per_row(Access.SCORES, None, None, classes) == 32 * classes
        assert bits_per_row(Access.WEIGHTS, None, None, classes) == 32 * classes
    assert bits_per_row(Access.SCORES, 1, None, 40) == pytest.approx(64 + math.log2(40))
    assert bits_per_row(Access.SCORES, 1, 0.1, 40) == pytest.approx(math.log2(40 * 11))  # 0, 0.1, ... 1
    assert bits_per_row(Access.SCORES, 99, 0.1, 3) == bits_per_row(Access.SCORES, None, 0.1, 3)
    assert bits_per_row(Access.SCORES, None, 1e-15, 200) == 6_400  # counts of thousands of bits do not overflow


@pytest.mark.parametrize("classes", [2, 3, 5, 10, 40])
def test_bits_rise_with_k_and_with_precision(classes: int) -> None:
    table = np.array([[bits_per_row(Access.SCORES, k, r, classes) for r in ROUNDINGS] for k in range(1, classes + 1)])
    assert (np.diff(table, axis=0) >= -1e-9).all(), "more scores"
    assert (np.diff(table, axis=1) >= -1e-9).all(), "finer scores"
    assert (table <= 32 * classes).all()
    assert (table >= math.log2(classes) - 1e-9).all(), "the label follows from any of them, but for ties"


def answers(released: Released) -> list[tuple[bytes, ...]]:
    """One hashable answer a row."""
    parts = [value for value in vars(released).values() if value is not None]
    return [tuple(np.ascontiguousarray(part[i]).tobytes() for part in parts) for i in range(len(parts[0]))]


def entropy(contract: Contract, classes: int, rows: int = 20_000) -> float:
    """Bits in the answers to rows of very different sharpness, as observed."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1, (rows, classes)) * rng.choice([0.1, 0.5, 1, 2, 4, 20], (rows, 1))
    released = release(logits, contract, defend(contract.defences, (b"s",)))
    share = np.array(list(Counter(answers(released)).values())) / rows
    return float(-(share * np.log2(share)).sum())


OBSERVED = [
    Contract(Access.LABEL),
    Contract(Access.SCORES, round_to=0.5),
    Contract(Access.SCORES, round_to=1.0),
    Contract(Access.SCORES, top_k=1, round_to=0.25),
    Contract(Access.SCORES, top_k=2, round_to=0.25),
    Contract(Access.SCORES, top_k=1, round_to=0.01),
    Contract(Access.SCORES, round_to=0.2, defences=(("gaussian_noise", (("sigma", 0.5),)),)),
]


@pytest.mark.parametrize("contract", OBSERVED)
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_observed_answers_hold_no_more_than_the_capacity(contract: Contract, classes: int) -> None:
    bits = bits_per_row(contract.access, contract.top_k, contract.round_to, classes)
    observed = entropy(contract, classes)
    assert 0.3 * bits < observed <= bits, "and the bound is of the right size"


def test_a_capacity_for_another_contract_is_caught() -> None:
    assert entropy(Contract(Access.SCORES, round_to=0.1), 3) > bits_per_row(Access.LABEL, None, None, 3)
    assert entropy(Contract(Access.SCORES, round_to=0.05), 3) > bits_per_row(Access.SCORES, None, 0.25, 3)


def test_capacity_adds_the_card_and_stops_at_the_model() -> None:
    card_bits, model_bits = 8 * CARD.message().ByteSize(), 8 * CARD.archive_bytes
    label = Contract(Access.LABEL)
    assert capacity_bits(label, CARD, 0) == card_bits
    assert capacity_bits(label, CARD, 10) == pytest.approx(card_bits + 10 * math.log2(5))
    assert capacity_bits(label, CARD, 10**9) == card_bits + model_bits
    assert capacity_bits(Contract(Access.WEIGHTS), CARD, 0, downloads=3) == card_bits + model_bits
    larger = replace(CARD, archive_bytes=10**9)
    assert capacity_bits(label, larger, 10**6) == pytest.approx(card_bits + 10**6 * math.log2(5), abs=64)
