"""`attacker run` as a process, to be started, killed and started again."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.attacker.latent_cases import save_affine
from tests.serving import Caller, Forker, Process, Server

__all__ = ["RUNS", "Attack", "Make", "attack"]

# Long enough to be killed in the middle: 47 requests at least, and four or two for each step of the others.
RUNS = {
    "random_draws": ("random_draws", "--set", "draws=3000", "--seed", "4"),
    "numeric": ("numeric", "--targets", "0,3", "--set", "max_steps=12", "--set", "confidence=1.1"),
    "brep_mi": ("brep_mi", "--set", "rows=300", "--set", "radius=0.5", "--seed", "4"),
}
IN_A_PRIOR = {"brep_mi"}


@dataclass
class Attack:
    """The same command again and again: a method, a key, and the folder of its run."""

    forker: Forker
    caller: Caller
    words: tuple[str, ...]
    out: Path

    def start(self, *more: object, **environment: str) -> Process:
        words = ["run", *self.words, "--address", self.caller.server.address, "--out", self.out, "--quiet", *more]
        environment = {"MIRAGE_KEY": self.caller.key, "COLUMNS": "300"} | environment
        log = self.out.with_suffix(".log")
        log.unlink(missing_ok=True)
        return self.forker.start("attacker", words, log=log, folder=self.out.parent, environment=environment)

    def finish(self, *more: object, **environment: str) -> tuple[int, str]:
        """Exit status and what was printed."""
        process = self.start(*more, **environment)
        return process.wait(), process.log

    def kill_at(self, size: int, number: signal.Signals = signal.SIGKILL) -> Process:
        """Start it, and kill it as soon as its journal has this many bytes."""
        process = self.start()
        self.wait_for(size, process)
        process.kill(number)
        return process

    def wait_for(self, size: int, process: Process) -> None:
        """Wait until the journal has this many bytes, or the process is over."""
        while self.journaled < size and process.poll() is None:
            time.sleep(0.0005)

    @property
    def journaled(self) -> int:
        """Bytes of the journal."""
        journal = self.out / "journal.bin"
        return journal.stat().st_size if journal.exists() else 0

    @property
    def rows(self) -> int:
        """By the attacker's own count."""
        return int(json.loads((self.out / "run.json").read_text())["rows"])

    @property
    def result(self) -> bytes:
        return (self.out / "reconstructions.npz").read_bytes()


Make = Callable[..., Attack]


@pytest.fixture
def attack(server: Server, forker: Forker, tmp_path: Path) -> Make:
    """`attack("numeric", access="scores", ...)` with a key of its own for that contract."""

    def make(method: str, *words: str, name: str = "run", at: Server | None = None, **contract: object) -> Attack:
        chosen = (*RUNS.get(method, (method,)), *words)
        if method in IN_A_PRIOR:
            if not (prior := tmp_path / "prior").exists():
                axes = 0.2 * np.random.default_rng(0).normal(size=(6, 48))
                save_affine(prior, axes, 0.5, shape=(1, 8, 6), low=0.0, high=1.0)
            chosen = (*chosen, "--prior", str(prior))
        return Attack(forker, (at or server).new_key(**contract), chosen, tmp_path / name)

    return make
