"""Asking again and again, and with several keys: what it costs, and what it is good for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from attacker.answers import Answer
from attacker.averaged import Averaged, average
from attacker.oracle import BudgetSpent, Oracle, OracleError
from tests.serving import Server, inputs

RUN = {"method": "a test"}
FRESH = (("gaussian_noise", (("sigma", 0.05),)),)


def asked(oracle: Oracle, folder: Path, rows: np.ndarray) -> np.ndarray:
    oracle.begin(folder, RUN)
    try:
        scores = oracle.query(rows).scores
    finally:
        oracle.close()
    assert scores is not None
    return scores


# The average itself


def test_scores_are_averaged_where_they_were_released() -> None:
    nan = np.nan
    parts = [Answer(scores=np.array([[0.2, nan, nan]])), Answer(scores=np.array([[0.4, 0.3, nan]]))]
    np.testing.assert_allclose(average(parts).scores, [[0.3, 0.3, nan]])


def test_the_most_frequent_label_wins_and_of_equals_the_lowest() -> None:
    votes = [Answer(labels=np.array(labels)) for labels in ([2, 0, 1], [2, 1, 0], [0, 1, 2])]
    np.testing.assert_array_equal(average(votes).labels, [2, 1, 0])


def test_numbers_are_averaged() -> None:
    np.testing.assert_allclose(average([Answer(numbers=np.array([[1.0], [2.0]]))] * 3).numbers, [[1.0], [2.0]])
    np.testing.assert_allclose(average([Answer(numbers=np.array([n])) for n in (1.0, 4.0)]).numbers, [2.5])


# Through the server


def test_averaging_removes_fresh_noise_and_is_charged_for_it(server: Server, tmp_path: Path) -> None:
    rows = inputs(6)
    clean = asked(Oracle(server.address, server.new_key().key), tmp_path / "clean", rows)
    once = server.new_key(defences=FRESH)
    many = server.new_key(defences=FRESH)
    noisy = asked(Oracle(server.address, once.key), tmp_path / "once", rows)
    oracle = Averaged(server.address, many.key, repeats=100)
    averaged = asked(oracle, tmp_path / "many", rows)
    assert oracle.spent == many.usage().spent == 600
    assert once.usage().spent == 6

    def error(scores: np.ndarray) -> float:
        return float(np.sqrt(np.square(scores - clean).mean()))

    # a hundredth of the variance; clipping at zero leaves a bias that no average removes
    assert error(averaged) < 0.4 * error(noisy)


def test_batches_stay_apart_and_in_order(server: Server, tmp_path: Path) -> None:
    parts = [inputs(rows, seed) for seed, rows in enumerate((3, 1, 5))]
    plain = asked(Oracle(server.address, server.new_key().key), tmp_path / "plain", np.concatenate(parts))
    oracle = Averaged(server.address, server.new_key().key, repeats=2)
    oracle.begin(tmp_path / "run", RUN)
    held = np.empty_like(inputs(5))

    def reused() -> Iterator[tuple[np.ndarray, None]]:  # an array may be written over once the next batch is asked for
        for part in parts:
            held[: len(part)] = part
            yield held[: len(part)], None

    answers = [answer.scores for answer in oracle.stream(reused())]
    assert [len(scores) for scores in answers if scores is not None] == [3, 1, 5]
    np.testing.assert_allclose(np.concatenate([s for s in answers if s is not None]), plain, atol=1e-6)
    oracle.close()


def test_a_budget_that_ends_between_two_repeats_ends_the_run(server: Server, tmp_path: Path) -> None:
    caller = server.new_key(budget=10)
    oracle = Averaged(server.address, caller.key, repeats=4)
    with pytest.raises(BudgetSpent):
        asked(oracle, tmp_path, inputs(3))
    assert oracle.spent == caller.usage().spent == 9


# Several keys


def test_keys_take_turns(server: Server, tmp_path: Path) -> None:
    callers = [server.new_key(budget=20) for _ in range(3)]
    oracle = Oracle(server.address, [caller.key for caller in callers])
    oracle.begin(tmp_path, RUN)
    for rows in (4, 3, 2, 1):
        oracle.query(inputs(rows))
    assert [caller.usage().spent for caller in callers] == [5, 3, 2]
    assert oracle.spent == 10
    oracle.close()


def test_keys_that_differ_in_their_contracts_are_refused(server: Server) -> None:
    keys = [server.new_key(budget=20).key, server.new_key(budget=21).key]
    with pytest.raises(OracleError, match="different models or contracts"):
        Oracle(server.address, keys)
