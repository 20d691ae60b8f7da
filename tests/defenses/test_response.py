"""Response defences: what they do to scores, and law 6: asking again never gives a fresh draw."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defenses.response import (
    RESPONSES,
    Draws,
    GaussianNoise,
    KeyedNoise,
    ReverseSigmoid,
    Temperature,
    defend,
    make_response,
)

Chain = tuple[tuple[str, tuple[tuple[str, float], ...]], ...]
Defend = Callable[[Iterable, tuple[bytes, ...]], Callable[[np.ndarray], np.ndarray]]  # type: ignore[type-arg]

NOISE = ("gaussian_noise", (("sigma", 0.1),))
FLATTEN = ("temperature", (("temperature", 2.0),))
CHAINS: list[Chain] = [(NOISE,), (NOISE, NOISE), (FLATTEN, NOISE), (NOISE, FLATTEN, NOISE)]
SEED = (b"server secret", b"key", b"request id")


def scores(rows: int, classes: int = 4, seed: int = 0) -> np.ndarray:
    """Rows on the simplex (N, C)."""
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.5), rows)


def check_draws(defend: Defend, chain: Chain) -> None:
    """A draw belongs to (secret, key, id) and the row's place, and to nothing else."""
    one = scores(6)
    answer = defend(chain, SEED)(one)
    assert np.array_equal(answer, defend(chain, SEED)(one)), "asking again"
    applied = defend(chain, SEED)
    assert np.array_equal(applied(one), applied(one)), "using the defence again"
    for rows in range(1, 6):
        assert np.array_equal(defend(chain, SEED)(one[:rows]), answer[:rows]), "the rows that follow"
    changed = one.copy()
    changed[3:] = scores(3, seed=1)
    assert np.array_equal(defend(chain, SEED)(changed)[:3], answer[:3]), "what the other rows hold"
    others = [tuple(part + b"'" if i == place else part for i, part in enumerate(SEED)) for place in range(3)]
    others.append((b"server secre", b"tkey", b"request id"))  # the same bytes, cut elsewhere
    draws = [answer, *(defend(chain, other)(one) for other in others)]
    same_row = np.tile(one[:1], (6, 1))
    draws += list(defend(chain, SEED)(same_row)[:, None])
    for i, draw in enumerate(draws):
        for other in draws[:i]:
            if draw.shape == other.shape:
                assert not np.isclose(draw, other, rtol=1e-9).all(axis=1).any(), "a draw came twice"


@pytest.mark.parametrize("chain", CHAINS)
def test_a_draw_belongs_to_the_request_and_the_row(chain: Chain) -> None:
    check_draws(defend, chain)


def _shared_generator(chain: Chain, seed: tuple[bytes, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """One generator for all steps: the second step's draws depend on the number of rows."""

    class Shared(Draws):
        def fresh(self, shape: tuple[int, int]) -> np.ndarray:
            return rng.standard_normal(shape)

    rng = np.random.default_rng(list(b"|".join(seed)))
    state = rng.bit_generator.state

    def apply(scores: np.ndarray) -> np.ndarray:
        rng.bit_generator.state = state
        for name, parameters in chain:
            scores = RESPONSES[name](**dict(parameters))(scores, Shared(seed))
        return scores

    return apply


def _fresh(chain: Chain, seed: tuple[bytes, ...]) -> Callable[[np.ndarray], np.ndarray]:
    return defend(chain, (*seed, np.random.default_rng().bytes(8)))


BROKEN = [
    (_fresh, (NOISE,)),
    (_shared_generator, (NOISE, NOISE)),
    (lambda chain, seed: defend(chain, seed[:2]), (NOISE,)),
    (lambda chain, seed: defend(chain, seed[1:]), (NOISE,)),
    (lambda chain, seed: defend(chain, (b"".join(seed),)), (NOISE,)),
    (lambda chain, seed: lambda scores: scores, (NOISE,)),
    (
        lambda chain, seed: lambda s: np.concatenate([defend(chain, seed)(s[i : i + 1]) for i in range(len(s))]),
        (NOISE,),
    ),
]


@pytest.mark.parametrize(("broken", "chain"), BROKEN)
def test_a_broken_draw_is_caught(broken: Defend, chain: Chain) -> None:
    with pytest.raises(AssertionError):
        check_draws(broken, chain)


@settings(max_examples=50)
@given(
    st.integers(1, 5),
    st.integers(2, 6),
    st.sampled_from([*CHAINS, (FLATTEN,), (("gaussian_noise", (("sigma", 1.0),)),), ()]),
    st.integers(0, 2**32),
)
def test_rows_stay_on_the_simplex(rows: int, classes: int, chain: Chain, seed: int) -> None:
    given_scores = scores(rows, classes, seed)
    kept = given_scores.copy()
    defended = defend(chain, SEED)(given_scores)
    assert defended.shape == given_scores.shape
    assert (defended >= 0).all()
    np.testing.assert_allclose(defended.sum(axis=1), 1, rtol=1e-12)
    assert np.array_equal(given_scores, kept)


def test_defences_are_applied_in_the_order_of_the_contract() -> None:
    one = scores(3)
    noisy = defend((NOISE,), SEED)(one)
    assert np.array_equal(defend((NOISE, FLATTEN), SEED)(one), defend((FLATTEN,), SEED)(noisy))
    assert not np.array_equal(defend((FLATTEN, NOISE), SEED)(one), defend((NOISE, FLATTEN), SEED)(one))


def test_temperature_is_the_softmax_of_divided_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (5, 4))

    def softmax(z: np.ndarray) -> np.ndarray:
        return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)

    draws = Draws(SEED)
    for t in (0.5, 1.0, 3.0, 100.0):
        np.testing.assert_allclose(Temperature(t)(softmax(logits), draws), softmax(logits / t), rtol=1e-10)
    sharp = Temperature(1e-320)(np.array([[0.5, 0.2, 0.3], [0.0, 0.0, 1.0]]), draws)
    assert np.array_equal(sharp, [[1, 0, 0], [0, 0, 1]])
    one = scores(20)
    assert np.array_equal(Temperature(7.0)(one, draws).argmax(axis=1), one.argmax(axis=1))


