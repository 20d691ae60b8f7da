"""What every response defence promises, at any strength: rows on the simplex, each row for itself, the arg max where it
is claimed, and nothing at strength zero.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defenses.response import RESPONSES, Draws, GaussianNoise, Response, ReverseSigmoid, Temperature, make_response
from defenses.response.argmax import keep_argmax

# For each defence: the strength that changes nothing, strengths that do, and what else may be chosen.
STRENGTHS: dict[str, tuple[float, list[float], list[dict[str, float]]]] = {
    "gaussian_noise": (0.0, [0.001, 0.05, 0.5, 1.0], [{}, {"keep": 0}, {"keep": 1}]),
    "keyed_noise": (0.0, [0.001, 0.05, 0.5, 1.0], [{}, {"keep": 0}, {"keep": 1}]),
    "reverse_sigmoid": (0.0, [0.01, 0.3, 0.7, 1.0], [{}, {"gamma": 0.01}, {"gamma": 1.5}, {"gamma": 1e4}]),
    "temperature": (1.0, [1e-320, 0.3, 3.0, 1e3, 1e17, float("inf")], [{}]),
}
CASES = [
    make_response(name, {RESPONSES[name].strength: strength, **rest})
    for name, (_, strengths, others) in STRENGTHS.items()
    for strength in strengths
    for rest in others
]
KEEPS = [case for case in CASES if case.keeps_argmax]

Apply = Callable[[np.ndarray, Draws], np.ndarray]


def draws(rows: int, seed: int = 0) -> Draws:
    inputs = np.random.default_rng(seed).random((rows, 2, 3), dtype=np.float32)
    return Draws((seed.to_bytes(8, "little"),), (b"secret", b"model"), inputs)


@st.composite
def near_ties(draw: st.DrawFn) -> np.ndarray:
    """Scores (N, C): sharp, flat, one-hot, with equals, and with leaders that are neighbours as floats."""
    classes, rng = draw(st.integers(1, 7)), np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = []
    for kind in draw(st.lists(st.sampled_from(["random", "sharp", "one-hot", "equal", "neighbours"]), min_size=1)):
        row = rng.dirichlet(np.full(classes, {"sharp": 0.01, "one-hot": 0.01}.get(kind, 1.0)))
        if kind == "one-hot":
            row = np.eye(classes)[rng.integers(classes)]
        if kind in ("equal", "neighbours"):
            leaders = rng.permutation(classes)[: rng.integers(1, classes + 1)]
            row[leaders] = row.max()
            row /= row.sum()
        if kind == "neighbours":
            row[rng.choice(leaders)] = np.nextafter(row.max(), 2)
        rows.append(row)
    return np.array(rows)


def check_simplex(defended: np.ndarray, scores: np.ndarray) -> None:
    assert defended.shape == scores.shape
    assert (defended >= 0).all()
    np.testing.assert_allclose(defended.sum(axis=1), 1, rtol=1e-12)


def check_argmax(apply: Apply, scores: np.ndarray, seed: int = 0) -> None:
    """The first of the largest stays the first of the largest."""
    defended = apply(scores, draws(len(scores), seed))
    assert np.array_equal(defended.argmax(axis=1), scores.argmax(axis=1))


def check_rows(apply: Apply, scores: np.ndarray) -> None:
    """A row's answer is the same, bit for bit, whatever rows follow it."""
    whole = draws(len(scores))
    assert whole.inputs is not None
    defended = apply(scores, whole)
    for rows in range(1, len(scores)):
        part = Draws(whole.fresh_seed, whole.keyed_seed, whole.inputs[:rows])
        assert np.array_equal(apply(scores[:rows], part), defended[:rows])


def test_every_defence_is_here() -> None:
    assert set(STRENGTHS) == set(RESPONSES)
    assert {type(case).__name__ for case in KEEPS} == {cls.__name__ for cls in RESPONSES.values()}


@pytest.mark.parametrize("response", CASES, ids=repr)
@settings(max_examples=25, deadline=None)
@given(near_ties(), st.integers(0, 2**32))
def test_rows_stay_on_the_simplex_and_the_input_is_left_alone(
    response: Response, scores: np.ndarray, seed: int
) -> None:
    kept = scores.copy()
    check_simplex(response(scores, draws(len(scores), seed)), scores)
    assert np.array_equal(scores, kept)


@pytest.mark.parametrize("response", KEEPS, ids=repr)
@settings(max_examples=50, deadline=None)
@given(near_ties(), st.integers(0, 2**32))
def test_who_claims_it_keeps_the_arg_max(response: Response, scores: np.ndarray, seed: int) -> None:
    check_argmax(response, scores, seed)


def _tempered(scores: np.ndarray, draws: Draws) -> np.ndarray:
    powered = scores ** (1 / 1e3)
    return powered / powered.sum(axis=1, keepdims=True)


