"""The fuzzing benchmark counts its inputs, and finds a bug that was planted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.common import Rig

pytest.importorskip("atheris")

# A codec that believes the header, under the guided search.
PLANTED = """
import runpy, sys
import atheris
import numpy as np
with atheris.instrument_imports(include=["protos", "oracle_server"], enable_loader_override=False):
    import oracle_server.inputs as inputs
def trusting(tensor, data):
    shape = tuple(tensor.shape)
    return np.frombuffer(data, np.float32, count=int(np.prod(shape))).reshape(shape)
inputs.decode = trusting
runpy.run_module("benchmarks.fuzz_target", run_name="__main__")
"""


def test_inputs_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "_SHARES", {"codec": 1.0})
    figures = {figure.name: figure for figure in fuzz.measure(Rig(tmp_path), inputs=700)}
    assert {name: figure.value for name, figure in figures.items()} == {
        "hostile/fuzz_inputs": 700,
        "hostile/crashes": 0,
        "hostile/undocumented_statuses": 0,
        "hostile/fuzz_inputs/crashes": 0,
        "hostile/fuzz_inputs/undocumented_statuses": 0,
    }
    assert all(figure.passed for figure in figures.values())
    words = figures["hostile/fuzz_inputs"].extra["words"]
    assert sum(words.values()) == 700
    assert {"ANSWERED", "BAD_INPUT", "MALFORMED"} <= set(words)


def test_a_planted_bug_is_found(tmp_path: Path, repository_root: Path) -> None:
    command = [sys.executable, "-c", PLANTED, "codec", "1500", str(tmp_path)]
    done = subprocess.run(command, cwd=repository_root, capture_output=True, text=True, check=False)
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts["inputs"] == 1500, done.stderr
    assert counts["raised"]["ValueError"] > 10
    assert list(tmp_path.glob("kept-*"))
