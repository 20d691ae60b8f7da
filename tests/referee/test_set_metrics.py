"""Sets of points against answers known by hand, by formula and by another package, each with a negative control."""

from __future__ import annotations

import doctest
import importlib
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc

from referee.metrics import frechet_distance, prdc, prdc_by_class


@pytest.mark.parametrize("name", ["frechet", "prdc", "tries"])
def test_examples_in_docstrings(name):
    found = doctest.testmod(importlib.import_module(f"referee.metrics.{name}"))
    assert found.attempted
    assert not found.failed


# ---- Fréchet distance -----------------------------------------------------------------------------------------


def cloud(mean, covariance, count: int = 60, seed: int = 0) -> np.ndarray:
    """Points whose mean and covariance are these exactly, not only as expected."""
    covariance = np.atleast_2d(covariance)
    drawn = np.random.default_rng(seed).normal(size=(count, len(covariance)))
    white = np.linalg.qr(drawn - drawn.mean(axis=0)).Q * np.sqrt(count - 1)
    values, vectors = np.linalg.eigh(covariance)
    return white @ (vectors * np.sqrt(values.clip(0))).T + mean


def by_roots(real: np.ndarray, made: np.ndarray) -> float:
    """The formula word for word, with symmetric roots by eigenvalues."""
    ours, theirs = np.cov(real, rowvar=False), np.cov(made, rowvar=False)
    values, vectors = np.linalg.eigh(ours)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    common = np.sqrt(np.linalg.eigvalsh(root @ theirs @ root).clip(0)).sum()
    return np.square(real.mean(0) - made.mean(0)).sum() + np.trace(ours) + np.trace(theirs) - 2 * common


def test_one_dimension_by_hand():
    """(3 - 1)^2 + (5 - 2)^2: means 1 and 3, standard deviations 2 and 5."""
    assert frechet_distance(cloud([1.0], 4.0), cloud([3.0], 25.0, seed=1)) == pytest.approx(13)


def test_two_normal_distributions_by_formula():
    """Negative control: the roots' difference, which is right only where covariances commute, is another number."""
    one, other = np.array([[2.0, 0.8], [0.8, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])
    # The root of a 2 x 2 matrix of positive eigenvalues has the trace sqrt(trace + 2 sqrt(determinant)).
    product = one @ other
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = 1 + 4 + np.trace(one) + np.trace(other) - 2 * root
    got = frechet_distance(cloud([0.0, 0.0], one), cloud([1.0, -2.0], other, count=45, seed=1))
    assert got == pytest.approx(expected)
    roots = [vectors @ np.diag(np.sqrt(values)) @ vectors.T for values, vectors in map(np.linalg.eigh, (one, other))]
    assert abs(got - 5 - np.square(roots[0] - roots[1]).sum()) > 0.01


def test_covariances_that_commute():
    one, other = np.array([1.0, 4.0, 9.0, 0.0]), np.array([4.0, 4.0, 1.0, 0.0])
    got = frechet_distance(cloud(0.0, np.diag(one)), cloud(0.0, np.diag(other), seed=1))
    assert got == pytest.approx(np.square(np.sqrt(one) - np.sqrt(other)).sum())


@pytest.mark.parametrize(("count", "width"), [(40, 5), (9, 30), (2, 3)])
def test_equal_sets_are_nowhere_and_a_shift_is_its_square(count, width):
    generator = np.random.default_rng(0)
    points, shift = generator.normal(size=(count, width)), generator.normal(size=width)
    assert 0 <= frechet_distance(points, points[::-1]) < 1e-12
    assert frechet_distance(points, points + shift) == pytest.approx(np.square(shift).sum(), rel=1e-12)


def test_agrees_with_roots_where_these_are_sound():
    generator = np.random.default_rng(3)
    real, made = generator.normal(size=(200, 12)), generator.normal(size=(150, 12)) @ generator.normal(size=(12, 12))
    assert frechet_distance(real, made) == pytest.approx(by_roots(real, made), rel=1e-10)


def test_sets_smaller_than_the_space_lose_no_digits():
    """Ten points in 400 dimensions. Negative control: roots of eigenvalues that should be 0 add up."""
    points = np.random.default_rng(0).normal(size=(10, 400))
    assert frechet_distance(points, points + 1e-4) == pytest.approx(400e-8, rel=1e-6)
    assert by_roots(points, points + 1e-4) != pytest.approx(400e-8, rel=1e-2)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 6), st.integers(0, 10**6))
def test_frechet_is_symmetric_and_scales(real_count, made_count, width, seed):
    generator = np.random.default_rng(seed)
    real, made = generator.normal(size=(real_count, width)), generator.normal(size=(made_count, width)) + 1
    got = frechet_distance(real, made)
    assert got >= 0
    assert frechet_distance(made, real) == pytest.approx(got, abs=1e-12)
    assert frechet_distance(3 * real, 3 * made) == pytest.approx(9 * got, abs=1e-11)


