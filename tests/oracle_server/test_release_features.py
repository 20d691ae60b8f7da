"""Law 1 for feature models: of the outputs, those of the contract's groups leave, rounded, and nothing of any other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle_server.threat_model import Access, Contract, Released, release_values

Release = Callable[[np.ndarray, Contract, tuple[str, ...]], Released]
GROUPS = ("shape", "pose", "shape", "landmarks", "landmarks")
ROWS = np.float32([[0.1, 0.26, 0.3, 0.44, 0.5], [0.6, 0.7, 0.81, 0.9, 1.0]])


def check_release_features(release: Release, rows: np.ndarray, contract: Contract, groups: tuple[str, ...]) -> None:
    """`release` lets out the contract's columns in order, at most half a step away and multiples of it; and what it
    lets out stays the same, bit for bit, whatever the other columns hold.
    """
    before = rows.copy()
    released = release(rows, contract, groups)
    np.testing.assert_array_equal(rows, before)
    assert [name for name, value in vars(released).items() if value is not None] == ["numbers"]
    numbers = released.numbers
    assert numbers is not None
    wanted = [i for i, group in enumerate(groups) if not contract.features or group in contract.features]
    assert (numbers.shape, numbers.dtype) == ((len(rows), len(wanted)), np.float64)
    exact = rows[:, wanted].astype(np.float64)
    if contract.round_to is None:
        np.testing.assert_array_equal(numbers, exact)
    else:
        steps = numbers / contract.round_to
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
        assert (np.abs(numbers - exact) <= contract.round_to * (0.5 + 1e-9)).all()
    others = rows.copy()
    others[:, [i for i in range(len(groups)) if i not in wanted]] = 0.123
    np.testing.assert_array_equal(release(others, contract, groups).numbers, numbers)


@given(
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5), min_size=1, max_size=6),
    st.permutations(GROUPS).map(tuple),
    st.sets(st.sampled_from(GROUPS)).map(sorted).map(tuple),
    st.sampled_from([None, 1.0, 0.5, 0.1, 0.001]),
)
def test_nothing_of_an_unreleased_group_leaves(
    rows: list[list[float]], groups: tuple[str, ...], features: tuple[str, ...], step: float | None
) -> None:
    contract = Contract(Access.SCORES, features=features, round_to=step)
    check_release_features(release_values, np.array(rows, dtype=np.float32), contract, groups)


@pytest.mark.parametrize(
    "broken",
    [
        lambda p, c, g: release_values(p, Contract(Access.SCORES, round_to=0.5), g),  # forgets the groups
        lambda p, c, g: Released(numbers=p[:, [i for i, n in enumerate(g) if n in c.features]].astype(np.float64)),
        lambda p, c, g: Released(numbers=release_values(p, c, g).numbers[:, ::-1]),  # in another order
        lambda p, c, g: Released(numbers=np.floor(release_values(p, c, g).numbers + p.sum() * 1e-9)),
        lambda p, c, g: Released(numbers=release_values(p, c, g).numbers, scores=p.astype(np.float64)),
        lambda p, c, g: Released(numbers=release_values(p, c, g).numbers + 0.5 * (p[:, 1:2] > 0.5)),  # tells the pose
    ],
)
def test_the_checker_catches_what_is_broken(broken: Release) -> None:
    contract = Contract(Access.SCORES, features=("shape", "landmarks"), round_to=0.5)
    check_release_features(release_values, ROWS, contract, GROUPS)
    with pytest.raises(AssertionError):
        check_release_features(broken, ROWS, contract, GROUPS)


def test_weights_and_a_contract_without_groups_release_all() -> None:
    for contract in (Contract(Access.WEIGHTS), Contract(Access.SCORES)):
        check_release_features(release_values, ROWS, contract, GROUPS)
        assert release_values(ROWS, contract, GROUPS).numbers.shape == (2, 5)


@pytest.mark.parametrize(
    ("contract", "sentence"),
    [
        (Contract(Access.SCORES, features=("nope",)), "no group nope; there is shape, pose, landmarks"),
        (Contract(Access.SCORES, features=("nope", "pose")), "no group nope; there is shape, pose, landmarks"),
        (Contract(Access.LABEL), "a feature model releases numbers"),
        (Contract(Access.SCORES, top_k=1), "a feature model releases numbers"),
        (Contract(Access.SCORES, defences=(("temperature", (("temperature", 3.0),)),)), "a feature model releases"),
    ],
)
def test_a_contract_that_cannot_be_kept_releases_nothing(contract: Contract, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        release_values(ROWS, contract, GROUPS)


@pytest.mark.parametrize("groups", [GROUPS[:4], (*GROUPS, "pose"), ()])
def test_a_column_whose_group_nobody_knows_fails_closed(groups: tuple[str, ...]) -> None:
    with pytest.raises(IndexError):
        release_values(ROWS, Contract(Access.SCORES), groups)
