"""Many runs from one file: each as a run of its own, finished ones skipped, one sentence for a line that is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attacker.batch import read_batch
from tests.attacker.conftest import Make
from tests.serving import Forker, Server


def lines(folder: Path, *runs: dict[str, Any] | str) -> Path:
    path = folder / "runs.jsonl"
    path.touch(0o600)  # the keys of others are in it
    path.write_text("".join((run if isinstance(run, str) else json.dumps(run)) + "\n" for run in runs))
    return path


def batch(forker: Forker, server: Server, file: Path, out: Path) -> tuple[int, str]:
    words = ["batch", file, "--address", server.address, "--out", out, "--quiet"]
    log = out.with_suffix(".log")
    log.unlink(missing_ok=True)
    process = forker.start("attacker", words, log=log, folder=file.parent, environment={"COLUMNS": "300"})
    return process.wait(), process.log


def test_runs_are_those_of_the_single_command(server: Server, forker: Forker, attack: Make, tmp_path: Path) -> None:
    alone = attack("random_draws", "--set", "draws=1200", name="alone")
    assert alone.finish()[0] == 0
    keys = [server.new_key(), server.new_key(budget=600)]
    runs = [
        {"key": key.key, "name": f"n{n}", "method": "random_draws", "set": ["draws=1200"], "seed": 4}
        for n, key in enumerate(keys)
    ]
    file = lines(tmp_path, *runs)
    status, said = batch(forker, server, file, tmp_path / "out")
    assert status == 0, said
    assert said == f"2 runs are finished in {tmp_path / 'out'}\n"
    first, second = (json.loads((tmp_path / "out" / f"n{n}" / "run.json").read_text()) for n in range(2))
    assert (first["rows"], first["ended"]) == (alone.rows, "done")
    assert second["ended"].startswith("budget")
    spent = [key.usage().spent for key in keys]
    assert spent == [first["rows"], second["rows"]]
    before = (tmp_path / "out" / "n0" / "run.json").stat().st_mtime_ns
    assert batch(forker, server, file, tmp_path / "out")[0] == 0
    assert [key.usage().spent for key in keys] == spent
    assert (tmp_path / "out" / "n0" / "run.json").stat().st_mtime_ns == before


def test_a_refusal_ends_it_with_its_own_status(server: Server, forker: Forker, tmp_path: Path) -> None:
    key = server.new_key("label")
    status, said = batch(
        forker, server, lines(tmp_path, {"key": key.key, "name": "a", "method": "mi_face"}), tmp_path / "out"
    )
    assert status == 3
    assert said.startswith("Refused: mi_face needs the weights")
    assert key.usage().spent == 0


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 2 is no run"),
        ("[]", "line 2 is no run"),
        ('{"key": "k", "name": "b"}', "line 2 is no run"),
        ('{"key": "k", "name": "b", "method": "m", "colour": 1}', "line 2 is no run"),
        ('{"key": "k", "name": "../b", "method": "m"}', "line 2: '../b' is no name of a folder"),
        ('{"key": "k", "name": "a", "method": "m"}', "two runs are called a"),
    ],
)
def test_lines_that_are_no_runs(tmp_path: Path, line: str, sentence: str) -> None:
    good = {"key": "k", "name": "a", "method": "m", "given": "people.csv"}
    assert read_batch(lines(tmp_path, good))[0].given == Path("people.csv")
    with pytest.raises(ValueError, match=sentence):
        read_batch(lines(tmp_path, good, line))