def test_frechet_checks_its_arguments():
    points = np.eye(3)
    for real, made, words in (
        (points[:1], points, "at least 2 rows"),
        (points, points[0], r"must be \(N, F\)"),
        (points, points[:, :2], "don't fit"),
        (points, np.where(points, np.inf, 0), "no numbers"),
    ):
        with pytest.raises(ValueError, match=words):
            frechet_distance(real, made)


# ---- nearest neighbours ---------------------------------------------------------------------------------------


def agrees_with_package(real: np.ndarray, made: np.ndarray, k: int) -> None:
    expected = compute_prdc(real, made, k)  # prints the sizes
    got = prdc(real, made, k)
    for name, value in expected.items():
        assert getattr(got, name) == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("real", "made", "width"), [(40, 30, 4), (7, 50, 1), (60, 9, 90), (25, 25, 2)])
def test_agrees_with_the_package(real, made, width, k):
    generator = np.random.default_rng(real)
    agrees_with_package(generator.normal(size=(real, width)), 0.8 * generator.normal(size=(made, width)) + 0.3, k)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6))
def test_agrees_with_the_package_in_ties(k, width, seed):
    """Points of a small grid: copies within and between the sets, and squares that are whole numbers on both sides."""
    generator = np.random.default_rng(seed)
    agrees_with_package(*(generator.integers(0, 4, (count, width)).astype(float) for count in (24, 17)), k)


def test_by_hand():
    """Balls of k = 1 on a line: real (-1, 1), (0, 2), (1, 3), (2, 18), first made (-1, 2), (0.5, 3.5), (2, 16)."""
    real = np.array([[0.0], [1], [2], [10]])
    for made, expected in (
        ([0.5, 2.0, 9.0], (1, 1, 4 / 3, 1)),
        ([-1.0, 18.0, 20.0], (0, 1, 0, 0)),  # two on the rim of a ball, one outside of all
        ([6.5, 7.0, 7.5], (1, 0, 1, 1 / 4)),  # all in one ball, with no real point between them
    ):
        points = np.array(made)[:, None]
        assert astuple(prdc(real, points, 1)) == (*map(pytest.approx, expected), 1)
        agrees_with_package(real, points, 1)


def test_copies_have_empty_balls():
    copies = np.zeros((4, 2))
    assert astuple(prdc(copies, copies, 3)) == (0, 0, 0, 0, 3)


def test_collapse_and_outliers_show_where_they_should():
    generator = np.random.default_rng(1)
    real, good = generator.normal(size=(300, 6)), generator.normal(size=(300, 6))
    fair = prdc(real, good)
    assert min(fair.precision, fair.recall, fair.coverage) > 0.85
    assert fair.density == pytest.approx(1, abs=0.15)
    collapsed = prdc(real, 0.05 * good + real[0])
    assert collapsed.recall < 0.1
    assert collapsed.coverage < 0.35
    strange = good.copy()
    strange[:150] += 30
    outlying = prdc(real, strange)
    assert outlying.precision == pytest.approx(fair.precision / 2, abs=0.05)
    assert outlying.density < 0.6 < outlying.coverage


def test_the_mean_over_classes_counts_each_class_once():
    generator = np.random.default_rng(2)
    real, made = generator.normal(size=(30, 3)), generator.normal(size=(28, 3))
    real_classes, made_classes = np.repeat([4, 7, 9], 10), np.repeat([9, 4], [20, 8])
    got = prdc_by_class(real, real_classes, made, made_classes, 2)
    parts = [prdc(real[real_classes == name], made[made_classes == name], 2) for name in (4, 9)]
    np.testing.assert_allclose(astuple(got), np.mean([astuple(part) for part in parts], axis=0))
    assert got.k == 2


def test_one_image_of_each_person_repeated_is_seen_within_the_classes_only():
    """All classes at once cover well; within a class nothing varies. Real photos are the control."""
    generator = np.random.default_rng(3)
    classes = np.repeat(np.arange(20), 12)
    people = 10 * generator.normal(size=(20, 2))[classes]
    real, other = (people + generator.normal(size=(240, 2)) for _ in range(2))
    repeated = people + 1e-3 * generator.normal(size=(240, 2))
    assert prdc(real, repeated, 9).coverage > 0.6
    assert prdc_by_class(real, classes, repeated, classes, 3).recall < 0.02
    assert prdc_by_class(real, classes, other, classes, 3).recall > 0.6


def test_prdc_checks_its_arguments():
    points, classes = np.random.default_rng(0).normal(size=(8, 2)), np.repeat([0, 1], [5, 3])
    for k in (0, 8):
        with pytest.raises(ValueError, match=f"k={k} must be"):
            prdc(points, points, k)
    with pytest.raises(ValueError, match="columns have no distance"):
        prdc(points, points[:, :1], 2)
    with pytest.raises(ValueError, match="no numbers"):
        prdc(points, points * np.nan, 2)
    with pytest.raises(ValueError, match="class 1 has 3 real and 3 made images: both must exceed k=3"):
        prdc_by_class(points, classes, points, classes, 3)
    with pytest.raises(ValueError, match="one for each"):
        prdc_by_class(points, classes[:-1], points, classes, 2)
    with pytest.raises(ValueError, match="at least 1 rows"):
        prdc_by_class(points, classes, points[:0], classes[:0], 2)
