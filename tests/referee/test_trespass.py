"""What becomes of a cell and of an experiment whose attacker tried what the fence refuses: void, and it says what."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

from oracle_server.threat_model import Access, Contract
from referee import attributes, cell_run
from referee.attributes import find_result, run_experiment
from referee.campaign import read_plan
from referee.cell import load, save
from referee.processes import Trespass
from referee.report import tables
from referee.results import Results
from tests.referee.tiny_experiment import tiny_experiment

SAID = "the attacker tried what the fence refuses: open of /v/ledger.db, and 2 more (see a/attacker.log)"


def test_an_experiment_is_void_and_names_the_attempt(tiny, tmp_path_factory, monkeypatch):
    """The file of people, which its attacker reads, is declared private: that is its attempt."""
    out = tmp_path_factory.mktemp("o")  # short, for a socket is in it
    people = out.resolve() / "attacker" / tiny.folder / "people.csv"
    monkeypatch.setattr(attributes, "private_files", lambda experiment: [people])
    result = run_experiment(tiny, out)
    assert result.status == "void"
    assert result.sentence.startswith(f"the attacker tried what the fence refuses: open of {people}")
    assert result.guesses == {}
    assert find_result(tiny, out).status == "void"


def test_a_cell_is_void_names_the_attempt_and_has_no_score(tmp_path, monkeypatch):
    """Whatever came of the run: its files are not even looked at."""
    asked = SimpleNamespace(usage=SimpleNamespace(spent=77, downloads=0), flags=[])
    operator = SimpleNamespace(list_keys=lambda request: SimpleNamespace(keys=[asked]))
    monkeypatch.setattr(cell_run, "hold_key", lambda *_, **__: ("key", "id"))
    monkeypatch.setattr(cell_run, "open_operator", lambda root: _Entered(operator))
    monkeypatch.setattr(cell_run, "capacity_bits", lambda *_: 5.0)
    monkeypatch.setattr(cell_run, "_arguments", lambda *_: [])
    monkeypatch.setattr(cell_run, "run_attacker", _tries)
    judge = SimpleNamespace(split=SimpleNamespace(private=range(4)))
    results: Any = SimpleNamespace(root=tmp_path, denied=[], judge=lambda split: judge)
    results.attacker_folder = lambda planned: tmp_path
    results.repository = SimpleNamespace(card=lambda name: SimpleNamespace(input_shape=(1, 3, 2)))
    planned: Any = SimpleNamespace(name="c/full", method="numeric", described={}, seed=0, given={})
    planned.victim, planned.contract = SimpleNamespace(name="v", split="att40"), Contract(Access.SCORES)
    cell = cell_run._run(results, planned, [tmp_path / "key"], "here", True, Event())
    assert (cell.status, cell.sentence, cell.rows_ledger) == ("void", SAID, 77)
    save(cell, tmp_path / "cell")
    assert load(tmp_path / "cell").status == "void"


class _Entered:
    def __init__(self, value: Any) -> None:
        self._value = value

    def __enter__(self) -> Any:
        return self._value

    def __exit__(self, *_: object) -> None:
        pass


def _tries(*_: object, **__: object) -> None:
    raise Trespass(["open of /v/ledger.db", "os.fork", "os.fork"], Path("a/attacker.log"))


def test_one_attempt_makes_a_row_void_in_the_report(make_cell, make_refused, campaign):
    cells = [make_cell(seed=0), make_refused(status="void", sentence=SAID, seed=1, **_same_as(make_cell()))]
    row = next(row for row in tables.build(cells, campaign) if row.method.startswith("numeric"))
    assert (row.status, row.sentence, row.top1) == ("void", SAID, None)
    assert SAID in tables.markdown([row])


def _same_as(cell: Any) -> dict[str, Any]:
    return {key: getattr(cell, key) for key in ("name", "contract", "parameters")}


def test_other_attackers_and_pictures_are_denied(tmp_path):
    tiny_experiment(tmp_path)
    results = Results(read_plan(tmp_path / "c.toml"), tmp_path, "cpu")
    denied = {path.relative_to(tmp_path).as_posix() for path in results.denied}
    assert denied == {"victim", "referee", "attacker", "lineups", "report.html", "results.parquet"}
