"""Figures on inverted answers, from cells whose numbers are known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from oracle_server.threat_model import Access, Contract
from referee.figures import yang, yang_developer, yang_photos, yang_sections
from referee.figures.inverted import Inverted, label_of, mean_interval, places_of, ratio_interval
from referee.figures.yang_classes import class_figures
from referee.figures.yang_features import feature_figures
from referee.given import GivenAnswers
from referee.report import Figure

FULL, ONE = Contract(Access.SCORES), Contract(Access.SCORES, top_k=1)


def run(
    label: str, errors: dict[tuple[str, str], list[float]], *, victim: str = "v", private: int = 3, **changes: Any
) -> Any:
    """A run on `victim`, with errors of the photos of each (kind, contract)."""
    names = [(kind, contract) for (kind, contract), values in errors.items() for _ in values]
    mse = np.array([error for values in errors.values() for error in values])
    cell = SimpleNamespace(
        name=f"{label}@{victim}/full", split="s", victim=victim, mse=mse[None], top1=np.ones((1, len(mse)), bool),
        psnr=mse[None], ssim=mse[None], seconds=changes.pop("seconds", 1.0), seed=0, rows_ledger=5,
        images=np.zeros((1, len(mse), 1, 4, 4), np.float32), **changes,
    )  # fmt: skip
    given = GivenAnswers(
        photos=np.zeros((len(mse), 1, 4, 4)),
        people=np.arange(len(mse)) % private,
        kinds=np.array([kind for kind, _ in names]),
        contracts=np.array([contract for _, contract in names]),
        answers=np.full((len(mse), private), 0.5),
    )
    split = SimpleNamespace(private=tuple(range(private)), data="digits", test=(), target=())
    judge = SimpleNamespace(split=split, floor_mse=lambda photos, people: {"mean image": np.ones(len(photos))})
    return Inverted(label_of(cell), "digits", cell, given, judge)  # type: ignore[arg-type]


def asking(**asked: Contract) -> Any:
    return SimpleNamespace(planned=lambda cell: SimpleNamespace(asked=asked))


def by_name(found: Any) -> dict[str, Figure]:
    return {figure.name: figure for figure in found}


def test_intervals_are_those_of_student() -> None:
    values = np.array([1.0, 2.0, 4.0])
    mean = mean_interval(values)
    expected = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (mean.value, mean.low, mean.high) == pytest.approx((values.mean(), *expected))
    ratio = ratio_interval(2 * values, values)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2, 2, 2))
    assert mean_interval([3.0]).high == 3.0


def test_a_photo_has_one_number_in_all_runs_of_a_split() -> None:
    errors = {("unseen", "full"): [1.0, 2.0], ("training", "full"): [3.0]}
    runs = [run("same", errors), run("same", errors, victim="w")]
    assert places_of(runs, "unseen").tolist() == [0, 1, 0, 1]
    runs[1].cell.split = "t"
    assert len(set(places_of(runs, "unseen").tolist())) == 4


def test_truncation_pairs_runs_on_the_same_victim() -> None:
    """Ours is half as far off on each victim, whatever the victims' own errors are: a ratio without a spread."""
    ours = [run("ours", {("unseen", "one"): [size, size]}, victim=f"v{size}") for size in (1.0, 3.0)]
    prior = [run("prior", {("unseen", "one"): [2 * size]}, victim=f"v{size}") for size in (3.0, 1.0)]
    found = by_name(yang_photos._truncation(asking(one=ONE), "yang/mnist", [*ours, *prior]))
    assert found["yang/mnist/m=1/ours_over_prior"].high == pytest.approx(0.5)
    assert found["yang/mnist/m=1/ours_mse"].value == 2.0
    assert found["yang/mnist/m=1/prior_mse"].value == 4.0
    apart = [run("prior", {("unseen", "one"): [1.0]}, victim=one.cell.victim) for one in ours]
    shuffled = by_name(yang_photos._truncation(asking(one=ONE), "yang/mnist", [*ours, *apart]))
    assert shuffled["yang/mnist/m=1/ours_over_prior"].high > 2


def test_all_scores_released_is_m_of_all_classes() -> None:
    runs = [run(label, {("unseen", "full"): [1.0]}) for label in ("ours", "prior")]
    assert "yang/digits/m=3/ours_over_prior" in by_name(yang_photos._truncation(asking(full=FULL), "yang/digits", runs))


def test_more_classes_must_not_be_worse() -> None:
    few, many = (run("k", {("unseen", "full"): [error] * 6}, private=k) for k, error in ((3, 0.2), (6, 0.3)))
    found = by_name(yang_photos._classes("yang/digits", [many, few]))
    assert list(found) == ["yang/digits/k=3/mse", "yang/digits/k=6/mse"]
    assert found["yang/digits/k=3/mse"].passed is None
    assert found["yang/digits/k=6/mse"].passed is False


def test_speed_is_a_ratio_of_the_same_network() -> None:
    runs = [run("each_step", {("unseen", "full"): [1.0]}, seconds=s) for s in (6.0, 6.0)]
    runs += [run("queries_first", {("unseen", "full"): [1.0]}, seconds=s) for s in (2.0, 2.0)]
    (figure,) = yang_photos._speedup(runs)
    assert (figure.name, figure.value, figure.passed) == ("yang/queries_first_speedup", pytest.approx(3.0), True)


