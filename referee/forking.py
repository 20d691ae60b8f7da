"""Attackers as processes that are forked from one which has imported them; see `referee/fence.py` for the other end."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Forked", "Forker", "forker"]

_FENCE = Path(__file__).with_name("fence.py")
_POLL_SECONDS = 0.02


class Forker:
    """The process that has imported `module` and forks. It ends, and what it forked with it, when this process does."""

    def __init__(self, module: str, environment: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(_FENCE), "--orders", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C is for whoever runs the campaign
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def order(self, **order: Any) -> dict[str, Any]:
        """One order and its answer; `ChildProcessError` when the process is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise ChildProcessError("the process that starts attackers has ended: run again")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it, and with it what it forked."""
        self._process.communicate()

    def start(
        self, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path, own_errors: bool
    ) -> Forked:
        """`python fence.py ARGUMENTS` in `folder`; what it says goes to `log`, its errors elsewhere if `own_errors`."""
        words = {"arguments": list(arguments), "log": str(log.resolve()), "folder": str(folder.resolve())}
        return Forked(self, self.order(**words, environment=dict(environment), own_errors=own_errors)["pid"])


class Forked:
    """A forked process, with as much of `subprocess.Popen` as is needed to await and to end it; `refused` is what the
    fence refused it, in words, once it has ended.
    """

    def __init__(self, forker: Forker, pid: int) -> None:
        self._forker, self.pid = forker, pid
        self.returncode: int | None = None
        self.refused: list[str] = []

    def poll(self) -> int | None:
        if self.returncode is None:
            answer = self._forker.order(poll=self.pid)
            self.returncode, self.refused = answer["status"], answer["refused"]
        return self.returncode

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(_POLL_SECONDS)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


_STARTING = threading.Lock()
_STARTED: dict[tuple[str, tuple[tuple[str, str], ...]], Forker] = {}


def forker(module: str, environment: Mapping[str, str]) -> Forker:
    """The one that forks for `module` in this environment: started when it is first needed, or again if it was ended,
    and closed when Python ends.
    """
    made_of = module, tuple(sorted(environment.items()))
    with _STARTING:
        found = _STARTED.get(made_of)
        if found is not None and found.alive:
            return found
        if found is not None:
            atexit.unregister(found.close)
            found.close()
        started = _STARTED[made_of] = Forker(module, environment)
        atexit.register(started.close)
        return started
