"""`attacker run` as a process, to be started, killed and started again."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.serving import Caller, Forker, Process

__all__ = ["Attack"]


@dataclass
class Attack:
    """The same command again and again: a method, a key, and the folder of its run."""

    forker: Forker
    caller: Caller
    words: tuple[str, ...]
    out: Path

    def start(self, *more: object, before: str = "", **environment: str) -> Process:
        words = ["run", *self.words, "--address", self.caller.server.address, "--out", self.out, "--quiet", *more]
        environment = {"MIRAGE_KEY": self.caller.key, "COLUMNS": "300"} | environment
        self.out.parent.mkdir(parents=True, exist_ok=True)
        log = self.out.with_suffix(".log")
        log.unlink(missing_ok=True)
        places = {"log": log, "folder": self.out.parent}
        return self.forker.start("attacker", words, **places, environment=environment, before=before)

    def finish(self, *more: object, before: str = "", **environment: str) -> tuple[int, str]:
        """Exit status and what was printed."""
        process = self.start(*more, before=before, **environment)
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
    def epochs(self) -> int:
        """Of a training, those that have ended."""
        with contextlib.suppress(FileNotFoundError):
            return len(json.loads((self.out / "training.json").read_text())["seconds"])
        return 0

    @property
    def writes(self) -> bool:
        """Whether it has begun to write its result."""
        return any((self.out / f"reconstructions{part}.npz").exists() for part in ("", ".part"))

    @property
    def said(self) -> dict[str, Any]:
        """run.json without its time."""
        told: dict[str, Any] = json.loads((self.out / "run.json").read_text())
        return {name: value for name, value in told.items() if name != "seconds"}

    @property
    def rows(self) -> int:
        """By the attacker's own count."""
        return int(self.said["rows"])

    @property
    def result(self) -> bytes:
        return (self.out / "reconstructions.npz").read_bytes()
