"""Figures of detectors: what counts as noticed, by which attacks, and that honest traffic is really counted."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from oracle_server.threat_model import Access, Contract
from referee.figures import defences_detection
from referee.figures.defences_detection import detection_sections, noticed


def pair(label: str, flags: dict[str, int], asked: int = 5_000, seed: int = 0, **plan: Any) -> tuple[Any, Any]:
    known = {"method": label, "keys": 1, "repeats": 1, "seed": seed, "victim": SimpleNamespace(name="v")} | plan
    cell = SimpleNamespace(name=f"{label}@v/watched", flags=flags, rows_ledger=asked)
    return SimpleNamespace(**known), cell


def only(*pairs: tuple[Any, Any]) -> Any:
    (figure,) = noticed(pairs)
    return figure


def test_the_first_detector_counts_and_of_several_cells_the_slowest():
    figure = only(pair("brep_mi", {"distances": 900, "fingerprints": 300}), pair("brep_mi", {"distances": 400}, seed=1))
    assert (figure.name, figure.low, figure.value, figure.high) == ("detection/rows_until/brep_mi", 300, 400, 400)
    assert figure.passed
    assert figure.extra["flagged"] == 2


def test_an_attack_that_nobody_notices_counts_with_all_its_rows_and_misses_the_bound():
    figure = only(pair("brep_mi", {"distances": 100}), pair("brep_mi", {}, seed=1))
    assert (figure.value, figure.extra["flagged"], figure.extra["cells"]) == (5_000, 1, 2)
    assert not figure.passed


def test_attacks_on_natural_images_and_those_that_adapt_have_no_bound():
    assert only(pair("inversion_network", {})).bound is None
    for plan in ({"keys": 10}, {"repeats": 4}):
        figure = only(pair("brep_mi", {}, **plan))
        assert (figure.name, figure.bound) == ("detection/adaptive/brep_mi", None)
    assert only(pair("brep_mi", {})).bound == "<= 1000"


def test_the_table_says_which_detector_and_how_many_runs():
    figures = noticed(
        [pair("brep_mi", {"distances": 101}), pair("brep_mi", {}, seed=1), pair("random_draws", {"a": 7})]
    )
    (section,) = detection_sections(figures)
    assert section.tables[0].rows == [
        ["brep_mi", "1", "1", "5,000", "101 to 5,000, of which some is all that was asked", "1 of 2", "distances"],
        ["random_draws", "1", "1", "5,000", "7", "1 of 1", "a"],
    ]
    assert detection_sections([]) == []


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A campaign's folder; honest traffic of one row, of which the detector `nervous` flags all."""
    counted: list[str] = []

    def count(detector: str, generator: str, rows: int, *, images: Any) -> int:
        counted.append(detector)
        return rows if detector == "nervous" else 0

    monkeypatch.setattr(
        defences_detection, "DETECTIONS", {name: lambda name=name: name for name in ("calm", "nervous")}
    )
    monkeypatch.setattr(defences_detection, "false_alarms", count)
    monkeypatch.setattr(defences_detection, "honest_images", lambda split: None)
    judge = SimpleNamespace(split=SimpleNamespace(sha256=lambda: "of the split"))
    return SimpleNamespace(out=tmp_path, judge=lambda name: judge, counted=counted)


def alarms(results: Any, *names: str) -> Any:
    contract = Contract(Access.SCORES, detections=tuple((name, "log", ()) for name in names))
    plan = SimpleNamespace(victim=SimpleNamespace(split="att20"), contract=contract)
    (figure,) = defences_detection._alarms(results, [plan])
    return figure


def test_false_alarms_are_those_of_the_worst_detector_and_counted_once(results):
    assert alarms(results, "calm").passed
    figure = alarms(results, "calm", "nervous")
    assert (figure.value, figure.passed) == (100_000, False)
    assert figure.extra["flagged"]["calm, frames, att20"] == 0
    assert sorted(results.counted) == ["calm"] * 2 + ["nervous"] * 2
    kept = [json.loads(path.read_text()) for path in (results.out / "referee" / "honest").iterdir()]
    assert sorted(one["flagged"] for one in kept) == [0, 0, 100_000, 100_000]
