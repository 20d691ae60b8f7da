"""`make bench` runs from end to end on small images, and its statistics are right. No timing is asserted."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.readings import middle, paired
from oracle_server.models.forms import Form
from referee.report.summary import Figure, read, write

ROOT = Path(__file__).parents[2]
RATIOS = {
    "bench/cnn/batch64_over_in_process": ">= 0.95",
    "bench/cnn/32_callers_over_in_process32": ">= 0.9",
    "bench/cnn/32_callers_over_eager": ">= 1.9",
    "bench/cnn/one_caller_over_in_process": ">= 0.8",
    "bench/resnet18/batch64_over_in_process": ">= 0.95",
    "bench/resnet18/32_callers_over_in_process32": ">= 0.85",
    "bench/resnet18/32_callers_over_eager": None,
    "bench/resnet18/one_caller_over_in_process": None,
    "bench/softmax/batch64_over_in_process": None,
    "bench/softmax/32_callers_over_in_process32": None,
    "bench/softmax/32_callers_over_eager": None,
    "bench/softmax/one_caller_over_in_process": None,
    "bench/ledger/on_over_off": ">= 0.95",
    "bench/ledger/softmax/on_over_off": None,
    "bench/ledger/cnn/on_over_off": None,
    "bench/payload/uint8_over_float32": ">= 1.6",
    "bench/response_defence/on_over_off": ">= 0.95",
    "bench/attacks/mi_face/wire_over_in_process": "<= 1.3",
    "bench/attacks/mi_face/together_over_one_by_one": None,
    "bench/attacks/numeric/wire_over_in_process": "<= 1.3",
    "bench/attacks/map_inversion/wire_over_in_process": None,
    "bench/attacks/map_inversion/together_over_one_by_one": None,
}
ADDED = {
    "bench/cnn/one_caller_added_median_ms": None,
    "bench/resnet18/one_caller_added_median_ms": None,
    "bench/softmax/one_caller_added_median_ms": None,
    "bench/ledger/added_median_ms": "<= 0.3",
    "bench/ledger/softmax/added_median_ms": None,
    "bench/ledger/cnn/added_median_ms": None,
}


SERIES = {
    "faults/server_kills", "faults/server_kills/violations", "faults/violations", "faults/restart_seconds",
    "ledger/state_machine_examples", "ledger/state_machine_examples/broken_caught",
    "faults/attacker_kills/random_draws", "faults/attacker_kills/random_draws/unequal",
    "faults/attacker_kills/unequal", "hostile/honest_share", "hostile/memory_growth",
    "bench/growth/connections", "bench/growth/keys", "bench/growth/rows", "bench/growth/memory",
}  # fmt: skip


def run_quickly(*names: str, out: Path, work: Path, seconds: float = 0.01) -> subprocess.CompletedProcess[str]:
    """The benchmarks of these names, as short as they can be."""
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--seconds", str(seconds)]
    done = subprocess.run(
        [*command, "--out", str(out), "--work", str(work), *(f"--only={name}" for name in names)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def longest_work() -> Iterator[Path]:
    """A folder to work in, whose longest socket's path has as many bytes as it may have."""
    with tempfile.TemporaryDirectory(prefix="mb", dir="/tmp") as name:
        folder = Path(name).resolve()
        shortest = folder / "w" / "growth" / "together" / "admin.sock"
        yield folder / ("w" * (101 - len(os.fsencode(shortest))))


@pytest.mark.slow
def test_the_long_series_run_and_leave_other_figures_as_they_are(tmp_path: Path, longest_work: Path) -> None:
    out, work = tmp_path / "results", longest_work
    write([Figure("bench/of/before", 3.0), Figure("faults/server_kills", 7, "kills")], out / "summary.json")
    done = run_quickly("faults", "attacker_kills", "hostile", "growth", out=out, work=work, seconds=0.1)
    figures = read(out / "summary.json")
    assert {*SERIES, "bench/of/before"} <= set(figures)
    assert all(name in done.stdout for name in SERIES)
    assert figures["bench/of/before"]["value"] == 3.0
    assert figures["faults/server_kills"]["value"] == 2
    for name in ("faults/server_kills/violations", "faults/attacker_kills/random_draws/unequal"):
        assert figures[name]["passed"], figures[name]
    assert not work.exists()


def test_a_folder_whose_sockets_would_have_too_long_a_path_is_refused_at_once(longest_work: Path) -> None:
    work = longest_work.with_name(longest_work.name + "w")
    outcome = CliRunner().invoke(main, ["--only", "growth", "--quick", "--work", str(work)])
    assert outcome.exit_code == 2
    assert f"--work {work} is too long for the sockets in it: choose a shorter one" in outcome.output
    assert not work.exists()


def test_a_quick_run_measures_every_figure(tmp_path: Path, longest_work: Path) -> None:
    out, work = tmp_path / "results", longest_work
    done = run_quickly("speed", "ledger", "payload", "response_defence", "attacks", out=out, work=work)
    figures = read(out / "summary.json")
    assert set(figures) == {*RATIOS, *ADDED}
    for name, figure in figures.items():
        assert name in done.stdout
        assert figure["low"] <= figure["value"] <= figure["high"], figure
        assert figure["value"] > 0 or name in ADDED, figure
        assert figure.get("bound") == (RATIOS | ADDED)[name]
        assert figure["rounds"] == 1
    for model in ("cnn", "resnet18", "softmax"):
        assert figures[f"bench/{model}/batch64_over_in_process"]["form"] in set(Form)
    for name, worse in (("on_over_off", min), ("added_median_ms", max)):
        of_both = [figures[f"bench/ledger/{model}/{name}"]["value"] for model in ("softmax", "cnn")]
        assert figures[f"bench/ledger/{name}"]["value"] == worse(of_both)
    assert not work.exists(), "the folder of keys and journals is taken away"


def test_readings_alternate_and_the_first_round_only_warms_up() -> None:
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
def test_the_interval_covers_the_median_as_often_as_it_says(rounds: int, least: float) -> None:
    rng, trials = np.random.default_rng(0), 4000
    draws = rng.lognormal(size=(trials, rounds)).tolist()  # skewed; its median is 1
    covered = sum(low <= 1 <= high for _, low, high in map(middle, draws)) / trials
    tighter = sum(sorted(row)[rounds // 2 - 1] <= 1 <= sorted(row)[rounds // 2 + 1] for row in draws) / trials
    assert covered >= least - 0.01
    assert tighter < least - 0.01, "the negative control: the two neighbours of the median are no such interval"
