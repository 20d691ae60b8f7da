"""A part of a measure in a process of its own, which does nothing between its runs, and what a run comes to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from statistics import median
from typing import Any

__all__ = ["Run", "Worker"]


@dataclass(frozen=True)
class Run:
    """What came of `seconds` of asking: `requests` answered, one that lies partly in that time by its part, each of so
    many `rows`, and the milliseconds that each took.
    """

    requests: float
    seconds: float
    rows: int
    milliseconds: tuple[float, ...]

    @property
    def rows_a_second(self) -> float:
        return self.requests * self.rows / self.seconds

    @property
    def median_ms(self) -> float:
        return median(self.milliseconds)


class Worker:
    """`python -m MODULE`, which reads lines of JSON and answers each with one: first what it is for, then its orders.
    `RuntimeError` when it ends before it is left.
    """

    def __init__(self, module: str, purpose: object) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            text=True,
        )
        self._tell(purpose)

    def _tell(self, line: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.close()
            raise RuntimeError(f"{self._module} ended: what it printed says why")
        return json.loads(answer)

    def close(self) -> None:
        """End its input, and with that the process."""
        self._process.communicate()
