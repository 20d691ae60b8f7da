"""`python -m benchmarks.in_process`: models without a server, called with rows that lie ready as a tensor.

An `InProcess` is such a process. The server's settings of the allocator are those of a whole process: forms run in one
that has them, and eager is the archive in one that knows nothing of servers.
"""

from __future__ import annotations

import json
import sys
import time
from functools import cache
from pathlib import Path

import torch

from benchmarks.callers import noise
from benchmarks.worker import Run, Worker
from oracle_server.memory import keep_freed_memory
from oracle_server.models.forms import Form, Pass, make
from protos import archive

__all__ = ["InProcess"]


class InProcess(Worker):
    """A process with the server's settings, or without."""

    def __init__(self, settings: bool) -> None:
        super().__init__("benchmarks.in_process", settings)

    def run(self, path: Path, form: str, rows: int, shape: tuple[int, ...], seconds: float) -> Run:
        """About so many seconds of calls of the archive at `path` in a form of the server's, one after the other."""
        order = {"path": str(path), "form": form, "shape": (rows, *shape), "seconds": seconds}
        return Run(**self._tell(order), rows=rows)

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@cache
def _made(path: str, form: str) -> Pass:
    return make(Form(form), archive.load(Path(path)))


def _main() -> None:
    torch.set_num_threads(1)
    if json.loads(sys.stdin.readline()):
        keep_freed_memory()
    print("null", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        forward, rows, times = _made(order["path"], order["form"]), torch.from_numpy(noise(order["shape"])), []
        with torch.inference_mode():
            forward(rows)
            begin = end = time.perf_counter()
            while not times or end < begin + order["seconds"]:
                start = end
                forward(rows)
                end = time.perf_counter()
                times.append(1000 * (end - start))
        print(json.dumps({"requests": len(times), "seconds": end - begin, "milliseconds": times}), flush=True)


if __name__ == "__main__":
    _main()
