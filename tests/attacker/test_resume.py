"""A run that is stopped or killed, with its server or without, ends with the same result and the same count.

Runs of every method are killed at random moments in `test_kills.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.attacker.conftest import Make
from tests.fixtures import Start
from tests.serving import Caller, Forker, Process, Server, inputs


def test_killed_again_and_again_with_its_server(start: Start, attack: Make) -> None:
    """Attacker and server take turns in dying; noise on the answers would show a second draw."""
    server = start()
    contract = {"defences": (("gaussian_noise", (("sigma", 0.1),)),), "budget": 4000}
    disturbed = attack("random_draws", at=server, **contract)
    disturbed.kill_at(20_000)
    for size in (40_000, 60_000, 80_000, 100_000):
        port = server.port
        process = disturbed.start()
        disturbed.wait_for(size, process)
        server.kill()
        server.start(port)
        process.kill()
    status, said = disturbed.finish()
    assert status == 0, said
    assert disturbed.rows == disturbed.caller.usage().spent == 3000
    first, finished = disturbed.result, disturbed.out / "run.json"
    finished.unlink()  # once more from the journal alone
    (disturbed.out / "reconstructions.npz").unlink()
    assert disturbed.finish()[0] == 0
    assert disturbed.result == first
    assert disturbed.rows == disturbed.caller.usage().spent == 3000


def test_asking_that_is_killed_goes_on(server: Server, forker: Forker, tmp_path: Path) -> None:
    """`attacker ask`: every image is charged once, and the answers are those of one that nobody disturbed."""
    np.save(tmp_path / "images.npy", inputs(3000))

    def start(name: str, caller: Caller) -> Process:
        words = ["ask", tmp_path / "images.npy", "--address", server.address, "--out", tmp_path / name]
        log = tmp_path / f"{name}.log"
        return forker.start("attacker", words, log=log, folder=tmp_path, environment={"MIRAGE_KEY": caller.key})

    one, two = server.new_key(), server.new_key()
    assert start("one", one).wait() == 0
    journal = tmp_path / "two" / "journal.bin"
    for size in (10_000, 60_000):
        process = start("two", two)
        while not (journal.exists() and journal.stat().st_size > size):
            assert process.poll() is None, process.log
        assert process.kill() == -signal.SIGKILL
    assert start("two", two).wait() == 0
    assert (tmp_path / "two" / "answers.npz").read_bytes() == (tmp_path / "one" / "answers.npz").read_bytes()
    assert one.usage().spent == two.usage().spent == 3000


def test_stopped_from_the_keyboard(attack: Make) -> None:
    stopped = attack("random_draws", rate=1500.0)
    process = stopped.kill_at(30_000, signal.SIGINT)
    assert process.status == 1
    assert process.log == f"Error: stopped; the same command resumes the run in {stopped.out}\n"
    assert stopped.finish()[0] == 0
    assert stopped.rows == stopped.caller.usage().spent == 3000


def test_the_real_command_killed(attack: Make) -> None:
    """`python -m attacker`, started as a user would, with its progress bar."""
    undisturbed, disturbed = attack("random_draws", name="one"), attack("random_draws", name="two", rate=1500.0)
    assert undisturbed.finish()[0] == 0
    words = ["run", *disturbed.words, "--address", disturbed.caller.server.address, "--out", str(disturbed.out)]
    command = [sys.executable, "-W", "error", "-m", "attacker", *words]
    environment = os.environ | {"MIRAGE_KEY": disturbed.caller.key}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while disturbed.journaled < 20_000:
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)
        process.kill()
        process.communicate()
    assert 0 < disturbed.caller.usage().spent < 3000
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "3,000" in done.stdout
    assert disturbed.result == undisturbed.result
    assert disturbed.rows == disturbed.caller.usage().spent == 3000


def test_a_finished_run_is_not_run_again(attack: Make) -> None:
    finished = attack("numeric")
    assert finished.finish()[0] == 0
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in finished.out.iterdir()}
    spent, lines = finished.caller.usage().spent, finished.caller.server.books().lines
    status, said = finished.finish()
    assert status == 0
    assert f"{spent:,}" in said
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in finished.out.iterdir()} == before
    assert (finished.caller.usage().spent, finished.caller.server.books().lines) == (spent, lines)


def test_the_same_seed_gives_the_same_file(attack: Make) -> None:
    """And another seed another one: so equal files say something."""
    one, two = attack("random_draws", name="one"), attack("random_draws", name="two")
    other = attack("random_draws", "--seed", "5", name="other")
    for run in (one, two, other):
        assert run.finish()[0] == 0
    assert one.result == two.result != other.result
