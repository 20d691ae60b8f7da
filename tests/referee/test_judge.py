"""Floors and references of a split, against plain loops over its photos."""

from __future__ import annotations

import numpy as np
import pytest

from referee.judge import Judge
from referee.metrics import Interval
from referee.report.headline import headline
from referee.report.tables import Row


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge("att20-k5", "cpu")


def training_photos(judge: Judge, person: int) -> np.ndarray:
    rows = [row for row in judge.split.target if judge.faces.labels[row] == judge.split.private[person]]
    return judge.faces.images[rows]


def test_floors_are_the_errors_of_two_constant_answers(judge):
    strangers = [row for row in judge.split.published if judge.faces.labels[row] in judge.split.known[5:]]
    rows = [*judge.split.test[:3], strangers[0]]
    places = np.array([judge.split.known.index(int(judge.faces.labels[row])) for row in rows])
    found = judge.floor_mse(judge.faces.images[rows], places)
    mean = judge.faces.images[list(judge.split.target)].mean(0)
    for i, (row, place) in enumerate(zip(rows, places, strict=True)):
        photo = judge.faces.images[row]
        assert found["mean image"][i] == pytest.approx(np.mean((mean - photo) ** 2), rel=1e-4)
        if place < 5:
            own = training_photos(judge, place).mean(0)
            assert found["class means"][i] == pytest.approx(np.mean((own - photo) ** 2), rel=1e-4)
    assert np.isnan(found["class means"]).tolist() == [False, False, False, True]
    assert (found["class means"] < found["mean image"])[:3].all()


def test_a_model_without_classes_is_sure_of_nothing(judge):
    photos = judge.faces.images[list(judge.split.test)]
    people = np.array([judge.split.private.index(int(judge.faces.labels[row])) for row in judge.split.test])
    scores = judge.score(photos, people, None)
    assert np.isnan(scores.confidence).all()
    assert scores.top1.mean() > 0.5
    assert np.isfinite(scores.own).all()


def test_means_are_references_and_only_the_common_one_is_a_floor(judge, tmp_path):
    references = {one.name: one for one in judge.references(None, judge.publish(tmp_path / "p"))}
    kinds = {name: one.kind for name, one in references.items()}
    assert kinds["mean of the private classes"] == "floor"
    assert list(kinds)[-2:] == ["held-out photos", "true class means"]
    assert kinds["true class means"] == "ceiling"
    assert references["mean of the private classes"].top1.sum() <= 1  # one image is recognised as one person at most
    np.testing.assert_allclose(references["true class means"].own, 1.0, atol=1e-6)
    assert np.isnan(references["true class means"].confidence).all()


def test_a_reference_has_a_limited_number_of_photos(judge, tmp_path, monkeypatch):
    monkeypatch.setattr("referee.judge._MOST_PHOTOS", 4)
    public = judge.publish(tmp_path / "p")
    one, two = ({r.name: r for r in judge.references(None, public)}["held-out photos"] for _ in range(2))
    assert len(one.targets) == 4
    np.testing.assert_array_equal(one.own, two.own)


def test_the_report_shows_as_many_photos_of_each_and_says_what_they_are(judge, monkeypatch):
    view = judge.view()
    assert view.photos.shape == (5, 5, 1, 64, 64)
    np.testing.assert_array_equal(view.photos[2], training_photos(judge, 2))
    assert "none of which the target has seen" in view.evaluation
    monkeypatch.setattr("referee.judge._SHOWN", 3)
    monkeypatch.setattr(judge, "noun", "digits")
    view = judge.view()
    assert view.photos.shape[1] == 3
    assert view.description.startswith("5 private digits")
    row = Row("attack", view.name, "full scores", "m", "done", cells=(None,), people=5, top1=Interval(1.0, 0.9, 1.0))
    assert "5 of 5 digits are recognised" in headline([row], view).lead