def check_noise(noise: Callable[[np.ndarray, Draws], np.ndarray], sigma: float) -> None:
    """Inside the simplex, where nothing is clipped, noise leaves the mean and has the deviation that it should.

    Dividing by the sum takes away the mean noise: with C equal scores p = 1/C, n_i - p sum(n) is left of noise n_i, to
    first order, with variance sigma^2 (1 - 1/C).
    """
    classes, rows = 4, 20_000
    level = np.full((rows, classes), 1 / classes)
    draws = Draws(SEED, (b"server secret", b"model"), np.arange(rows * 3.0).reshape(rows, 3))
    noise_added = noise(level, draws) - level
    deviation = sigma * (1 - 1 / classes) ** 0.5
    assert abs(noise_added.mean(axis=0)).max() < 5 * deviation / rows**0.5
    assert noise_added.std() == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize("noise", [GaussianNoise, KeyedNoise])
def test_noise_has_its_deviation(noise: type[GaussianNoise]) -> None:
    check_noise(noise(0.01), 0.01)
    with pytest.raises(AssertionError):
        check_noise(noise(0.011), 0.01)
    with pytest.raises(AssertionError):
        check_noise(lambda s, draws: noise(0.01)(s, draws) + 0.001, 0.01)


def test_noise_that_clips_everything_leaves_the_uniform_answer() -> None:
    class AllMinus(Draws):
        def fresh(self, shape: tuple[int, int]) -> np.ndarray:
            return np.full(shape, -2.0)

    assert np.array_equal(GaussianNoise(1.0)(scores(2), AllMinus(SEED)), np.full((2, 4), 0.25))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: GaussianNoise(-0.1), "sigma=-0.1 must lie in [0, 1]"),
        (lambda: GaussianNoise(1.1), "sigma=1.1 must lie in [0, 1]"),
        (lambda: GaussianNoise(float("nan")), "sigma=nan must lie in [0, 1]"),
        (lambda: GaussianNoise(0.1, keep=2), "keep=2 must be 0 or 1"),
        (lambda: KeyedNoise(0.1, keep=0.5), "keep=0.5 must be 0 or 1"),
        (lambda: KeyedNoise(2.0), "sigma=2.0 must lie in [0, 1]"),
        (lambda: ReverseSigmoid(1.5), "beta=1.5 must lie in [0, 1]"),
        (lambda: ReverseSigmoid(float("nan")), "beta=nan must lie in [0, 1]"),
        (lambda: ReverseSigmoid(0.5, gamma=0.0), "gamma=0.0 must be positive and finite"),
        (lambda: ReverseSigmoid(0.5, gamma=float("inf")), "gamma=inf must be positive and finite"),
        (lambda: make_response("prayer", {}), "no response defence 'prayer'; there is gaussian_noise, keyed_noise"),
        (lambda: make_response("keyed_noise", {"variance": 1}), "keyed_noise has no parameter 'variance'; it takes"),
        (lambda: make_response("reverse_sigmoid", {"gamma": 1}), "reverse_sigmoid needs beta: write reverse_sigmoid:b"),
        (lambda: Temperature(0.0), "temperature=0.0 must be positive"),
        (lambda: Temperature(float("nan")), "temperature=nan must be positive"),
    ],
)
def test_bad_parameters_are_refused(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()
