"""The buyer's test: its false alarms by simulation, its threshold in closed form, and runs made up on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from referee.inspection import inspect, inspect_command, inspect_runs, read_run


@pytest.mark.parametrize("n", [3, 8])
def test_rate_of_false_alarms(n: int) -> None:
    """Of suspects that are ordinary, a share `level` is flagged, however few ordinary models there are."""
    rng, level, times = np.random.default_rng(0), 0.05, 4000
    errors = np.exp(rng.normal(-3, 0.3, (times, n + 1)))
    alarms = sum(inspect(row[0], row[1:], level).flagged for row in errors)
    low, high = stats.binom.ppf([0.001, 0.999], times, level)
    assert low <= alarms <= high


def test_the_interval_needs_its_width() -> None:
    """Negative control: normal quantiles without the factor for a new draw raise three times as many alarms."""
    rng, level, times = np.random.default_rng(0), 0.05, 4000
    logs = rng.normal(-3, 0.3, (times, 4))
    narrow = logs[:, 1:].mean(1) + stats.norm.ppf(level) * logs[:, 1:].std(1, ddof=1)
    assert (logs[:, 0] < narrow).mean() > 2 * level


def test_closed_form() -> None:
    """Logarithms -1, 0, 1: mean 0, standard deviation 1; t with two degrees has the quantile sqrt(2) u/sqrt(1-u^2)."""
    ordinary, level = np.exp([-1.0, 0.0, 1.0]), 0.05
    u = 2 * level - 1
    quantile = np.sqrt(2) * u / np.sqrt(1 - u * u)
    found = inspect(1.0, ordinary, level)
    assert found.threshold == pytest.approx(np.exp(quantile * np.sqrt(4 / 3)), rel=1e-9)
    assert found.p_value == pytest.approx(0.5)
    assert not found.flagged
    below, above = (inspect(found.threshold * factor, ordinary, level) for factor in (0.999, 1.001))
    assert (below.flagged, above.flagged) == (True, False)
    assert below.p_value < level < above.p_value
    assert "lower than of an ordinary model" in below.sentence
    assert "no lower than may be" in above.sentence
    scaled = inspect(0.01, 0.01 * ordinary, level)
    assert scaled.threshold == pytest.approx(0.01 * found.threshold, rel=1e-9)


def test_a_joint_model_is_flagged_and_a_worse_one_is_not() -> None:
    ordinary = [0.031, 0.030, 0.033, 0.032]
    assert inspect(0.015, ordinary).flagged
    assert not inspect(0.06, ordinary).flagged  # the test has one side


@pytest.mark.parametrize(
    ("suspect", "ordinary", "level", "sentence"),
    [
        (0.1, [0.1, 0.2], 0.01, "2 ordinary models say nothing about their spread: give at least 3"),
        (0.0, [0.1, 0.2, 0.3], 0.01, "must be a number above 0"),
        (0.1, [0.1, float("nan"), 0.3], 0.01, "must be a number above 0"),
        (0.1, [0.2, 0.2, 0.2], 0.01, "are all the same"),
        (0.1, [0.1, 0.2, 0.3], 0.6, "level=0.6 must be between 0 and 0.5"),
    ],
)
def test_bad_errors_get_a_sentence(suspect: float, ordinary: list[float], level: float, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        inspect(suspect, ordinary, level)


def made_up(folder: Path, error: float = 0.03, **changes: Any) -> Path:
    """A run as the attacker writes it; its last epoch is worse than its best."""
    folder.mkdir()
    said = {
        "method": "inversion_network",
        "parameters": {"epochs": 3, "width": 32, "public": f"{folder}/public", "given": None},
        "contract": {"access": "scores", "top_k": None},
        "model": f"{folder.name}/1",
        "archive_sha256": folder.name,
        "public_sha256": "p",
        "seed": 0,
        "ended": "done",
    }
    (folder / "run.json").write_text(json.dumps(said | changes))
    arrays = {"images": np.zeros((1, 2, 1, 4, 4)), "extra_held_out_mse": np.array([0.09, error, 1.2 * error])}
    np.savez(folder / "reconstructions.npz", **arrays)
    return folder


@pytest.fixture
def ordinary(tmp_path: Path) -> list[Path]:
    return [made_up(tmp_path / f"o{n}", 0.03 + 0.001 * n, seed=n) for n in range(4)]


def test_runs_are_compared_by_their_best_epoch(tmp_path: Path, ordinary: list[Path]) -> None:
    found = inspect_runs(made_up(tmp_path / "bought", 0.01), ordinary)
    assert found == inspect(0.01, [0.03, 0.031, 0.032, 0.033])
    assert found.flagged


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"parameters": {"epochs": 4, "width": 32}}, "differs from .* in parameter epochs: attack all models"),
        ({"parameters": {"epochs": 3, "width": 32, "pose": "left"}}, "in parameter pose"),
        ({"contract": {"access": "scores", "top_k": 3}}, "in contract's top_k"),
        ({"public_sha256": "q"}, "in public data"),
        ({"public_sha256": None}, "does not say which public data"),
        ({"method": "mi_face"}, "no run of inversion_network"),
        ({"ended": "budget: spent"}, r"did not reach its end \(budget: spent\)"),
        ({"archive_sha256": "o1"}, "are runs on the same model"),
        ({"contract": None}, "run.json lacks"),
    ],
)
def test_runs_that_cannot_be_compared(
    tmp_path: Path, ordinary: list[Path], changes: dict[str, Any], sentence: str
) -> None:
    odd = made_up(tmp_path / "odd", 0.02, **changes)
    for suspect, others in ((odd, ordinary), (ordinary[0], [*ordinary[2:], odd, ordinary[1]])):
        with pytest.raises(ValueError, match=sentence):
            inspect_runs(suspect, others)


def test_damaged_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no finished run \(run.json is missing\)"):
        read_run(tmp_path)
    run = made_up(tmp_path / "run")
    np.savez(run / "reconstructions.npz", images=np.zeros(3))
    with pytest.raises(ValueError, match="has no held-out errors"):
        read_run(run)
    (run / "reconstructions.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="cannot be read"):
        read_run(run)


def test_command(tmp_path: Path, ordinary: list[Path]) -> None:
    def said(error: float, name: str, runs: list[Path]) -> tuple[int, str]:
        words = [str(made_up(tmp_path / name, error)), *(word for run in runs for word in ("--ordinary", str(run)))]
        done = CliRunner().invoke(inspect_command, words)
        return done.exit_code, done.output

    status, words = said(0.01, "joint", ordinary)
    assert status == 0
    assert "Do not deploy it" in words
    status, words = said(0.0305, "sound", ordinary)
    assert status == 0
    assert "Do not deploy it" not in words
    status, words = said(0.01, "few", ordinary[:2])
    assert status == 1
    assert words == "Error: 2 ordinary models say nothing about their spread: give at least 3\n"
