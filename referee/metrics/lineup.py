"""Line-ups: can an onlooker tell from a reconstruction which of five photos shows the person, or that none does?

The questions of Fredrikson, Jha and Ristenpart, "Model inversion attacks that exploit confidence information and basic
countermeasures", CCS 2015, section 5.2, answered by evaluation networks or by people. In 80% of the questions one of
the five photos shows the target. That photo comes from the validation rows, which neither the target model nor an
evaluation network has seen; the other photos come from the training rows of other people, as in the paper. 10% of the
questions are controls with a real photo, another one of the validation rows, in place of the reconstruction.

| name here | meaning |
| --- | --- |
| answer | 0..4: that photo; `NOT_PRESENT` (5): none of them |
| overall | share of questions answered rightly |
| identified | the same among the questions that show the target |
| excluded | the same among those that do not |

A network answers with the photo whose embedding has the largest cosine with that of the query, or `NOT_PRESENT` when
the largest lies below a threshold that real photos fix. Keep in mind: a network is surer of photos it was trained on,
the distractors; and it has seen other photos of everybody, while the people of the paper knew nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from referee.metrics.intervals import Interval, clustered_interval

__all__ = [
    "CHOICES",
    "NOT_PRESENT",
    "LineUps",
    "Panel",
    "Rates",
    "Threshold",
    "answer",
    "ask",
    "make_lineups",
    "make_real_lineups",
    "panel",
    "rates",
    "similarities",
    "threshold_on_real",
]

CHOICES = 5
NOT_PRESENT = 5

_PRESENT, _CONTROLS = 0.8, 0.1


@dataclass(frozen=True, eq=False)
class LineUps:
    """Q questions.

    Attributes:
        queries: (Q, C, H, W), the picture that is asked about.
        photos: (N, C, H, W), all photos of the data set.
        rows: (Q, 5) int64, the photos shown, as rows of `photos`.
        answer: (Q,) int64, the right answer: 0..4 or ``NOT_PRESENT``.
        is_control: (Q,) bool, the query is a real photo.
        target: (Q,) int64, who is on the query. Several questions share a target: cluster intervals by it.
    """

    queries: np.ndarray
    photos: np.ndarray
    rows: np.ndarray
    answer: np.ndarray
    is_control: np.ndarray
    target: np.ndarray

    @property
    def choices(self) -> np.ndarray:
        """(Q, 5, C, H, W), the photos shown."""
        shown: np.ndarray = self.photos[self.rows]
        return shown


@dataclass(frozen=True)
class Threshold:
    """`value`: a similarity below it means "not present"; the others: where it was fixed."""

    value: float
    accuracy: float
    false_alarms: float


@dataclass(frozen=True)
class Rates:
    """Shares, intervals over targets; controls apart; None where there is no such question."""

    overall: Interval
    identified: Interval | None
    excluded: Interval | None
    controls: Interval | None


@dataclass(frozen=True)
class Panel:
    """Several onlookers on the same questions.

    Attributes:
        each: the rates of every onlooker.
        all: over all answers of all onlookers.
        majority: a question counts when more than half of the onlookers gave the right answer (two of three).
        best: the onlooker with the largest overall rate; picked afterwards, on these same questions.
    """

    each: tuple[Rates, ...]
    all: Rates
    majority: Rates
    best: int


def make_lineups(
    images: np.ndarray,
    targets: np.ndarray,
    photos: np.ndarray,
    owners: np.ndarray,
    training: np.ndarray,
    validation: np.ndarray,
    *,
    seed: int,
    per_target: int = 3,
) -> LineUps:
    """T * `per_target` questions about reconstructions, in random order; all drawn from `seed`.

    Exactly 80% (rounded) show the target and exactly 10% are controls, of which 80% show it too; the default of three
    questions for each of 40 targets gives whole numbers: 120, 96, 12. No person is shown twice in a question.

    Args:
        images: (T, C, H, W) reconstructions; values that aren't finite are shown as 0.
        targets: (T,) int, the person of each, in the numbering of `owners`.
        photos, owners: (N, C, H, W) and (N,) int, the data set and who is on each photo.
        training: rows that the evaluation networks have seen: the distractors. Six people or more.
        validation: rows that they have not: two or more of each target, one for the line-up and one for a control.

    Raises:
        ValueError: shapes that don't fit, rows in both lists, or too few photos for such questions.
    """
    images, targets = np.asarray(images, dtype=np.float32), np.asarray(targets, dtype=np.int64)
    if targets.shape != images.shape[:1] or not len(targets) or images.shape[1:] != photos.shape[1:] or per_target < 1:
        raise ValueError(
            f"images {images.shape}, targets {targets.shape}, photos {photos.shape} and per_target={per_target} don't"
            " fit: give one image of the photos' shape for each target, and one question each or more"
        )
    random = np.random.default_rng(seed)
    place = random.permutation(np.repeat(np.arange(len(targets)), per_target))
    is_control = np.arange(len(place)) < round(_CONTROLS * len(place))
    controls, total = int(is_control.sum()), round(_PRESENT * len(place))
    inside = min(round(_PRESENT * controls), total)
    present = np.concatenate([np.arange(controls) < inside, np.arange(len(place) - controls) < total - inside])
    order = random.permutation(len(place))
    is_control, present, target = is_control[order], present[order], targets[place]
    rows, answers, other = _draw(target, present, owners, training, validation, random)
    safe = np.nan_to_num(images, nan=0.0, posinf=0.0, neginf=0.0)[place]
    queries = np.where(is_control[:, None, None, None], photos[other], safe)
    return LineUps(queries, photos, rows, answers, is_control, target)


def make_real_lineups(
    photos: np.ndarray,
    owners: np.ndarray,
    training: np.ndarray,
    validation: np.ndarray,
    *,
    seed: int,
    per_person: int = 48,
) -> LineUps:
    """Questions about real validation photos only, half of which show the person: to fix a threshold beforehand.

    The photo asked about and the one shown are two different validation photos. Arguments and errors as for
    `make_lineups`; `per_person` must be even.
    """
    if per_person < 2 or per_person % 2:
        raise ValueError(f"per_person={per_person} must be even and at least 2, so that half can show the person")
    random = np.random.default_rng(seed)
    target = np.repeat(np.unique(owners[np.asarray(validation)]).astype(np.int64), per_person)
    present = np.arange(len(target)) % 2 == 0
    rows, answers, other = _draw(target, present, owners, training, validation, random)
    return LineUps(photos[other], photos, rows, answers, np.ones(len(target), dtype=bool), target)


def _draw(
    target: np.ndarray,
    present: np.ndarray,
    owners: np.ndarray,
    training: np.ndarray,
    validation: np.ndarray,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows shown (Q, 5), right answers (Q,), and for each question a validation row of the target not shown (Q,)."""
    training, validation = np.asarray(training), np.asarray(validation)
    if set(training.tolist()) & set(validation.tolist()):
        raise ValueError("training and validation share a row: the photo of the target must be one nobody has seen")
    seen, start, count = _by_person(owners, training)
    unseen, first, spare = _by_person(owners, validation)
    people = np.flatnonzero(count)
    if len(people) <= CHOICES or (spare[target] < 2).any():
        raise ValueError("line-ups need training photos of six people and two validation photos of each target")
    keys = random.random((len(target), len(people)))
    keys[people == target[:, None]] = np.inf  # sorted last: never a distractor
    strangers = people[np.argsort(keys, axis=1)[:, :CHOICES]]
    rows = seen[start[strangers] + random.integers(count[strangers])]
    shown = random.integers(spare[target])
    other = (shown + random.integers(1, spare[target])) % spare[target]
    answers = np.where(present, random.integers(CHOICES, size=len(target)), NOT_PRESENT)
    asked = np.flatnonzero(present)
    rows[asked, answers[asked]] = unseen[first[target[asked]] + shown[asked]]
    return rows, answers, unseen[first[target] + other]


