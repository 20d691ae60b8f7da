"""Figures of attribute inversion: trees and regressions of tables, M. Fredrikson, S. Jha, T. Ristenpart, CCS 2015."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np

from attacker.attacks.white_box_counts import weigh
from attacker.people import Candidates, People
from oracle_server.victims.table_models import grow
from oracle_server.victims.tables import table_named
from referee.attribute_results import Result
from referee.metrics.attributes import MARKS, Mean, mean_over
from referee.report.summary import Figure

__all__ = ["PAPER", "attribute_figures"]

_REPEATS = 20
# Figure 4 of the paper: accuracy, precision, recall on the FiveThirtyEight survey, of a tree published by others. Its
# other column is about an attribute of the General Social Survey that our extract of it does not have.
PAPER: dict[str, dict[str, tuple[float, float, float]]] = {
    "steak": {
        "whitebox": (0.864, 1.0, 0.211),
        "blackbox": (0.858, 0.857, 0.211),
        "random": (0.5, 0.5, 0.5),
        "baseline": (0.829, 0.0, 0.0),
        "ideal": (0.998, 1.0, 0.986),
    }
}


def attribute_figures(results: Sequence[Result]) -> list[Figure]:
    """All that the finished experiments allow; a void, refused or failed one gives none but the void's counts."""
    done = [result for result in results if result.status == "done"]
    plain = [result for result in done if result.model != "priority" and not _held_out(result)]
    found = [figure for result in plain if result.whole for figure in _whole(result)]
    found += [figure for result in plain if not result.whole for figure in _samples(result)]
    found += [figure for result in done if _held_out(result) for figure in _blackbox_held_out(result)]
    found += [figure for result in done if result.model == "priority" for figure in _priority(result)]
    found += [_counts_equal(table, results) for table in dict.fromkeys(result.table for result in results)]
    if any(result.table == "affairs601" for result in done):
        found.append(_microseconds())
    return list({figure.name: figure for figure in found}.values())


def _held_out(result: Result) -> bool:
    return bool(result.definition["confusion"] == "held-out")


def _whole(result: Result) -> Iterable[Figure]:
    """Figure 4: everybody is in the model."""
    for label in result.guesses:
        published = PAPER.get(result.subject, {}).get(label) if result.model == "unpruned" else None
        for place, mark in enumerate(MARKS):
            mean = result.mean(label, mark)
            if mean is not None:
                paper = published[place] if published else None
                name = f"fredrikson/{result.subject}/{result.model}/{label}/{mark}"
                yield Figure(name, mean.value, paper=paper, extra={"people": len(result.truth)})
    if (baseline := result.baseline()) and result.subject == "steak" and result.model == "unpruned":
        mean = result.mean(baseline, "accuracy")
        assert mean is not None
        yield Figure("fredrikson/steak/baseline_accuracy", mean.value, paper=0.829, at_least=0.824, at_most=0.834)


def _samples(result: Result) -> Iterable[Figure]:
    """Figure 5c, and what is gained over the baseline by those whose rows the model was grown on."""
    place = f"fredrikson/{result.subject}"
    kind = {"unpruned": "", "shallow": "/depth5"}.get(result.model, f"/{result.model}")
    baseline = result.baseline()
    for label in result.guesses:
        inside, outside = (result.rates(label, inside=side).accuracy for side in (True, False))
        name = f"{place}{kind}/{label}"
        yield from _mean(f"{name}/accuracy_inside", inside, result)
        yield from _mean(f"{name}/accuracy_outside", outside, result)
        if baseline and label != baseline:
            yield from _mean(f"{name}/inside_minus_outside", inside - outside, result)
            gained = inside - result.rates(baseline).accuracy
            yield from _mean(f"{name}/inside_minus_baseline", gained, result)


_BOUNDS: dict[str, dict[str, float]] = {
    "fredrikson/affairs601/whitebox/inside_minus_outside": {"at_least": 0.10},
    "fredrikson/affairs601/whitebox/inside_minus_baseline": {"at_least": 0.08},
    "fredrikson/gss/blackbox/inside_minus_baseline": {"at_least": 0.12},
    "fredrikson/affairs601/depth5/whitebox/inside_minus_baseline": {"at_least": -0.02, "at_most": 0.02},
}


