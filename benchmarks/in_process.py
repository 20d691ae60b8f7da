"""`python -m benchmarks.in_process`: models without a server, called with rows that lie ready as a tensor.

An `InProcess` is such a process, so that no leftovers of a client or of a server's start are beside what is measured.
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
from oracle_server.models.forms import Form, Pass, make
from protos import archive

__all__ = ["AS_TORCH_HAS_IT", "InProcess"]

AS_TORCH_HAS_IT = "as torch has it"


class InProcess(Worker):
    """A process that calls models of archives."""

    def __init__(self) -> None:
        super().__init__("benchmarks.in_process", None)

    def run(self, path: Path, form: str, rows: int, shape: tuple[int, ...], seconds: float) -> Run:
        """About so many seconds of calls of the archive at `path`, one after the other, in a form of the server's, or
        as `AS_TORCH_HAS_IT`: eager, in the layout in which its maker's module computes.
        """
        order = {"path": str(path), "form": form, "shape": (rows, *shape), "seconds": seconds}
        return Run(**self._tell(order), rows=rows)

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@cache
def _made(path: str, form: str) -> Pass:
    loaded = archive.load(Path(path))  # which puts weights into the layout that convolutions like
    if form == AS_TORCH_HAS_IT:
        return loaded.to(memory_format=torch.contiguous_format)
    return make(Form(form), loaded)


def _main() -> None:
    torch.set_num_threads(1)
    print(sys.stdin.readline(), end="", flush=True)
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
