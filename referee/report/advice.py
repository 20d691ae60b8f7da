"""The sections of an advice page: what each contract gives away, which one to take, and how that was found out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from referee.advise_words import Advice, Finding, sentences
from referee.report import charts, labels
from referee.report.sections import Chart, Section, Table
from referee.report.summary import Figure

__all__ = ["CAUTION", "advice_sections", "leak_figures"]

CAUTION = (
    "This is one attack for each contract, with a linear prior learned from the public images: another attack, or more"
    " public data, may find more, so that no sentence here is a proof of safety. What leaks here does leak."
)


def advice_sections(
    advice: Advice, findings: Sequence[Finding], *, asks_nothing: float, ceiling: float
) -> list[Section]:
    """What a page of advice begins with. `asks_nothing` is the highest floor that asks nothing, `ceiling` the share of
    held-out photos that are recognised.
    """
    measured = [finding for finding in findings if finding.steps]
    table = Table(
        ["Contract", "Queries a class", "Attack [95%]", "Best random images [95%]", "Beats them", "Leaks"],
        list(chain.from_iterable(_rows(finding) for finding in measured)),
        note="Share of classes whose image is recognised; intervals are over classes. Best random images: of as many as"
        " there are queries, drawn from the same prior, those that the model likes most. Beats them: the whole interval"
        " of the difference, over the same classes, lies above 0. Leaks: the whole interval of the better of the two"
        f" lies above the floor, which asks nothing ({asks_nothing:.0%}). Of held-out real photos {ceiling:.0%} are"
        " recognised.",
    )
    told = Section(
        "What each contract gives away",
        sentences(findings),
        [table] if measured else [],
        _charts(measured, asks_nothing),
    )
    return [Section("Which contract to take", [advice.sentence, CAUTION]), told]


def leak_figures(findings: Sequence[Finding], names: Sequence[str]) -> list[Figure]:
    """`advise/NAME/ROWS/recognised` and `.../random_images` for each contract, by its short name, and each budget."""
    return [
        figure
        for finding, name in zip(findings, names, strict=True)
        for step in finding.steps
        for figure in (
            Figure(
                f"advise/{name}/{step.rows}/recognised", step.attack.value, low=step.attack.low, high=step.attack.high
            ),
            Figure(
                f"advise/{name}/{step.rows}/random_images", step.draws.value, low=step.draws.low, high=step.draws.high
            ),
        )
    ]


def _rows(finding: Finding) -> list[list[str]]:
    return [
        [
            finding.contract if not place else "",
            labels.count(step.rows),
            labels.interval(step.attack),
            labels.interval(step.draws),
            "yes" if step.beats_draws else "no",
            "yes" if step.leaks else "no",
        ]
        for place, step in enumerate(finding.steps)
    ]


def _charts(findings: Sequence[Finding], floor: float) -> list[Chart]:
    """A chart for each contract, its attack beside the best random images; all have the same axes."""
    panels = []
    for finding in findings:
        rows = tuple(float(step.rows) for step in finding.steps)
        draws = tuple(step.draws for step in finding.steps)
        attack = charts.Series(finding.method, 0, rows, tuple(step.attack for step in finding.steps))
        panels.append(charts.Panel(finding.contract, (attack, charts.Series("random images", 1, rows, draws))))
    drawn = charts.success(panels, floor, noun="classes", each="class")
    return [Chart(panel.title, svg) for panel, svg in zip(panels, drawn, strict=True)]