def test_what_holds_the_error_back_is_said_in_words() -> None:
    found = {"yang/digits/same/unseen_mse": Figure("a", 0.1, extra={"seconds": 9.0})}
    for name, value in (("wider", 0.05), ("as_raw_scores", 0.2), ("shorter", 0.11)):
        found[f"yang/digits/limit/{name}/unseen_mse"] = Figure(name, value, extra={"seconds": 1.0})
    quarter = Figure("q", 0.01, extra={"median_confidence": 0.9})
    section = yang_sections._limits(found | {"yang/digits/limit/confidence_quarter=1/unseen_mse": quarter}, ["digits"])
    assert (
        "wider lowers the error most (to 0.50 of it) and as raw scores raises it most (to 2.00)"
        in section.paragraphs[1]
    )
    assert [row[3] for row in section.tables[0].rows] == ["", "0.50", "2.00", "1.10", "0.10"]
    assert not yang_sections._limits({}, ["digits"]).tables


def test_features_are_named_by_count_and_rounding() -> None:
    named = {f"f{rest}": number for number, rest in enumerate(("", ", round=3"))}
    plain = {(kind, name): [2.0 * n + m] for name, n in named.items() for m, kind in enumerate(("unknown", "known"), 1)}
    rounded = {("unknown", "g, round=1"): [5.0], ("known", "g, round=1"): [6.0]}
    found = by_name(feature_figures([run("features", plain), run("features_rounded", rounded)]))
    assert {name: figure.value for name, figure in found.items()} == {
        "yang/features/3/unknown_mse": 1.0,
        "yang/features/3/known_mse": 2.0,
        "yang/features/3/round=3/unknown_mse": 3.0,
        "yang/features/3/round=3/known_mse": 4.0,
        "yang/features/3/trained_round=1/unknown_mse": 5.0,
        "yang/features/3/trained_round=1/known_mse": 6.0,
    }


# Classes


def recognised(label: str, hits: list[bool], victim: str = "v") -> Any:
    return SimpleNamespace(
        name=f"{label}@{victim}/c", split="s", victim=victim, targets=np.arange(len(hits)), top1=np.array([hits])
    )


def test_ours_is_compared_with_the_best_of_the_others(tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", extra_classes_seen=np.array(3))
    split = SimpleNamespace(private=tuple(range(4)), data="digits")
    results = SimpleNamespace(
        judge=lambda name: SimpleNamespace(split=split), attacker_arrays=lambda cell: tmp_path / "r.npz"
    )
    cells = [
        recognised("classes", [True] * 4),
        recognised("classes_prior", [True, True, True, False]),
        recognised("mi_face", [False] * 4),
        recognised("mi_face_log", [True, False, False, False]),
    ]
    found = by_name(class_figures(results, cells))  # type: ignore[arg-type]
    best = found["yang/class_inference/top1_minus_mi_face"]
    assert (best.value, best.extra["against"], best.passed) == (0.75, "mi_face_log", True)
    prior = found["yang/class_inference/top1_minus_prior"]
    assert (prior.value, prior.low, prior.passed) == (0.25, 0.0, False)  # its interval touches zero
    assert found["yang/class_inference/classes/top1"].value == 1.0
    seen = found["yang/classes_estimated"]
    assert (seen.value, seen.extra["truth"], seen.passed) == (3.0, 4, False)


# The developer


def test_the_buyers_test_flags_the_joint_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {"a": 0.030, "b": 0.031, "c": 0.0305, "d": 0.0302, "e": 0.0308, "joint": 0.02}
    monkeypatch.setattr(yang_developer, "_held_out", lambda results, one: errors[one.cell.victim])
    runs = {name: run("generic", {("unseen", "full"): [1.0]}, victim=name) for name in errors}
    victims = [SimpleNamespace(name=name, joint={} if name == "joint" else None) for name in errors]
    results = SimpleNamespace(plan=SimpleNamespace(victims=victims))
    monkeypatch.setattr(yang_developer, "_table3", lambda *_: [])
    found = by_name(yang_developer.developer_figures(results, list(runs.values())))  # type: ignore[arg-type]
    assert found["yang/joint/detector/generic/flagged"].value == 1.0
    alarms = found["yang/joint/detector/generic/false_alarms"]
    assert (alarms.value, alarms.extra["models"]) == (0.0, 5)
    errors["joint"] = 0.0301
    found = by_name(yang_developer.developer_figures(results, list(runs.values())))  # type: ignore[arg-type]
    assert found["yang/joint/detector/generic/flagged"].value == 0.0
    few = [runs[name] for name in ("a", "b", "c", "joint")]
    assert not yang_developer.developer_figures(results, few)  # type: ignore[arg-type]


def test_a_jointly_trained_model_is_no_honest_one() -> None:
    runs = [run("k", {("unseen", "full"): [error]}, victim=name) for name, error in (("v", 0.1), ("joint", 0.2))]
    victims = [SimpleNamespace(name="v", joint=None), SimpleNamespace(name="joint", joint={})]
    results = SimpleNamespace(plan=SimpleNamespace(victims=victims))
    (figure,) = yang_photos.photo_figures(results, runs)  # type: ignore[arg-type]
    assert figure.value == 0.1


def test_a_cell_whose_counts_differ_gives_no_figure() -> None:
    cells = [SimpleNamespace(status="done", counts_equal=equal) for equal in (True, False)]
    assert yang._counting([*cells, SimpleNamespace(status="failed", counts_equal=True)]) == cells[:1]  # type: ignore[list-item]
