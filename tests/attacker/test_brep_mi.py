"""Boundary repulsion as whole runs: towards known centres, within rows and the prior's mass, from the right start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacker.attacks import BrepMI, brep_mi
from attacker.attacks.brep_mi import repulsion
from tests.attacker.latent_cases import CENTRES, Balls, Lobes, M, gaussian, labels_of, oracle, regression, save_affine
from tests.toy import FULL, LABEL, Contract, finish, softmax_regression

TARGETS = [0, 1, 2]


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of a code is that code."""
    return save_affine(tmp_path_factory.mktemp("prior"))


def method(prior: Path | None, **settings: Any) -> BrepMI:
    return BrepMI(prior=prior, **{"rows": 400, "draws": 60, "pool": 20, "radius": 0.5} | settings)


@pytest.mark.parametrize("rows", [5, 20, 21, 29, 30, 61, 200])
@pytest.mark.parametrize("first", ["mean", "draw"])
def test_rows_are_kept(rows: int, first: str, prior: Path) -> None:
    """None more than allowed for each target, its share of the draws among them, and few left over."""
    asked = oracle(Balls(), LABEL)
    snapshots = list(method(prior, rows=rows, first=first).run(asked, TARGETS, 0))
    for target in TARGETS:
        assert asked.spent_on[target] + asked.shared / 3 <= rows
    assert asked.shared <= 60 * 3
    assert snapshots[-1].mark == asked.spent / 3
    marks = [snapshot.mark for snapshot in snapshots]
    assert marks == sorted(set(marks))
    if rows == 200:
        assert max(asked.spent_on.values()) + asked.shared / 3 > rows - 34


