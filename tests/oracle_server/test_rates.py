"""Rows a second: the bound of the docstring, on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle_server.errors import Reason, Refusal
from oracle_server.ledger import Key
from oracle_server.rates import Rates
from oracle_server.threat_model import Access, Contract


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Unlimited(Rates):
    """Negative control: admits everything."""

    def take(self, key: Key, rows: int) -> None:
        pass


class Forgetful(Rates):
    """Negative control: a large batch empties the bucket and leaves no debt."""

    def take(self, key: Key, rows: int) -> None:
        super().take(key, min(rows, 1))


def limited(rate: float | None, key_id: str = "k") -> Key:
    return Key(key_id, "", "m/1", Contract(Access.SCORES, rate=rate), b"", 0.0)


def refused(rates: Rates, key: Key, rows: int) -> Refusal | None:
    try:
        rates.take(key, rows)
    except Refusal as refusal:
        return refusal
    return None


def check_rate(kind: Callable[[Clock], Rates], rate: float, calls: list[tuple[float, int]]) -> None:
    """From any moment on, over any time t: at most rate * (t + 1) rows and one batch; and who waits is admitted."""
    clock, key = Clock(), limited(rate)
    rates = kind(clock)
    admitted: list[tuple[float, int]] = []
    for pause, rows in calls:
        clock.now += pause
        refusal = refused(rates, key, rows)
        if refusal is not None:
            assert refusal.reason is Reason.SLOW_DOWN
            assert refusal.retry_after is not None
            assert 0 < refusal.retry_after <= max(n for _, n in calls) / rate + 0.01
            clock.now += refusal.retry_after
            assert refused(rates, key, rows) is None, "after the wait that it was told"
        admitted.append((clock.now, rows))
    largest = max(rows for _, rows in calls)
    for i, (start, _) in enumerate(admitted):
        for j in range(i, len(admitted)):
            end = admitted[j][0]
            total = sum(rows for _, rows in admitted[i : j + 1])
            assert total <= rate * (end - start + 1) + largest + 1e-6


CALLS = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 50)), min_size=1, max_size=30)


@given(st.floats(0.1, 100), CALLS)
def test_a_key_gets_its_rate_and_one_batch(rate: float, calls: list[tuple[float, int]]) -> None:
    check_rate(Rates, rate, calls)


@pytest.mark.parametrize("broken", [Unlimited, Forgetful])
def test_a_broken_rate_is_caught(broken: type[Rates]) -> None:
    with pytest.raises(AssertionError):
        check_rate(broken, 10.0, [(0.0, 20)] * 10)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_sentence_says_how_long_to_wait(clock: Clock) -> None:
    rates = Rates(clock)
    assert refused(rates, limited(10.0), 25) is None, "a batch larger than a second's worth passes once"
    refusal = refused(rates, limited(10.0), 1)
    assert refusal is not None
    assert refusal.sentence == "this key may ask for 10 rows a second: wait 1.501 s"
    assert refusal.retry_after == pytest.approx(1.501)
    assert refusal.charged == 0
    clock.now += 1.4
    assert refused(rates, limited(10.0), 1) is not None, "a refused call costs no rows, and brings none"
    clock.now += 0.11
    assert refused(rates, limited(10.0), 1) is None


def test_a_long_rest_saves_up_one_second_and_no_more(clock: Clock) -> None:
    rates = Rates(clock)
    assert refused(rates, limited(5.0), 1) is None
    clock.now += 1e6
    passed = sum(refused(rates, limited(5.0), 1) is None for _ in range(50))
    assert passed == 5


def test_keys_do_not_share_a_bucket_and_no_rate_is_no_limit(clock: Clock) -> None:
    rates = Rates(clock)
    assert refused(rates, limited(1.0, "a"), 100) is None
    assert refused(rates, limited(1.0, "a"), 1) is not None
    assert refused(rates, limited(1.0, "b"), 1) is None
    assert all(refused(rates, limited(None, "c"), 10**6) is None for _ in range(100))
