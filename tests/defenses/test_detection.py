"""Detectors on a stream of queries: toy streams whose verdict is known, any cut into calls, bounded memory."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import shapiro

from defenses.detection import DETECTIONS, Detection, Distances, Fingerprints, rows_until
from defenses.detection.distances import shapiro_wilk

SHAPE = (1, 16, 16)
PRINTS = Fingerprints(past=60, alike=10)
FAR = Distances(least=30, recent=60, memory=40)
DETECTORS = [PRINTS, FAR]


def noise(rows: int, seed: int = 0) -> np.ndarray:
    """Rows (N, 1, 16, 16) that have nothing to do with each other, all equally far apart."""
    return np.random.default_rng(seed).random((rows, *SHAPE), dtype=np.float32)


def natural(rows: int, seed: int = 0) -> np.ndarray:
    """Noise of many contrasts: rows at distances that vary widely, as those of photos do."""
    rng = np.random.default_rng(seed)
    contrast = rng.uniform(0.4, 1, (rows, 1, 1, 1)).astype(np.float32)
    return 0.5 + contrast * (noise(rows, seed + 1) - 0.5)


def first_flag(detector: Detection, rows: np.ndarray) -> int | None:
    return rows_until(detector, rows)


@pytest.mark.parametrize("detector", DETECTORS)
def test_identical_rows_are_flagged_at_once(detector: Detection) -> None:
    rows = np.repeat(natural(1), 200, 0)
    assert first_flag(detector, rows) == {PRINTS: 11, FAR: 31}[detector]


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("seed", range(5))
def test_unrelated_natural_rows_are_not_flagged(detector: Detection, seed: int) -> None:
    assert first_flag(detector, natural(400, 100 * seed)) is None


def test_a_search_around_one_row_is_flagged_by_fingerprints() -> None:
    """Each row differs from one place in one value: like all others before it. Control: every row is a place of its
    own."""
    rows = np.repeat(natural(1), 100, 0)
    rows.reshape(100, -1)[np.arange(100), np.arange(100)] = 1.0
    assert first_flag(PRINTS, rows) == 11
    assert first_flag(PRINTS, natural(100)) is None


@pytest.mark.parametrize(("repeats", "flagged"), [(9, None), (10, 11 * 7)])
def test_so_many_repeats_pass_and_one_more_does_not(repeats: int, flagged: int | None) -> None:
    """One photo every seven rows among others: `alike` earlier ones within `past` rows are needed."""
    method, rows = Fingerprints(past=100, alike=10), natural(7 * (repeats + 1))
    rows[6::7] = rows[6]
    assert first_flag(method, rows) == flagged


def test_what_is_long_past_is_forgotten() -> None:
    """Ten copies, a long pause, ten copies: no row has ten like it within `past`. Control: without the pause."""
    copies = np.repeat(natural(1, 7), 10, 0)
    assert first_flag(PRINTS, np.concatenate((copies, natural(60), copies))) is None
    assert first_flag(PRINTS, np.concatenate((copies, natural(40), copies))) == 51


def test_fingerprints_survive_a_little_noise_and_a_shift() -> None:
    """Values move within their level; a picture moves along its rows: most windows stay what they are."""
    base = np.rint(natural(1) * 10) / 10
    small = np.repeat(base, 20, 0) + np.random.default_rng(0).uniform(-0.04, 0.04, (20, *SHAPE))
    assert first_flag(PRINTS, small) == 11
    shifted = np.stack([np.roll(base[0].ravel(), shift).reshape(SHAPE) for shift in range(20)])
    assert first_flag(PRINTS, shifted) == 11
    large = np.repeat(base, 20, 0) + np.random.default_rng(0).uniform(-0.2, 0.2, (20, *SHAPE))
    assert first_flag(PRINTS, large) is None  # a control


def test_fingerprints_depend_on_the_secret() -> None:
    marks = [PRINTS.start(SHAPE, secret)._fingerprints(natural(1).reshape(1, -1))[0] for secret in (b"a", b"a", b"b")]
    assert (marks[0] == marks[1]).all()
    assert len(np.intersect1d(marks[0], marks[2])) < 5


def test_hashes_of_windows_are_those_of_their_levels_alone() -> None:
    """The rolling hash against one that is computed window by window: equal windows have equal hashes, others not."""
    stream = Fingerprints(window=5, hashes=1000, threshold=1).start((40,), b"s")
    row = np.random.default_rng(0).integers(0, 2, 40) * 0.1
    windows = np.lib.stride_tricks.sliding_window_view(np.rint(row / 0.1), 5)
    marks, used = stream._fingerprints(row[None])
    assert used.sum() == len(np.unique(windows, axis=0)) == len(np.unique(marks[used]))


def test_a_blank_row_is_like_blank_rows_only() -> None:
    digits = np.zeros((100, *SHAPE), np.float32)
    digits[:, 0, 4:12, 4:12] = noise(100)[:, 0, :8, :8]
    digits[-1] = 0
    assert first_flag(Fingerprints(alike=1), digits) is None
    digits[-2] = 0
    assert first_flag(Fingerprints(alike=1), digits) == 100


def test_steps_of_one_length_are_flagged_by_distances() -> None:
    """One value of a fixed image is moved by as much in each row: distances are all the same, and W is 0."""
    rows = np.repeat(natural(1), 60, 0)
    rows.reshape(60, -1)[np.arange(60), np.arange(60)] += 0.5
    assert first_flag(FAR, rows) == 31
    assert first_flag(Distances(delta=0, width=0, least=30), rows) is None  # a control: nothing is unnatural to it


def test_rows_that_are_equally_far_apart_are_flagged_by_width_alone() -> None:
    assert first_flag(FAR, noise(100)) == 31
    assert first_flag(Distances(delta=FAR.delta, width=0, least=30, recent=60, memory=40), noise(100)) is None


def test_copies_with_noise_are_left_out_of_the_width() -> None:
    """A still camera: distances are those of its noise, all alike, and not those of new inputs."""
    still = natural(1) + np.random.default_rng(0).normal(0, 0.01, (200, *SHAPE))
    assert first_flag(FAR, still) is None
    assert first_flag(Distances(least=30, recent=60, memory=40, near=0), still) == 31  # a control


@pytest.mark.parametrize("n", [12, 30, 200, 1000])
def test_w_is_that_of_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    for x in (rng.normal(size=n), rng.random(n), rng.exponential(size=n), rng.integers(0, 2, n) + rng.normal(size=n)):
        assert shapiro_wilk(np.sort(x)) == pytest.approx(shapiro(x).statistic, abs=1e-6)
    assert shapiro_wilk(np.full(n, 0.3)) == 0


@settings(max_examples=25)
@given(
    cuts=st.lists(st.integers(1, 199), max_size=6),
    seed=st.integers(0, 9),
    detector=st.sampled_from(DETECTORS),
    copies=st.integers(1, 60),
)
def test_flags_do_not_depend_on_how_rows_are_cut_into_calls(
    cuts: list[int], seed: int, detector: Detection, copies: int
) -> None:
    rows = natural(200, seed)
    rows[80 : 80 + copies] = rows[80]
    rows[150:] = noise(50, seed)
    whole = detector.start(SHAPE, b"s").observe(rows)
    stream = detector.start(SHAPE, b"s")
    parts = [stream.observe(part) for part in np.split(rows, sorted(cuts))]
    assert (np.concatenate(parts) == whole).all()


@pytest.mark.parametrize("detector", DETECTORS)
def test_memory_does_not_grow(detector: Detection) -> None:
    def held(value: object) -> int:
        if isinstance(value, np.ndarray):
            return value.nbytes
        return sum(held(part) for part in vars(value).values()) if hasattr(value, "__dict__") else 0

    stream = detector.start(SHAPE, b"s")
    before = held(stream)
    for seed in range(5):
        stream.observe(natural(100, seed))
        assert held(stream) == before < 200_000


@pytest.mark.parametrize("keys", [1, 3, 10])
def test_spreading_rows_over_keys_delays_detection_as_much(keys: int) -> None:
    """Copies of one row: `alike` + 1 of them at some key. An exhaustive count says the same."""
    rows = np.repeat(natural(1), 200, 0)
    assert rows_until(PRINTS, rows, keys) == 10 * keys + 1
    mixed = natural(300, 3)
    mixed[60:] = noise(240)
    found = rows_until(FAR, mixed, keys)
    flags = np.zeros(300, bool)
    for key in range(keys):
        flags[key::keys] = FAR.start(SHAPE, b"").observe(mixed[key::keys])
    assert found == (int(np.flatnonzero(flags)[0]) + 1 if flags.any() else None)


def test_few_rows_are_never_flagged() -> None:
    for detector in DETECTORS:
        assert rows_until(detector, natural(0)) is None
        assert rows_until(detector, natural(3), keys=10) is None
    with pytest.raises(ValueError, match="keys=0 must be at least 1"):
        rows_until(PRINTS, natural(3), keys=0)


@pytest.mark.parametrize("shape", [(4,), (1, 2, 2), (3, 8, 8), (1, 8, 6)])
@pytest.mark.parametrize("name", DETECTIONS)
def test_rows_of_any_shape(name: str, shape: tuple[int, ...]) -> None:
    """Also rows of fewer values than a window, with fewer windows than hashes."""
    rows = np.random.default_rng(0).random((1, *shape), dtype=np.float32).repeat(300, 0)
    flagged = DETECTIONS[name]().start(shape, b"s").observe(rows)
    assert flagged.shape == (300,)
    assert flagged.any()
    assert not flagged[:100].any()


@pytest.mark.parametrize(
    ("name", "parameters", "sentence"),
    [
        ("fingerprints", {"step": 0}, "step=0 must be positive"),
        ("fingerprints", {"window": 0}, "window=0 must be a whole number from 1 to 100000"),
        ("fingerprints", {"hashes": 2.5}, "hashes=2.5 must be a whole number"),
        ("fingerprints", {"past": float("nan")}, "past=nan must be a whole number"),
        ("fingerprints", {"threshold": 51}, "threshold=51 must be at most hashes=50"),
        ("fingerprints", {"alike": 2000}, "alike=2000 must be at most past=1000"),
        ("distances", {"delta": 1}, "delta=1 must lie in [0, 1)"),
        ("distances", {"width": -0.1}, "width=-0.1 must lie in [0, 1)"),
        ("distances", {"near": -1}, "near=-1 must not be negative"),
        ("distances", {"memory": 0}, "memory=0 must be a whole number from 1 to 5000"),
        ("distances", {"every": float("inf")}, "every=inf must be a whole number"),
        ("distances", {"least": 300}, "least=300 must be at most recent=200"),
    ],
)
def test_a_bad_parameter_is_refused_in_one_sentence(name: str, parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        DETECTIONS[name](**parameters)