def _by_person(owners: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows sorted by person, where each person starts in them, and how many each has."""
    count = np.bincount(owners[rows], minlength=int(owners.max()) + 1)
    return rows[np.argsort(owners[rows], kind="stable")], np.cumsum(count) - count, count


def similarities(query: np.ndarray, choices: np.ndarray) -> np.ndarray:
    """Cosines (Q, 5) of queries (Q, F) with choices (Q, 5, F); 0 where a vector is zero."""
    query, choices = np.asarray(query, dtype=np.float64), np.asarray(choices, dtype=np.float64)
    if choices.ndim != 3 or query.shape != (len(choices), choices.shape[2]):
        raise ValueError(f"queries {query.shape} must be (Q, F) and choices {choices.shape} (Q, {CHOICES}, F)")
    length = np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(choices, axis=2)
    dot = np.einsum("qf,qcf->qc", query, choices)
    cosine: np.ndarray = np.divide(dot, length, out=np.zeros_like(dot), where=length > 0)
    return cosine


def answer(similarity: np.ndarray, threshold: float) -> np.ndarray:
    """(Q,) int64: the place of the largest of (Q, 5), or ``NOT_PRESENT`` where it lies below the threshold."""
    chosen: np.ndarray = np.where(similarity.max(axis=1) >= threshold, similarity.argmax(axis=1), NOT_PRESENT)
    return chosen.astype(np.int64)


def ask(embed: Callable[[np.ndarray], np.ndarray], lineups: LineUps) -> np.ndarray:
    """Similarities (Q, 5) as seen by `embed`: images (N, C, H, W) -> (N, F). Every photo is embedded once."""
    return similarities(embed(lineups.queries), embed(lineups.photos)[lineups.rows])


def threshold_on_real(similarity: np.ndarray, truth: np.ndarray, false_alarms: float | None = 0.01) -> Threshold:
    """A threshold fixed beforehand on line-ups of real photos; no reconstruction is seen.

    Args:
        similarity: (Q, 5) of `make_real_lineups`.
        truth: (Q,) right answers, some of them ``NOT_PRESENT``.
        false_alarms: the lowest threshold at which at most this share of the line-ups without the person is answered
            with somebody. None: the middle of the widest range with the largest accuracy. Real photos are easy, so two
            or three odd ones decide that (0.24 to 0.65 where 0.01 gives 0.06 to 0.13), and fewer pictures are named.

    Raises:
        ValueError: no line-up without the person, or a share outside 0..1.
    """
    top, right, absent = similarity.max(axis=1), similarity.argmax(axis=1) == truth, truth == NOT_PRESENT
    if not absent.any() or not (false_alarms is None or 0 <= false_alarms < 1):
        raise ValueError(f"false_alarms={false_alarms} must be in 0..1, and some line-ups must not show the person")
    ends = np.concatenate([[-1.0], np.unique(top), [1.0 + 1e-9]])  # between two of these, all thresholds are alike
    between = (ends[:-1] + ends[1:]) / 2
    above = top[:, None] >= between
    accuracy, alarms = np.where(above, right[:, None], absent[:, None]).mean(axis=0), above[absent].mean(axis=0)
    if false_alarms is not None:
        lowest = int(np.argmax(alarms <= false_alarms))
        return Threshold(float(between[lowest]), float(accuracy[lowest]), float(alarms[lowest]))
    is_best = np.concatenate([[False], accuracy == accuracy.max(), [False]])
    first, after = np.flatnonzero(~is_best[:-1] & is_best[1:]), np.flatnonzero(is_best[:-1] & ~is_best[1:])
    widest = int(np.argmax(ends[after] - ends[first]))
    value = (ends[first[widest]] + ends[after[widest]]) / 2
    return Threshold(float(value), float(accuracy.max()), float((top[absent] >= value).mean()))


def rates(right: np.ndarray, truth: np.ndarray, target: np.ndarray, is_control: np.ndarray) -> Rates:
    """Overall, identified, excluded and controls from `right` (Q,) or (K, Q) bool, one row for each onlooker.

    `truth`, `target` and `is_control` are (Q,), as in `LineUps`. Controls count in `controls` alone. Intervals are
    bootstrapped over targets. Raises `ValueError` for other shapes, or when every question is a control.
    """
    right = np.atleast_2d(np.asarray(right, dtype=bool))
    if right.ndim != 2 or any(part.shape != right.shape[1:] for part in (truth, target, is_control)):
        raise ValueError(f"right {right.shape} must be (K, Q), and truth, target and is_control (Q,)")
    if is_control.all():
        raise ValueError("every question is a control: rates need questions about reconstructions")

    def share(which: np.ndarray) -> Interval:
        clusters = np.broadcast_to(target, right.shape)[:, which]
        return clustered_interval(right[:, which].ravel(), clusters.ravel())

    shown, absent = ~is_control & (truth != NOT_PRESENT), ~is_control & (truth == NOT_PRESENT)
    rest = (share(which) if which.any() else None for which in (shown, absent, is_control))
    return Rates(share(~is_control), *rest)


def panel(answers: np.ndarray, lineups: LineUps) -> Panel:
    """Rates of K onlookers from their answers (K, Q): each, all, majority and best."""
    right = np.asarray(answers) == lineups.answer
    about = (lineups.answer, lineups.target, lineups.is_control)
    each = tuple(rates(row, *about) for row in right)
    best = int(np.argmax([one.overall.value for one in each]))
    return Panel(each, rates(right, *about), rates(right.sum(axis=0) > len(right) / 2, *about), best)
