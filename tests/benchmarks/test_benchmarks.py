"""`make bench` runs from end to end on small images, and its statistics are right. No timing is asserted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from referee.report.summary import read

ROOT = Path(__file__).parents[2]
RATIOS = {
    "bench/ledger/on_over_off": ">= 0.95",
    "bench/response_defence/on_over_off": ">= 0.95",
    "bench/server/batch64_over_in_process": ">= 0.9",
    "bench/server/softmax_batch64_over_in_process": None,
    "bench/attacks/mi_face/batch40_over_batch1": None,
    "bench/attacks/numeric/wire_over_in_process": None,
}
LATENCIES = ("bench/server/cnn_one_row", "bench/server/softmax_one_row")


def test_a_quick_run_measures_every_figure(tmp_path: Path) -> None:
    out, work = tmp_path / "results", tmp_path / "work"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--seconds", "0.01"]
    done = subprocess.run(
        [*command, "--out", str(out), "--work", str(work)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = read(out / "summary.json")
    assert set(figures) == {*RATIOS, *LATENCIES}
    for name, figure in figures.items():
        assert name in done.stdout
        assert 0 < figure["low"] <= figure["value"] <= figure["high"], figure
        assert figure.get("bound") == RATIOS.get(name)
        assert figure["rounds"] == 1
    assert not work.exists(), "the folder of keys and journals is taken away"


def test_readings_alternate_and_the_first_round_only_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.readings import paired

    order: list[str] = []
    speeds = {"A": iter([1000.0, 2.0, 4.0, 9.0]), "B": iter([1.0, 2.0, 2.0, 3.0])}

    def reading(name: str) -> float:
        order.append(name)
        return next(speeds[name])

    figure = paired("bench/x", lambda: reading("A"), lambda: reading("B"), 3, "rows/s")
    assert "".join(order) == "AB" * 4
    assert (figure.value, figure.low, figure.high) == (2, 1, 3)
    assert (figure.extra["first"], figure.extra["second"]) == (4, 2)


@pytest.mark.parametrize(("rounds", "least"), [(9, 0.95), (11, 0.95), (25, 0.95)])
def test_the_interval_covers_the_median_as_often_as_it_says(
    rounds: int, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.readings import middle

    rng, trials = np.random.default_rng(0), 4000
    draws = rng.lognormal(size=(trials, rounds)).tolist()  # skewed; its median is 1
    covered = sum(low <= 1 <= high for _, low, high in map(middle, draws)) / trials
    tighter = sum(sorted(row)[rounds // 2 - 1] <= 1 <= sorted(row)[rounds // 2 + 1] for row in draws) / trials
    assert covered >= least - 0.01
    assert tighter < least - 0.01, "the negative control: the two neighbours of the median are no such interval"
