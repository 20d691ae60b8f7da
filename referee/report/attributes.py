"""Sections of a report about inferred attributes: tables and charts after Figures 4, 5 and 11 of Fredrikson et al."""

from __future__ import annotations

from collections.abc import Sequence

from referee.attribute_results import Result
from referee.metrics.attributes import MARKS, Mean, advantage, mean_over, share_of_ideal
from referee.report import bars, labels
from referee.report.sections import Chart, Section, Table

__all__ = ["attribute_sections"]

Published = dict[str, dict[str, tuple[float, float, float]]]
_REFERENCES = ("random_guess", "marginal_mode", "ideal_model")
_WHY = (
    "The paper finds the higher precision for the white box, and this table for the black box. An unpruned tree is"
    " hardly ever wrong about its own people, so two values that both give the right response look alike to the black"
    " box, which then says the common one. The white box compares how many rows the two leaves hold, and an unpruned"
    " tree has put many a person into a leaf of their own: the leaf of the wrong value is often the larger one."
)
_KINDS = {
    "unpruned": "unpruned",
    "pruned": "pruned, 3 a leaf",
    "shallow": "depth 5",
    "linear": "linear regression",
    "priority": "priority CART",
}


def attribute_sections(results: Sequence[Result], paper: Published | None = None) -> list[Section]:
    """Sections for each table and attribute; `paper` gives published accuracy, precision and recall of adversaries."""
    found = []
    for subject in dict.fromkeys(result.subject for result in results):
        mine = [result for result in results if result.subject == subject]
        done = [result for result in mine if result.status == "done"]
        plain = [result for result in done if result.model != "priority"]
        if whole := [result for result in plain if result.whole]:
            found.append(_whole(whole, (paper or {}).get(subject, {})))
        if sampled := [result for result in plain if not result.whole]:
            found.append(_sampled(sampled))
        if levels := [result for result in done if result.model == "priority"]:
            found.append(_priority(levels))
        if bad := [result for result in mine if result.status != "done"]:
            said = [f"{result.name}: {result.status}. {result.sentence}" for result in bad]
            found.append(Section(f"{subject}: experiments without a result", paragraphs=said))
    return found


def _whole(results: Sequence[Result], paper: dict[str, tuple[float, float, float]]) -> Section:
    first = results[0]
    heads = ["Model", "Adversary", "Contract", *map(str.capitalize, MARKS)]
    heads += [f"{mark}, paper" for mark in MARKS] if paper else []
    rows: list[list[str]] = []
    weak: set[int] = set()
    for result in results:
        for one in result.definition["adversaries"]:
            label = one["label"]
            if one["method"] in _REFERENCES:
                weak.add(len(rows))
            counted = result.counted[label]
            marks = [_text(result.mean(label, mark)) for mark in MARKS]
            told = [labels.ratio(value, 3) for value in paper.get(label, (None,) * 3)] if paper else []
            if paper and result is not first:
                told = [""] * 3
            contract = labels.contract_label(one["contract"])
            rows.append([_kind(result), label, contract, *marks, *told, labels.count(counted.rows_ledger), "yes"])
    table = Table(
        [*heads, "Rows, ledger", "Agree"],
        rows,
        note=f"Everybody in the table is in the model. Precision and recall are about {first.feature} ="
        f" {first.levels[first.positive]}; a dash: nobody was called so. Grey rows are references: random knows the"
        " levels alone, the baseline their shares, and the ideal adversary asks a model grown for the attribute"
        " itself. Rows are those that the ledger counted for everybody.",
        left=3,
        weak=frozenset(weak),
        narrow=(0, 1, 3, 4, 5),
    )
    share = (first.truth == first.positive).mean()
    words = (
        f"{len(first.truth):,} people, of whom {100 * share:.1f}% have {first.feature} ="
        f" {first.levels[first.positive]}. The models predict {first.response}; the attacker knows every answer of a"
        f" person but {' and '.join(first.definition['unknown'])}."
    )
    why = _WHY if _reversed(first) else None
    return Section(
        f"{first.subject}: {first.feature}", [words, *([why] if why else [])], [table], _whole_charts(results)
    )