def test_distance_to_a_known_centre_falls(prior: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def falls() -> np.ndarray:
        kind = method(prior, rows=1500, first="draw", fewest=0, mass=0.0)
        first, *_, last = kind.run(oracle(Balls(), LABEL), TARGETS, 0)
        start, end = (np.linalg.norm(now.images.reshape(3, M) - CENTRES, axis=1) for now in (first, last))
        return np.asarray(end / start)

    assert falls().max() < 0.5
    monkeypatch.setattr(brep_mi, "repulsion", lambda U, outside: -repulsion(U, outside))  # noqa: N803
    assert falls().min() > 0.7  # a control: attracted by the boundary


def test_the_same_decisions_under_every_contract(prior: Path) -> None:
    ends = [
        finish(method(prior), oracle(Balls(), contract), TARGETS)
        for contract in (
            LABEL,
            FULL,
            Contract(top_k=1),
            Contract(top_k=2, round_to=1e-9),
        )  # no two scores become the same
    ]
    for end in ends[1:]:
        np.testing.assert_array_equal(end.images, ends[0].images)
        np.testing.assert_array_equal(end.extras["radius"], ends[0].extras["radius"])
        assert end.mark == ends[0].mark


def test_a_class_that_never_appears_is_not_found(prior: Path) -> None:
    model = regression(classes=3)
    model[1].bias[1] = -99.0  # type: ignore[index, union-attr, operator]
    asked = oracle(model, LABEL)
    last = finish(method(prior), asked, TARGETS)
    assert last.extras["found"].tolist() == [True, False, True]
    assert (last.images[1] == asked.low).all()
    assert asked.shared == 60 * 3  # all draws were made for it
    assert asked.spent_on[1] == 0
    nobody = finish(method(prior), oracle(model, LABEL), [1])
    assert not nobody.extras["found"].any()
    assert nobody.mark == 60


@pytest.mark.parametrize("reuse", [True, False])
def test_a_class_on_somebodys_sphere_is_found(reuse: bool, prior: Path) -> None:
    """Beyond 3.5 standard deviations no draw has come, and a sphere of radius 3 gets there."""
    far_away = softmax_regression(np.array([np.zeros(M), np.eye(M)[0]]), np.array([0.0, -3.5]))
    asked = oracle(far_away, LABEL)
    first, *_, last = method(prior, radius=3.0, mass=0.0, reuse=reuse).run(asked, [0, 1], 0)
    assert first.extras["found"].tolist() == [True, False]
    assert last.extras["found"].tolist() == [True, reuse]
    assert (last.extras["codes"][1, 0] > 3.5) == reuse
    assert (asked.spent_on[1] > 100) == reuse
    assert (last.images[1] == asked.low).all() != reuse
    assert max(asked.spent_on.values()) + asked.shared / 2 <= 400


def test_untargeted_attacks_so_many_as_are_asked(prior: Path) -> None:
    for wanted in (1, 2, 3):
        asked = oracle(Balls(), LABEL)
        last = finish(method(prior, untargeted=wanted), asked, TARGETS)
        drawn = labels_of(Balls(), np.concatenate(asked.asked)[: asked.shared]).tolist()
        first = set(sorted(TARGETS, key=drawn.index)[:wanted])
        assert set(np.flatnonzero(last.extras["found"])) == first
        assert {target for target, rows in asked.spent_on.items() if rows} == first
        assert (last.images[~last.extras["found"]] == asked.low).all()


def test_the_first_point_is_a_mean_or_else_the_nearest_draw(prior: Path) -> None:
    for model, is_mean in ((regression(classes=2), True), (Lobes(), False)):
        asked = oracle(model, LABEL)
        first = next(method(prior).run(asked, [0, 1], 0))
        codes = np.concatenate(asked.asked).reshape(-1, M)[: asked.shared]
        mine = codes[labels_of(model, codes) == 0]
        mean = mine.mean(0)
        wanted = mean if is_mean else mine[np.linalg.norm(mine - mean, axis=1).argmin()]
        np.testing.assert_allclose(first.extras["codes"][0], wanted, atol=1e-5)
        assert labels_of(model, first.images)[0] == 0
    asked = oracle(Lobes(), LABEL)
    drawn = next(method(prior, first="draw").run(asked, [0, 1], 0)).extras["codes"]
    codes = np.concatenate(asked.asked).reshape(-1, M)
    np.testing.assert_array_equal(drawn[0], codes[(labels_of(Lobes(), codes) == 0).argmax()])


@pytest.mark.parametrize(("settings", "bound"), [({"mass": 0.8}, 0.8), ({"mass": 0.0}, None)])
def test_codes_stay_where_the_prior_has_mass(settings: dict[str, float], bound: float | None, tmp_path: Path) -> None:
    folder = save_affine(tmp_path, codes=gaussian(1.0, 0.5))
    asked = oracle(regression(classes=2), LABEL)
    last = finish(method(folder, rows=300, **settings), asked, [0, 1])
    away = np.linalg.norm((np.concatenate(asked.asked).reshape(-1, M) - 1.0) / 0.5, axis=1) / M**0.5
    if bound is None:
        assert away.max() > 1.5  # a control: without the bound they go astray
        return
    assert away.max() == pytest.approx(bound, rel=1e-4)  # no further, and so far
    assert last.extras["found"].all()
    done = finish(method(folder, rows=100_000, **settings), asked, [0])
    assert bound * 0.5 * M**0.5 < done.extras["radius"][0]  # beyond the distance of its mass a target is done
    assert done.mark < 50_000


def test_compatible_is_what_the_authors_do(prior: Path) -> None:
    asked = oracle(regression(), LABEL)
    iterations = finish(method(prior, compatible=True, rows=900), asked, TARGETS).extras["iterations"]
    assert np.abs(np.concatenate(asked.asked)).max() <= 1.5
    for target in TARGETS:  # 33 labels for an iteration that moves, 32 for one that grows
        assert 32 * iterations[target] <= asked.spent_on[target] <= 33 * iterations[target]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"prior": None}, "searches the codes of an image prior"),
        *(({name: 0}, f"{name}=0 must be above 0") for name in ("rows", "draws", "points", "radius", "longest")),
        ({"iterations": 0}, "iterations=0 must be above 0"),
        *(({name: -1}, f"{name}=-1 must not be below 0") for name in ("pool", "fewest", "mass", "clamp")),
        ({"growth": 1.0}, "growth=1.0 must be above 1, share=1.0 above 0 and at most 1"),
        ({"share": 0.0}, "share=0.0 above 0 and at most 1"),
        ({"share": 1.5}, "share=1.5 above 0 and at most 1"),
        ({"first": "last"}, "first='last' must be 'mean' or 'draw'"),
        ({"untargeted": 4}, "untargeted=4 must be 0, or at most the number of targets, 3"),
        ({"untargeted": -1}, "untargeted=-1 must be 0"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], sentence: str, prior: Path) -> None:
    asked = oracle(Balls(), LABEL)
    with pytest.raises(ValueError, match=sentence):
        finish(method(**{"prior": prior} | settings), asked, TARGETS)
    assert asked.spent == 0
