"""A small campaign through the real processes: server, fenced attacker, scores, report; killed half-way; run twice."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from oracle_server.operator import open_operator
from protos.mirage.v1 import admin_pb2
from referee.campaign import read_plan
from referee.cell import find
from tests.referee.ended import gone

CAMPAIGN = """
title = "A small campaign"
[victims.softmax]
architecture = "softmax_regression"
split = "att40"
[contracts.weights]
access = "weights"
[contracts.full]
access = "scores"
budget = 12_000
[contracts.few]
access = "scores"
budget = 2_000
[contracts.label]
access = "label"
[contracts.watched]
access = "label"
detections = [["fingerprints", "log", [["alike", 1]]]]
[[cells]]
victim = "softmax"
method = "mi_face"
contracts = ["weights"]
targets = "0-4"
parameters = { step = 10.0, max_steps = 40 }
[[cells]]
victim = "softmax"
method = "numeric"
contracts = ["full", "few", "label"]
targets = "0-4"
parameters = { max_steps = 1, step = 500.0 }
[[cells]]
victim = "softmax"
method = "random_draws"
contracts = ["label"]
targets = "0-4"
parameters = { draws = 500 }
[[cells]]
name = "spread"
victim = "softmax"
method = "random_draws"
contracts = ["watched"]
targets = "0-4"
keys = 2
repeats = 3
parameters = { draws = 500 }
"""


def referee(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    (folder / "campaign.toml").write_text(CAMPAIGN)
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "referee", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # even where the tests run in the background
    )


def run(folder: Path, *more: str) -> str:
    process = referee(folder, "run", "campaign.toml", "--out", "out", *more)
    said, _ = process.communicate(timeout=170)
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a")
    return folder, run(folder)


def cells_of(folder: Path):
    return {path.name.partition("+seed")[0]: find(path) for path in (folder / "out/referee/cells").iterdir()}


def test_every_cell_is_scored_refused_or_ends_at_its_budget(undisturbed):
    folder, said = undisturbed
    cells = cells_of(folder)
    assert {name: cell.status for name, cell in cells.items()} == {
        "mi_face+weights": "done",
        "numeric+full": "done",
        "numeric+few": "failed",
        "numeric+label": "refused",
        "random_draws+label": "done",
        "spread+watched": "done",
    }
    assert all(cell.counts_equal for cell in cells.values() if cell.status == "done")
    assert cells["mi_face+weights"].rows_ledger == 0
    assert cells["numeric+full"].rows_ledger == 10_304 + 1 + 5
    assert cells["random_draws+label"].rows_ledger == 500
    assert cells["spread+watched"].rows_ledger == 3 * 500
    assert cells["spread+watched"].flags == {"fingerprints": 2 * 65}  # two keys; each batch of 64 comes again
    assert not any(cell.flags for name, cell in cells.items() if name != "spread+watched")
    assert "budget" in cells["numeric+few"].sentence
    assert "needs scores" in cells["numeric+label"].sentence
    assert cells["mi_face+weights"].confidence[-1].min() > 0.9
    assert cells["numeric+full"].top5[-1].mean() > 0.5 > cells["random_draws+label"].top5[-1].mean()
    assert "report: out/report.html" in said


def test_the_ledger_holds_what_the_report_says_and_no_key_is_left_valid(undisturbed):
    folder, _ = undisturbed
    with open_operator(folder / "out/victim") as operator:
        keys = operator.list_keys(admin_pb2.ListKeysRequest()).keys
    spent: Counter[str] = Counter()
    for key in keys:
        spent[key.label] += key.usage.spent
    assert len(keys) == len(spent) + 1  # one cell has two
    assert all(key.HasField("revoked") for key in keys)
    cells = cells_of(folder)
    assert {name.replace("+", "/"): cell.rows_ledger for name, cell in cells.items()} == dict(spent)
    assert not list((folder / "out/referee/keys").iterdir())


def test_the_attacker_had_no_private_file(undisturbed):
    folder, _ = undisturbed
    allowed = {"attacker.log", "journal.bin", "model.pt2", "reconstructions.npz", "run.json"}
    for place in (folder / "out/attacker").iterdir():
        assert {path.name for path in place.iterdir() if path.is_file()} <= allowed


def test_a_second_run_asks_nothing_and_changes_no_result(undisturbed, tmp_path):
    folder, _ = undisturbed
    shutil.copytree(folder / "out", tmp_path / "out")
    before = (tmp_path / "out/results.parquet").read_bytes()
    said = run(tmp_path, "--no-private-images")
    assert "cell 1 of" not in said
    assert (tmp_path / "out/results.parquet").read_bytes() == before
    assert "data:image" not in (tmp_path / "out/report.html").read_text()
    assert "data:image" in (folder / "out/report.html").read_text()


def started_by(pid: int) -> set[int]:
    """Every process that stems from this one."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(place.parent.name)] = int(place.read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    while new := {child for child, parent in parents.items() if parent in {pid, *found}} - found:
        found |= new
    return found


def interrupt(folder: Path, number: signal.Signals) -> tuple[int, str]:
    """Start the campaign and signal it in the middle of a cell, when its journal grows. The status and what was said,
    after everything that it had started is gone: the server, what forks attackers, and the attacker.
    """
    process = referee(folder, "run", "campaign.toml", "--out", "out")
    (cell,) = (cell for cell in read_plan(folder / "campaign.toml").cells if cell.name == "numeric/full")
    journal = folder / "out/attacker" / cell.attempt / "journal.bin"
    size = 300_000 + (journal.stat().st_size if journal.exists() else 0)
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size > size):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    server = json.loads((folder / "out/victim/server.json").read_text())["pid"]
    started = started_by(process.pid)
    assert server in started
    assert len(started) >= 3
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert [pid for pid in started if not gone(pid)] == []
    return process.returncode, said


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("b")
    return folder, interrupt(folder, signal.SIGKILL)


def test_a_run_that_is_killed_takes_everything_with_it(killed):
    _, (status, _) = killed
    assert status == -signal.SIGKILL


@pytest.fixture(scope="module")
def interrupted(killed):
    folder, _ = killed
    return folder, interrupt(folder, signal.SIGTERM)  # heard as Ctrl-C is


def test_a_run_that_is_interrupted_goes_on_where_it_was_killed_and_ends_in_order(interrupted):
    _, (status, said) = interrupted
    assert status == 1
    assert "run it again to go on" in said
    assert "cell 1 of 5" in said


def test_after_all_that_the_results_are_the_same(undisturbed, interrupted):
    folder, _ = interrupted
    assert "cell 1 of 5" in run(folder)  # the finished one is not run again
    places = undisturbed[0], folder
    first, second = (pq.read_table(place / "out/results.parquet").to_pylist() for place in places)
    assert first == second
    assert all(cell.counts_equal for cell in cells_of(folder).values() if cell.status == "done")
    figures = [json.loads((place / "out/summary.json").read_text())["figures"] for place in places]
    assert figures[0] == figures[1]