def _reversed(result: Result) -> bool:
    """Whether on an unpruned tree the black box has the higher precision, which the paper finds for the white box."""
    if result.model != "unpruned" or not {"whitebox", "blackbox"} <= result.guesses.keys():
        return False
    white, black = (_number(result.mean(label, "precision")) for label in ("whitebox", "blackbox"))
    return white is not None and black is not None and black > white


def _whole_charts(results: Sequence[Result]) -> list[Chart]:
    first = results[0]
    attacks = _attacks(first)
    baseline, ideal = first.baseline(), first.ideal()
    charts = []
    if baseline and attacks:
        charts.append(
            Chart(
                f"Advantage over the baseline, {_kind(first)}",
                bars.bars("Advantage over the baseline", MARKS, [_gains(first, label, baseline) for label in attacks]),
                "After Figure 5a. A baseline that calls nobody positive has a precision of zero here, as in the paper.",
            )
        )
    if ideal and attacks:
        charts.append(
            Chart(
                f"Share of the ideal adversary, {_kind(first)}",
                bars.bars("Share of the ideal adversary", MARKS, [_shares(first, label, ideal) for label in attacks]),
                "After Figure 5b, not cropped at one.",
            )
        )
    if baseline and attacks and len(results) > 1:
        series = [
            bars.Line(label, [bars.Value(_gain(result, label, result.baseline())) for result in results])
            for label in attacks
        ]
        drawn = bars.bars("Gain in accuracy by kind of tree", [_kind(result) for result in results], series)
        charts.append(Chart("Gain in accuracy over the baseline, by kind of tree", drawn))
    return charts


def _sampled(results: Sequence[Result]) -> Section:
    first = results[0]
    rows: list[list[str]] = []
    weak: set[int] = set()
    for result in results:
        for one in result.definition["adversaries"]:
            label = one["label"]
            if one["method"] in _REFERENCES:
                weak.add(len(rows))
            difference = mean_over(result.rates(label).accuracy - result.rates(label, inside=False).accuracy)
            marks = [
                _text(result.mean(label, mark, inside=side), error=True) for mark in MARKS for side in (True, False)
            ]
            told = labels.count(result.counted[label].rows_ledger)
            kind = _kind(result) + (", held-out confusion" if result.definition["confusion"] == "held-out" else "")
            rows.append([kind, label, *marks, _text(difference, error=True), told])
    heads = ["Model", "Adversary", *(f"{mark}, {side}" for mark in MARKS for side in ("inside", "outside"))]
    table = Table(
        [*heads, "difference in accuracy", "Rows, ledger"],
        rows,
        note="Mean ± standard error over the samples. Inside: people whose rows the model was grown on; outside: the"
        " others. Samples overlap, so the error is that of the mean over samples, not over other people.",
        left=2,
        weak=frozenset(weak),
        narrow=(0, 1, 2, 3, 8),
    )
    models = "; ".join(
        f"{_kind(result)}: {result.samples} models, accuracy {_text(mean_over(result.fit_inside))} inside and"
        f" {_text(mean_over(result.fit_outside))} outside"
        for result in results
        if result.definition["confusion"] == "training"
    )
    share = f"{100 * float(first.definition['fraction']):g}%"
    words = f"Models grown on stratified samples of {share} of {len(first.truth):,} people. {models}."
    attacks = _attacks(first)
    series = [
        bars.Line(f"{label}, {'inside' if side else 'outside'}", _values(first, label, side))
        for label in attacks
        for side in (True, False)
    ]
    charts = [Chart(f"Inside against outside, {_kind(first)}", bars.bars("Inside and outside", MARKS, series))]
    note = "After Figure 5c, with standard errors."
    return Section(
        f"{first.subject}: {first.feature}, inside against outside",
        [words],
        [table],
        [Chart(chart.title, chart.svg, note) for chart in charts] if attacks else [],
    )


