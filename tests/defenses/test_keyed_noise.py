"""Keyed noise: the input decides it, together with what only the server knows; nothing else does."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from defenses.response import Draws, defend

KEYED = (("keyed_noise", (("sigma", 0.05),)),)
ALIKE = (b"secret", b"model")
ROWS = np.random.default_rng(0).random((6, 1, 4, 3), dtype=np.float32)
SCORES = np.random.default_rng(1).dirichlet(np.full(5, 2.0), 6)

Defend = Callable[..., Callable[[np.ndarray], np.ndarray]]


def request(n: int) -> tuple[bytes, ...]:
    return b"secret", b"key %d" % n, b"id %d" % n


def check_keyed(defend: Defend, chain: Any = KEYED) -> None:
    """One answer to one input, under any request, in any company and at any place; another to anything else."""
    answer = defend(chain, request(0), ALIKE, ROWS)(SCORES)
    assert np.array_equal(answer, defend(chain, request(1), ALIKE, ROWS)(SCORES)), "another key and id"
    back = np.arange(6)[::-1]
    assert np.array_equal(answer[back], defend(chain, request(2), ALIKE, ROWS[back])(SCORES[back])), "another place"
    for i in range(6):
        alone = defend(chain, request(i), ALIKE, ROWS[i : i + 1])(SCORES[i : i + 1])
        assert np.array_equal(answer[i : i + 1], alone), "alone"
    zeros = np.zeros_like(ROWS)
    assert np.array_equal(
        defend(chain, request(0), ALIKE, zeros)(SCORES), defend(chain, request(0), ALIKE, -zeros)(SCORES)
    ), "another sign of zero"

    pixel = ROWS.copy()
    pixel[:, 0, 1, 1] = np.nextafter(pixel[:, 0, 1, 1], np.float32(2))
    flat, double = ROWS.reshape(6, 12), ROWS.astype(np.float64)
    others = [
        defend(chain, request(0), seed, rows)(SCORES)
        for seed, rows in (
            ((b"secret'", b"model"), ROWS), ((b"secret", b"model'"), ROWS), ((b"secretm", b"odel"), ROWS),
            (ALIKE, pixel), (ALIKE, flat), (ALIKE, double), (ALIKE, ROWS[back]),
        )
    ]  # fmt: skip
    one = np.tile(SCORES[:1], (6, 1))
    answers = [answer, *others, *defend(chain, request(0), ALIKE, ROWS)(one)[1:, None]]
    for i, first in enumerate(answers):
        for second in answers[:i]:
            if first.shape == second.shape:
                assert not np.isclose(first, second, rtol=1e-9).all(axis=1).any(), "a draw came twice"


@pytest.mark.parametrize("chain", [KEYED, (("keyed_noise", (("keep", 1.0), ("sigma", 0.05))),), KEYED + KEYED])
def test_the_input_decides_the_noise(chain: Any) -> None:
    check_keyed(defend, chain)


def _broken(change: Callable[..., tuple[Any, ...]]) -> Defend:
    return lambda chain, seed, alike, rows: defend(chain, *change(seed, alike, rows))


BROKEN: dict[str, Defend] = {
    "a draw for each request": _broken(lambda seed, alike, rows: (seed, alike + seed, rows)),
    "a draw for each batch": _broken(lambda seed, alike, rows: (seed, (*alike, rows.tobytes()), rows)),
    "no secret": _broken(lambda seed, alike, rows: (seed, alike[1:], rows)),
    "one for all models": _broken(lambda seed, alike, rows: (seed, alike[:1], rows)),
    "parts run together": _broken(lambda seed, alike, rows: (seed, (b"".join(alike),), rows)),
    "one for all inputs": _broken(lambda seed, alike, rows: (seed, alike, np.ones_like(rows))),
    "blind to one pixel's last bit": _broken(lambda seed, alike, rows: (seed, alike, rows.round(3))),
    "signs of zero": _broken(lambda seed, alike, rows: (seed, alike, np.signbit(rows) + rows)),
    "fresh noise": lambda chain, seed, alike, rows: defend((("gaussian_noise", (("sigma", 0.05),)),), seed),
    "no noise": lambda chain, seed, alike, rows: lambda scores: scores,
}


@pytest.mark.parametrize("name", BROKEN)
def test_noise_that_something_else_decides_is_caught(name: str) -> None:
    with pytest.raises(AssertionError):
        check_keyed(BROKEN[name])


def test_asking_again_averages_fresh_noise_away_and_keyed_noise_not() -> None:
    """What it is for: after 400 requests the error of the mean is a twentieth of sigma, or still sigma."""
    level, rows = np.full((50, 4), 0.25), np.random.default_rng(0).random((50, 3))
    left = {}
    for name in ("gaussian_noise", "keyed_noise"):
        answers = [defend(((name, (("sigma", 0.01),)),), request(n), ALIKE, rows)(level) for n in range(400)]
        left[name] = abs(np.mean(answers, axis=0) - level).mean() / abs(answers[0] - level).mean()
    assert left["gaussian_noise"] == pytest.approx(1 / 20, rel=0.3)
    assert left["keyed_noise"] == pytest.approx(1)


def test_two_contracts_or_models_never_share_noise_on_different_scores() -> None:
    """A difference of two answers would be free of it."""
    chains = [
        KEYED,
        (("keyed_noise", (("sigma", 0.02),)),),
        (("keyed_noise", (("sigma", 0.05), ("keep", 1.0))),),
        (("temperature", (("temperature", 1.5),)), *KEYED),
        (("temperature", (("temperature", 1.0),)), *KEYED),
    ]
    level, rows = np.full((200, 4), 0.25), np.random.default_rng(0).random((200, 3))
    noises = [defend(chain, request(0), ALIKE, rows)(level) - level for chain in chains]
    noises.append(defend(KEYED, request(0), (b"secret", b"other"), rows)(level) - level)
    noises.append(defend((*KEYED, *KEYED), request(0), ALIKE, rows)(level) - noises[0] - level)
    related = np.corrcoef([noise.ravel() for noise in noises])
    assert (abs(related - np.eye(len(noises))) < 0.2).all()
    after = defend((*KEYED, ("temperature", (("temperature", 1.0),))), request(0), ALIKE, rows)(level) - level
    np.testing.assert_allclose(after, noises[0], atol=1e-12)  # what follows the noise sees no more than its answer


def check_normal(numbers: np.ndarray) -> None:
    """Five standard errors around the moments of independent N(0, 1); numbers (N, C)."""
    n, classes = numbers.shape
    bound = 5 / n**0.5
    assert abs(numbers.mean(axis=0)).max() < bound
    assert abs(numbers.var(axis=0) - 1).max() < 2**0.5 * bound
    assert abs((numbers**3).mean(axis=0)).max() < 15**0.5 * bound
    assert abs((numbers**4).mean(axis=0) - 3).max() < 96**0.5 * bound
    assert abs(np.corrcoef(numbers.T) - np.eye(classes)).max() < bound
    assert abs(np.corrcoef((numbers**2).T) - np.eye(classes)).max() < 1.5 * bound
    assert abs((numbers[1:] * numbers[:-1]).mean(axis=0)).max() < bound


@pytest.mark.parametrize("classes", [2, 5, 8])
def test_the_numbers_are_standard_normal(classes: int) -> None:
    n = 20_000
    inputs = np.arange(n, dtype=np.float32)[:, None] / n  # neighbours, as an attacker's are
    numbers = Draws((), ALIKE, inputs).keyed((n, classes))
    check_normal(numbers)
    for spoiled in (numbers * 1.05, numbers + 0.05, np.sign(numbers), abs(numbers), np.sort(numbers, axis=0)):
        with pytest.raises(AssertionError):
            check_normal(spoiled)


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(st.sampled_from([np.dtype(t) for t in ("<f4", "<f8", "u1", "<i8")]), st.just((3, 2)), unique=True),
    st.integers(1, 9),
)
def test_any_numeric_rows_have_finite_numbers_of_their_own(inputs: np.ndarray, classes: int) -> None:
    with np.errstate(all="ignore"):
        numbers = Draws((), ALIKE, inputs).keyed((3, classes))
    assert numbers.shape == (3, classes)
    assert np.isfinite(numbers).all()
    assert np.array_equal(numbers[1:2], Draws((), ALIKE, inputs[1:2]).keyed((1, classes)))
    assert len(np.unique(numbers[:, 0])) == len(np.unique(inputs + 0, axis=0))


@pytest.mark.parametrize("given", [(), ((), ROWS), (ALIKE,), (ALIKE, None), (ALIKE, ROWS[:5])])
def test_without_what_it_needs_nothing_is_answered(given: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape("keyed noise needs the server's seed and the input row")):
        defend(KEYED, request(0), *given)(SCORES)
