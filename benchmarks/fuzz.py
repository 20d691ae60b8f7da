"""A million inputs for what takes bytes from strangers: the codec, the archive check, a whole Predict or ModelInfer.

Each target of `tests.fuzz` runs in a process of its own under atheris, from the kept inputs on, guided by the coverage
of `protos` and `oracle_server`. A process that dies, or runs out of memory or time on an input, is a crash.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import click

from benchmarks.common import Rig
from referee.report.summary import Figure
from tests.fuzz.targets import DOCUMENTED

__all__ = ["measure"]

# The share of each target; what the codec takes is done in a tenth of the time of an archive.
_SHARES = {"codec": 0.55, "predict": 0.20, "infer": 0.15, "archive": 0.10}
_SECONDS = 1800.0  # for one target, on a machine that is slow


def measure(rig: Rig, inputs: int = 1_000_000) -> list[Figure]:
    """How many inputs were tried; how many crashed, and how many got an answer that nobody has promised, out of all."""
    if importlib.util.find_spec("atheris") is None:
        raise click.ClickException("fuzzing needs atheris, on CPython 3.11 to 3.13: pip install 'mirage-range[fuzz]'")
    words, raised, tried, died = Counter[str](), Counter[str](), Counter[str](), 0
    for name, share in _SHARES.items():
        status, counts = _run(name, max(1, round(share * inputs)), rig.folder / "fuzz" / name)
        tried[name] = counts["inputs"]
        words.update(counts["words"])
        raised.update(counts["raised"])
        died += status != 0
    crashes = raised.total() + died
    undocumented = sum(number for word, number in words.items() if word not in DOCUMENTED)
    extra = {"targets": dict(tried), "words": dict(words.most_common()), "raised": dict(raised), "died": died}
    figures = [Figure("hostile/fuzz_inputs", tried.total(), "inputs", at_least=inputs, extra=extra)]
    for group in ("hostile", "hostile/fuzz_inputs"):  # whichever way the table of figures is read
        figures.append(Figure(f"{group}/crashes", crashes, "inputs", at_most=0))
        figures.append(Figure(f"{group}/undocumented_statuses", undocumented, "inputs", at_most=0))
    return figures


def _run(name: str, inputs: int, folder: Path) -> tuple[int, dict[str, dict[str, int]]]:
    """The exit status of a target's process, and the last count that it wrote."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "benchmarks.fuzz_target", name, str(inputs), str(folder)]
    with (folder / "log").open("wb") as log:
        try:
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, stdout=log, stderr=log, env=environment, timeout=_SECONDS, check=False)
            status = done.returncode
        except subprocess.TimeoutExpired:
            status = 1
    path = folder / "counts.json"
    if status:
        print(f"{name} ended with status {status}; the last lines of {folder / 'log'}:")
        print((folder / "log").read_text(errors="replace")[-2000:])
    return status, json.loads(path.read_text()) if path.exists() else {"inputs": 0, "words": {}, "raised": {}}
