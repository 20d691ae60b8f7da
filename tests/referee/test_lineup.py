"""Line-ups: exact shares, who is shown, how networks and people answer, and what their answers are worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from referee.lineups import view_of
from referee.metrics.lineup import (
    NOT_PRESENT,
    LineUps,
    answer,
    ask,
    make_lineups,
    make_real_lineups,
    panel,
    rates,
    similarities,
    threshold_on_real,
)
from tests.referee.lineup_world import NUMBER, OWNERS, PEOPLE, SEEN, SHAPE, TRAINING, VALIDATION, world


def made(seed: int = 0, **changes: object) -> LineUps:
    photos, faces = world()
    known = {"images": faces, "targets": np.arange(PEOPLE), "photos": photos, "owners": OWNERS}
    return make_lineups(**{**known, "training": TRAINING, "validation": VALIDATION, "seed": seed, **changes})


def embed(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) - 0.5


def faults(lineups: LineUps) -> set[str]:
    """What is wrong with the photos of any question."""
    found = set()
    shown = OWNERS[lineups.rows]
    mine = shown == lineups.target[:, None]
    present = lineups.answer != NOT_PRESENT
    if (np.diff(np.sort(shown, axis=1), axis=1) == 0).any():
        found.add("person twice")
    if (mine.sum(axis=1) != present).any() or (mine.argmax(axis=1)[present] != lineups.answer[present]).any():
        found.add("answer")
    if not np.isin(lineups.rows[mine], VALIDATION).all():
        found.add("target's photo was seen")
    if not np.isin(lineups.rows[~mine], TRAINING).all():
        found.add("distractor from validation")
    same = (lineups.queries[:, None] == lineups.choices).all(axis=(2, 3, 4))
    if same.any():
        found.add("query among the photos")
    return found


# ---- making -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_exact_and_every_photo_comes_from_where_it_should(seed):
    lineups = made(seed)
    assert len(lineups.rows) == 120
    assert (lineups.answer != NOT_PRESENT).sum() == 96
    assert lineups.is_control.sum() == 12
    assert (np.bincount(lineups.target) == 3).all()
    assert faults(lineups) == set()


def test_the_checker_sees_each_fault():
    lineups = made()
    question = int(np.flatnonzero((lineups.answer != NOT_PRESENT) & ~lineups.is_control)[0])
    place, person = int(lineups.answer[question]), int(lineups.target[question])
    other = (place + 1) % 5
    unseen = VALIDATION[OWNERS[VALIDATION] == OWNERS[lineups.rows[question, other]]][0]
    swaps = {
        "person twice": (question, other, lineups.rows[question, (place + 2) % 5]),
        "answer": (question, place, lineups.rows[question, other]),
        "target's photo was seen": (question, place, TRAINING[OWNERS[TRAINING] == person][0]),
        "distractor from validation": (question, other, unseen),
    }
    for fault, (row, column, photo) in swaps.items():
        rows = lineups.rows.copy()
        rows[row, column] = photo
        assert fault in faults(replace(lineups, rows=rows))
    queries = lineups.queries.copy()
    queries[question] = lineups.choices[question, place]
    assert faults(replace(lineups, queries=queries)) == {"query among the photos"}


def test_controls_ask_with_an_unseen_photo_and_the_others_with_the_reconstruction():
    lineups = made()
    photos, faces = world()
    control = lineups.is_control
    assert (lineups.queries[~control] == faces[lineups.target[~control]]).all()
    pool = VALIDATION.reshape(PEOPLE, -1)[lineups.target[control]]
    assert (lineups.queries[control][:, None] == photos[pool]).all(axis=(2, 3, 4)).any(axis=1).all()


def test_the_seed_alone_decides():
    one, same, other = made(3), made(3), made(4)
    for field in ("queries", "rows", "answer", "is_control", "target"):
        assert (getattr(one, field) == getattr(same, field)).all()
    assert (one.rows != other.rows).any()


def test_right_answers_and_controls_are_spread():
    lineups = made(per_target=30)
    places = np.bincount(lineups.answer, minlength=6)
    assert places[5] == 240
    assert places[:5].min() > 150  # 192 each on average
    assert len(set(lineups.target[lineups.is_control])) > 30
    assert 0.05 < (lineups.answer[: len(lineups.answer) // 2] == NOT_PRESENT).mean() < 0.35


def test_a_reconstruction_that_is_not_finite_is_shown_black():
    _, faces = world()
    faces[0, 0, 0, 0] = np.nan
    assert np.isfinite(made(images=faces).queries).all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"targets": np.arange(3)}, "one image"),
        ({"per_target": 0}, "per_target=0"),
        ({"training": np.concatenate([TRAINING, VALIDATION[:1]])}, "share a row"),
        ({"training": TRAINING[: 5 * SEEN]}, "six people"),
        ({"validation": VALIDATION[1:][NUMBER[VALIDATION[1:]] == 9]}, "two validation photos"),
    ],
)
def test_too_little_to_make_questions_of(changes, says):
    with pytest.raises(ValueError, match=says):
        made(**changes)


def test_real_lineups_show_the_person_in_half_and_never_the_photo_asked_about():
    photos, _ = world()
    real = make_real_lineups(photos, OWNERS, TRAINING, VALIDATION, seed=1, per_person=6)
    assert (real.answer == NOT_PRESENT).sum() == (real.answer != NOT_PRESENT).sum() == 120
    assert faults(real) == set()
    assert real.is_control.all()
    with pytest.raises(ValueError, match="even"):
        make_real_lineups(photos, OWNERS, TRAINING, VALIDATION, seed=1, per_person=3)


# ---- answering ----------------------------------------------------------------------------------------------------


def test_cosines_and_answers_by_hand():
    query = np.array([[2.0, 0], [0, 0]])
    choices = np.zeros((2, 5, 2))
    choices[0] = [[0, 1], [3, 0], [-1, 0], [1, 1], [0, 0]]
    found = similarities(query, choices)
    assert found == pytest.approx(np.array([[0, 1, -1, np.sqrt(0.5), 0], [0] * 5]))
    assert answer(found, 0.5).tolist() == [1, NOT_PRESENT]
    assert answer(found, -2.0).tolist() == [1, 0]
    assert answer(found, 1.0).tolist() == [1, NOT_PRESENT]  # a tie with the threshold is an answer
    with pytest.raises(ValueError, match="must be"):
        similarities(query, choices[:, :, :1])


TOPS = np.array([0.9, 0.8, 0.2, 0.7, 0.1, 0.3])
TRUTH = np.array([0, 0, 0, NOT_PRESENT, NOT_PRESENT, NOT_PRESENT])


def real_similarity() -> np.ndarray:
    return np.column_stack([TOPS, np.zeros((6, 4))])


def test_largest_accuracy_takes_the_middle_of_the_widest_range():
    found = threshold_on_real(real_similarity(), TRUTH, None)
    # From 0.7 to 0.8: five of six. Nothing else reaches five, and the range begins above the last stranger.
    assert found.value == pytest.approx(0.75)
    assert found.accuracy == pytest.approx(5 / 6)
    assert found.false_alarms == 0
    tried = [(answer(real_similarity(), t) == TRUTH).mean() for t in np.linspace(0, 1, 201)]
    assert found.accuracy == max(tried)


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.7, 0.8), (0.34, 0.3, 0.7), (0.67, 0.1, 0.2)])
def test_the_lowest_threshold_that_keeps_false_alarms(share, low, high):
    found = threshold_on_real(real_similarity(), TRUTH, share)
    assert low < found.value < high
    absent = TRUTH == NOT_PRESENT
    assert (answer(real_similarity(), found.value)[absent] != NOT_PRESENT).mean() == pytest.approx(found.false_alarms)
    assert found.false_alarms <= share
    assert (answer(real_similarity(), found.value) == TRUTH).mean() == pytest.approx(found.accuracy)


def test_a_threshold_needs_strangers():
    with pytest.raises(ValueError, match="must not show"):
        threshold_on_real(real_similarity(), np.zeros(6, int))
    with pytest.raises(ValueError, match="false_alarms=2"):
        threshold_on_real(real_similarity(), TRUTH, 2)


def test_an_onlooker_who_sees_answers_rightly_and_a_blind_one_by_chance():
    photos, _ = world()
    real = make_real_lineups(photos, OWNERS, TRAINING, VALIDATION, seed=1, per_person=10)
    threshold = threshold_on_real(ask(embed, real), real.answer)
    lineups = made()
    seen = answer(ask(embed, lineups), threshold.value)
    assert rates(seen == lineups.answer, lineups.answer, lineups.target, lineups.is_control).overall.value > 0.95
    random = np.random.default_rng(0)
    blind = answer(ask(lambda images: random.normal(size=(len(images), 48)), lineups), -1.0)
    assert (blind == lineups.answer)[lineups.answer != NOT_PRESENT].mean() < 0.35


# ---- rates --------------------------------------------------------------------------------------------------------


def questions(truth: list[int], control: list[int]) -> LineUps:
    nothing = np.zeros((0, *SHAPE))
    count = len(truth)
    rows = np.zeros((count, 5), int)
    return LineUps(nothing, nothing, rows, np.array(truth), np.array(control, dtype=bool), np.arange(count) // 2)


ASKED = questions([0, 1, 2, 3, 5, 5, 4, 5], [0, 0, 0, 0, 0, 0, 1, 1])
ANSWERS = np.array(
    [
        [0, 1, 2, 5, 5, 0, 4, 5],
        [0, 1, 0, 0, 5, 1, 4, 0],
        [0, 0, 2, 1, 1, 2, 4, 1],
    ]
)


def test_rates_by_hand_and_controls_apart():
    found = panel(ANSWERS, ASKED)
    assert [one.overall.value for one in found.each] == pytest.approx([4 / 6, 3 / 6, 2 / 6])
    assert [one.identified.value for one in found.each] == pytest.approx([3 / 4, 2 / 4, 2 / 4])
    assert [one.excluded.value for one in found.each] == pytest.approx([1 / 2, 1 / 2, 0])
    assert [one.controls.value for one in found.each] == pytest.approx([1, 1 / 2, 1 / 2])
    assert found.all.overall.value == pytest.approx(9 / 18)
    assert found.all.identified.value == pytest.approx(7 / 12)
    assert found.all.excluded.value == pytest.approx(2 / 6)
    assert found.best == 0


def test_majority_is_at_least_two_right_of_three():
    found = panel(ANSWERS, ASKED)
    assert found.majority.identified.value == pytest.approx(3 / 4)  # right by 3, 2, 2 and none
    assert found.majority.excluded.value == pytest.approx(1 / 2)  # by 2 and none
    assert found.majority.controls.value == pytest.approx(1 / 2)  # by 3 and 1
    one_right = np.where(np.arange(3)[:, None] == 0, ASKED.answer, (ASKED.answer + 1) % 6)
    assert panel(one_right, ASKED).majority.overall.value == 0


def test_intervals_are_drawn_over_targets():
    asked = questions([0] * 40, [0] * 40)
    right = np.arange(40) % 4 < 2  # both questions of a target, or neither
    once = rates(right[::2], asked.answer[::2], asked.target[::2], asked.is_control[::2]).overall
    twice = rates(right, asked.answer, asked.target, asked.is_control).overall
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    loose = rates(right, asked.answer, np.arange(40), asked.is_control).overall
    assert loose.high - loose.low < 0.8 * (twice.high - twice.low)


def test_no_question_of_a_kind_has_no_rate():
    asked = questions([0, 1], [0, 0])
    found = rates(np.array([True, False]), asked.answer, asked.target, asked.is_control)
    assert (found.excluded, found.controls) == (None, None)
    with pytest.raises(ValueError, match="control"):
        rates(np.array([True, False]), asked.answer, asked.target, np.ones(2, bool))
    with pytest.raises(ValueError, match="must be"):
        rates(np.array([True]), asked.answer, asked.target, asked.is_control)


def test_how_a_network_sees_does_not_depend_on_the_mirror():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 7)).eval()
    photos = world()[0][:9]
    view = view_of(network, batch=4)
    assert view(photos).shape == (9, 7)
    assert view(photos).sum(axis=1) == pytest.approx(np.ones(9))
    assert view(photos[..., ::-1]) == pytest.approx(view(photos), abs=1e-6)
    with pytest.raises(ValueError, match="training mode"):
        view_of(network.train())