def _bent(scores: np.ndarray, draws: Draws) -> np.ndarray:
    bent = scores - 0.9 * (1 / (1 + ((1 - scores) / np.maximum(scores, 1e-9)) ** 2.0) - 0.5)
    return bent / bent.sum(axis=1, keepdims=True)


def _exchanged(scores: np.ndarray, draws: Draws) -> np.ndarray:
    """An exchange alone, which changes nothing between equals."""
    flat = np.full(scores.shape, 1 / scores.shape[1])
    rows, top = np.arange(len(scores)), scores.argmax(axis=1)
    flat[rows, top], flat[rows, 0] = flat[rows, 0], flat[rows, top]
    return flat


@pytest.mark.parametrize("broken", [GaussianNoise(0.1), GaussianNoise(0.5, keep=0), _tempered, _bent, _exchanged])
def test_an_arg_max_that_moves_is_caught(broken: Apply) -> None:
    close = [np.nextafter(0.5, 0), 0.5, 0.0]
    bent = [0.52, 0.45, 0.03]  # the middle of the reverse sigmoid is steep: more is less there
    scores = np.array([close, bent] * 20)
    with pytest.raises(AssertionError):
        check_argmax(broken, scores)
    check_argmax(lambda s, d: keep_argmax(s, broken(s, d)), scores)


@pytest.mark.parametrize("response", CASES, ids=repr)
def test_rows_are_for_themselves(response: Response) -> None:
    check_rows(response, np.random.default_rng(0).dirichlet(np.full(5, 0.5), 20))


def test_rows_that_lean_on_each_other_are_caught() -> None:
    with pytest.raises(AssertionError):
        check_rows(lambda s, d: s / s.sum(), np.random.default_rng(0).dirichlet(np.full(5, 0.5), 20))


@pytest.mark.parametrize("name", RESPONSES)
def test_strength_zero_changes_nothing_and_more_changes_every_row(name: str) -> None:
    nothing, strengths, others = STRENGTHS[name]
    scores = np.random.default_rng(0).dirichlet(np.full(5, 0.5), 200)
    moved = []
    for rest in others:
        same = make_response(name, {RESPONSES[name].strength: nothing, **rest})(scores, draws(200))
        np.testing.assert_allclose(same, scores, rtol=0, atol=1e-15)
    for strength in strengths:
        answer = make_response(name, {RESPONSES[name].strength: strength})(scores, draws(200))
        assert (abs(answer - scores).max(axis=1) > 1e-6).all(), strength
        moved.append(abs(answer - scores).sum())
    if name != "temperature":  # where one half of the strengths sharpens
        assert moved == sorted(moved), "more strength, more change"


def test_noise_that_keeps_exchanges_two_scores_and_nothing_else() -> None:
    scores = np.random.default_rng(0).dirichlet(np.full(5, 0.5), 500)
    free, kept = (GaussianNoise(0.2, keep)(scores, draws(500)) for keep in (0, 1))
    moved = free.argmax(axis=1) != scores.argmax(axis=1)
    assert 50 < moved.sum() < 450
    assert np.array_equal(free[~moved], kept[~moved])
    assert np.array_equal(np.sort(free), np.sort(kept))
    assert ((free != kept).sum(axis=1)[moved] == 2).all()


def test_reverse_sigmoid_is_the_papers_formula() -> None:
    """The sigmoid and its inverse as they stand there, one number at a time."""
    scores = np.random.default_rng(0).dirichlet(np.full(4, 2.0), 300)

    def formula(y: float, beta: float, gamma: float) -> float:
        logit = np.log(y / (1 - y))
        return y - beta * (1 / (1 + np.exp(-gamma * logit)) - 0.5)

    for beta, gamma in ((0.1, 0.1), (0.7, 0.2), (1.0, 0.5)):
        bent = np.array([[formula(y, beta, gamma) for y in row] for row in scores])
        expected = bent / bent.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(
            ReverseSigmoid(beta, gamma)(scores, draws(300)), keep_argmax(scores, expected), rtol=1e-9
        )
    one_hot = np.eye(4)[:1]
    np.testing.assert_allclose(ReverseSigmoid(0.6)(one_hot, draws(1)), [[0.7 / 1.6, 0.3 / 1.6, 0.3 / 1.6, 0.3 / 1.6]])


def test_reverse_sigmoid_hides_how_sure_the_model_is() -> None:
    """Different confidences, the same answer: the lesser of two classes is no function's inverse any more."""
    p = np.linspace(1e-6, 0.5, 2000, endpoint=False)
    lesser = ReverseSigmoid(0.8, 0.3)(np.stack([p, 1 - p], axis=1), draws(2000))[:, 0]
    slopes = np.sign(np.diff(lesser))
    assert {-1, 1} <= set(slopes.tolist()), "down, then up: two inputs for one answer"
    tempered = Temperature(3.0)(np.stack([p, 1 - p], axis=1), draws(2000))[:, 0]
    assert set(np.sign(np.diff(tempered)).tolist()) == {1}, "the negative control"