def _priority(results: Sequence[Result]) -> Section:
    first = results[0]
    names = ["none" if (level := result.definition["priority"]) is None else str(level) for result in results]
    seen, unseen = ([mean_over(getattr(r, f"fit_{side}")) for r in results] for side in ("inside", "outside"))
    splits = [mean_over(result.splits) for result in results]
    attacks = _attacks(first)
    inverted = {label: [result.mean(label, "accuracy") for result in results] for label in attacks}
    baseline = first.baseline()
    always = [result.mean(baseline, "accuracy") if baseline else None for result in results]
    columns = [names, *([_text(m, error=True) for m in ms] for ms in (unseen, seen, *inverted.values(), always))]
    columns.append(["–" if mean is None else f"{mean.value:.1f}" for mean in splits])
    heads = ["l", "accuracy, unseen", "accuracy, training", *(f"inversion, {label}" for label in attacks), "baseline"]
    rows = [list(row) for row in zip(*columns, strict=True)]
    note = (
        "l: the sensitive feature may be asked for only where just l - 1 other features are on the path; none: ordinary"
        " CART. A feature that is asked for seldom tells an attacker little. Mean ± standard error over samples."
    )
    table = Table([*heads, f"splits on {first.feature}"], rows, note=note)
    attacked = [bars.Line(label, _points(means)) for label, means in inverted.items()]
    drawn = {
        "Attribute inversion": [*attacked, bars.Line("baseline", _points(always))],
        "Classification accuracy": [bars.Line("people not seen", _points(unseen))],
        f"Splits on {first.feature}": [bars.Line("splits", _points(splits))],
    }
    charts = [
        Chart(
            title,
            bars.lines(title, names, lines, x_name="l", low=None if "Splits" in title else 1.0),
            "After Figure 11.",
        )
        for title, lines in drawn.items()
    ]
    share = f"{100 * float(first.definition['fraction']):g}%"
    words = f"{first.samples} trees for each l, each grown on {share} of {len(first.truth):,} people."
    return Section(f"{first.subject}: CART with a priority for {first.feature}", [words], [table], charts)


def _kind(result: Result) -> str:
    return _KINDS[result.model]


def _attacks(result: Result) -> list[str]:
    return [one["label"] for one in result.definition["adversaries"] if one["method"] not in _REFERENCES]


def _text(mean: Mean | None, *, error: bool = False) -> str:
    if mean is None:
        return labels.DASH
    told = f" ±{mean.error:.3f}" if error and mean.error is not None else ""
    return labels.ratio(mean.value, 3) + told


def _number(mean: Mean | None) -> float | None:
    return None if mean is None else mean.value


def _gain(result: Result, label: str, baseline: str | None, mark: str = "accuracy") -> float | None:
    known = _number(result.mean(baseline, mark)) if baseline else None
    return advantage(_number(result.mean(label, mark)), known)


def _gains(result: Result, label: str, baseline: str) -> bars.Line:
    return bars.Line(label, [bars.Value(_gain(result, label, baseline, mark)) for mark in MARKS])


def _shares(result: Result, label: str, ideal: str) -> bars.Line:
    pairs = [(_number(result.mean(label, mark)), _number(result.mean(ideal, mark))) for mark in MARKS]
    return bars.Line(label, [bars.Value(share_of_ideal(ours, best)) for ours, best in pairs])


def _values(result: Result, label: str, inside: bool) -> list[bars.Value]:
    return _points([result.mean(label, mark, inside=inside) for mark in MARKS])


def _points(means: Sequence[Mean | None]) -> list[bars.Value]:
    return [bars.Value(None) if mean is None else bars.Value(mean.value, mean.error) for mean in means]
