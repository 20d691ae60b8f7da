"""Law 1 for regressions: what leaves is the prediction, rounded, and nothing under a contract that says less."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle_server.threat_model import Access, Contract, Released, release_values

Release = Callable[[np.ndarray, Contract], Released]
FLATTEN = (("temperature", (("temperature", 3.0),)),)


def check_release_values(release: Release, predictions: np.ndarray, contract: Contract) -> None:
    """`release` lets out one number a row, at most half a step from the prediction, and a multiple of the step."""
    before = predictions.copy()
    released = release(predictions, contract)
    np.testing.assert_array_equal(predictions, before)
    assert [name for name, value in vars(released).items() if value is not None] == ["numbers"]
    numbers = released.numbers
    assert numbers is not None
    assert (numbers.shape, numbers.dtype) == ((len(predictions),), np.float64)
    exact = predictions[:, 0].astype(np.float64)
    if contract.round_to is None:
        np.testing.assert_array_equal(numbers, exact)
    else:
        steps = numbers / contract.round_to
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
        assert (np.abs(numbers - exact) <= contract.round_to * (0.5 + 1e-9)).all()


@given(
    st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=9),
    st.sampled_from([None, 1.0, 0.5, 0.1, 0.001]),
    st.sampled_from([Access.SCORES, Access.WEIGHTS]),
)
def test_numbers_are_rounded_and_alone(values: list[float], step: float | None, access: Access) -> None:
    contract = Contract(access, round_to=step if access is Access.SCORES else None)
    check_release_values(release_values, np.array(values, dtype=np.float32)[:, None], contract)


@pytest.mark.parametrize(
    "broken",
    [
        lambda p, c: Released(numbers=p[:, 0].astype(np.float64)),  # forgets to round
        lambda p, c: Released(numbers=release_values(p, c).numbers, labels=np.zeros(len(p), dtype=np.int64)),
        lambda p, c: Released(numbers=np.floor(p[:, 0].astype(np.float64))),
    ],
)
def test_the_checker_catches_what_is_broken(broken: Release) -> None:
    with pytest.raises(AssertionError):
        check_release_values(broken, np.float32([[0.7], [1.3]]), Contract(Access.SCORES, round_to=0.5))


@pytest.mark.parametrize(
    "contract",
    [
        Contract(Access.LABEL),
        Contract(Access.SCORES, top_k=1),
        Contract(Access.SCORES, defences=FLATTEN),
        Contract(Access.SCORES, features=("a",)),
    ],
)
def test_a_contract_that_a_number_cannot_keep_releases_nothing(contract: Contract) -> None:
    with pytest.raises(ValueError, match="a regression releases n"):
        release_values(np.zeros((2, 1), dtype=np.float32), contract)