def _mean(name: str, values: np.ndarray, result: Result, **extra: object) -> Iterable[Figure]:
    """A mean over samples with the interval of its standard error; nothing where no sample has a value."""
    mean = mean_over(values)
    if mean is not None:
        yield _figure(name, mean, samples=mean.samples, fraction=result.definition["fraction"], **extra)


def _figure(name: str, mean: Mean, **extra: object) -> Figure:
    low, high = mean.interval
    bounds = _BOUNDS.get(name, {})
    return Figure(
        name,
        mean.value,
        low=low,
        high=high,
        at_least=bounds.get("at_least"),
        at_most=bounds.get("at_most"),
        extra={"standard_error": mean.error, **extra},
    )


def _blackbox_held_out(result: Result) -> Iterable[Figure]:
    """The black-box attack with a confusion matrix of people who are not in the model."""
    place, baseline = f"fredrikson/{result.subject}/blackbox_heldout_confusion", result.baseline()
    if "blackbox" in result.guesses:
        inside, outside = (result.rates("blackbox", inside=side).accuracy for side in (True, False))
        yield from _mean(f"{place}/accuracy_inside", inside, result)
        yield from _mean(f"{place}/inside_minus_outside", inside - outside, result)
        if baseline:
            yield from _mean(f"{place}/inside_minus_baseline", inside - result.rates(baseline).accuracy, result)


def _priority(result: Result) -> Iterable[Figure]:
    """Figure 11. Classification accuracy is that for people whom the tree has not seen, where there are any."""
    level = result.definition["priority"]
    place = "fredrikson/priority_cart" if result.table == "steak" else f"fredrikson/{result.subject}/priority_cart"
    place += "/none" if level is None else f"/l={level}"
    seen, unseen = mean_over(result.fit_inside), mean_over(result.fit_outside)
    assert seen is not None
    yield _figure(f"{place}/accuracy", unseen or seen, training_accuracy=seen.value, samples=result.samples)
    if "whitebox" in result.guesses:
        baseline = result.baseline()
        known = mean_over(result.rates(baseline).accuracy) if baseline else None
        extra = {"baseline": known.value} if known else {}
        yield from _mean(f"{place}/inversion", result.rates("whitebox").accuracy, result, **extra)
    splits = mean_over(result.splits)
    assert splits is not None
    low, high = splits.interval
    yield Figure(f"{place}/splits", splits.value, unit="splits on the sensitive feature", low=low, high=high)


def _counts_equal(table: str, results: Sequence[Result]) -> Figure:
    """1 when the ledger and the attacker counted the same rows in every experiment on the table."""
    ran = [result for result in results if result.table == table and result.counted]
    differ = sorted(result.name for result in ran if not all(one.equal for one in result.counted.values()))
    rows = sum(one.rows_ledger for result in ran for one in result.counted.values())
    extra = {"experiments": len(ran), "differ": differ, "rows": rows}
    name = f"fredrikson/{table}/counts_equal"
    return Figure(name, float(not differ), unit="all experiments", at_least=1.0, extra=extra)


def _microseconds() -> Figure:
    """The white-box attack itself on arrays of everybody in the survey, in this process; the median of a few repeats.

    The reading of the file of people, the download and the network are left out, as in the paper.
    """
    table = table_named("affairs601")
    tree = grow(table, np.arange(len(table.X)))
    place = table.position("affair")
    rows = table.X.copy()
    rows[:, place] = np.nan
    people = People(tree.features, rows, table.y.astype(np.float64), (place,))
    seconds = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        candidates = Candidates(people)
        candidates.decide(weigh(tree, people, candidates))
        seconds.append(time.perf_counter() - started)
    value = 1e6 * float(np.median(seconds)) / len(rows)
    extra = {"people": len(rows), "leaves": len(tree.counts), "repeats": _REPEATS}
    return Figure(
        "fredrikson/whitebox/microseconds_per_person", value, unit="µs", paper=6000.0, at_most=10.0, extra=extra
    )
