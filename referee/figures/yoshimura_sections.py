"""The report of the campaign on Yoshimura et al., APSIPA 2021, by way and not by victim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from referee.cell import Cell
from referee.figures.brep_sections import curves, ways_strip
from referee.figures.latent import Way, ways_of
from referee.figures.shown import interval_text
from referee.report import Chart, Figure, Section, Table, labels
from referee.report.bars import Line, Value, lines

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["sections"]

_CURVES = ("black", "black_long", "equal_least_squares", "equal_central", "equal_one_sided", "draws")


def sections(results: Results, cells: Sequence[Cell], figures: Sequence[Figure]) -> list[Section]:
    """One for each split, on the paper's tables, on gradients, and on contracts."""
    found = {figure.name: figure for figure in figures}
    ways = ways_of(cells)
    made = []
    for place in dict.fromkeys(place for place, _, _ in ways):
        mine = [way for (where, _, _), way in ways.items() if where == place]
        made.append(_place_section(results, place, mine, found))
    if any("/table1/" in name for name in found):
        made.append(_table_section(found))
    if "yoshimura/cosine/rank_correlation_with_C" in found:
        made.append(_cosine_section(found))
    withheld = [way for (_, label, _), way in ways.items() if label == "withheld"]
    if withheld:
        made.append(_withheld_section(withheld, found))
    return made


def _place_section(results: Results, place: str, ways: list[Way], found: dict[str, Figure]) -> Section:
    split = ways[0].split
    judge = results.judge(split)
    ways = [way for way in ways if way.label not in ("withheld", "table", "table_white")]
    rows = []
    for way in ways:
        if (figure := found.get(f"yoshimura/{place}/{way.label}/top1")) is None:
            continue
        extra = figure.extra
        sure, rest = labels.DASH, [labels.DASH] * 2
        cost = f"{labels.count(extra['rows_a_target'])} a target" if "rows_a_target" in extra else labels.DASH
        if "target_sure" in extra:
            sure = labels.number(extra["target_sure"])
            rest = [labels.number(extra["among_private"]), labels.number(extra["other_architecture"])]
            if extra["median_rows_of_sure"] >= 0:
                cost = f"{labels.count(extra['median_rows_of_sure'])} {extra['rows_are']}"
        rows.append([way.label, way.contract, interval_text(figure), sure, *rest, cost])
    heads = ["way", "contract", "top-1 [95%]", "target sure", "among private", "other network", "median cost"]
    texts = [
        judge.evaluation,
        "Recognition is that of single starts; draws and the ways for equal rows have one image for each target. The"
        " target is sure where the released score exceeds 0.99: its own opinion, which is no recognition."
        " The cost is that of the starts of which it is sure. The other network has the architecture conv_classifier;"
        " on faces the target has that of the first one, cnn, which then sees what the target sees.",
    ]
    if (pair := found.get(f"yoshimura/{place}/black_minus_white")) is not None:
        texts.append(
            f"Black less white box, {pair.extra['starts']:,} starts in pairs, both with the paper's stop:"
            f" {interval_text(pair)} ({pair.extra['black']:.1%} and {pair.extra['white']:.1%})."
        )
    tables = [Table(heads, rows, left=2)]
    charts = curves(f"Recognition against rows for each target, {place}", ways, _CURVES)
    return Section(f"Released scores: {place}", texts, tables, charts, [ways_strip(results, split, ways)])


def _table_section(found: dict[str, Figure]) -> Section:
    rows = []
    for number, words in ((1, "recognised by a network that shares only them with the target"), (2, "line-ups of 7")):
        for side in ("white", "black"):
            if (figure := found.get(f"yoshimura/table{number}/{side}")) is not None:
                paper = labels.number(figure.paper) if figure.paper is not None else labels.DASH
                each = ", ".join(f"{share:.2f}" for share in figure.extra.get("each", ())) or labels.DASH
                rows.append([words, f"{side} box", interval_text(figure), paper, each])
    text = (
        "Tables I and II of the paper: five people, a hundred starts each, the paper's stop. Line-ups show unseen"
        " photos of the five and of two more private people; the onlookers are two evaluation networks, not people."
    )
    heads = ["what", "attack", "share [95%]", "paper", "each of the five"]
    return Section("Tables I and II", [text], [Table(heads, rows, left=2)])


def _cosine_section(found: dict[str, Figure]) -> Section:
    correlation, good = (
        found[f"yoshimura/cosine/{name}"] for name in ("rank_correlation_with_C", "good_where_C_is_low")
    )
    by_variance = correlation.extra["by_variance"]
    ways = [name for name in next(iter(by_variance.values())) if name != "C"]
    series = [Line(way, [Value(one[way]) for one in by_variance.values()]) for way in ways]
    chart = lines(
        "Cosine to the true gradient", list(by_variance), series, x_name="variance of the perturbation", low=0.0
    )
    rows = [[variance, *(labels.number(value) for value in one.values())] for variance, one in by_variance.items()]
    text = (
        f"C and the cosine to the true gradient: rank correlation {correlation.value:.2f}. Of {good.extra['gradients']}"
        f" gradients with C below {good.extra['C_below']} {good.value:.0%} have a cosine above"
        f" {good.extra['cosine_above']}; the paper finds all of them there."
    )
    words = [text]
    for name, other in (("least_squares_minus_central", "central"), ("least_squares_minus_one_sided", "one-sided")):
        if (figure := found.get(f"yoshimura/{name}")) is not None:
            words.append(
                f"Recognition for 3,000 rows, least squares less {other} differences: {interval_text(figure)}."
            )
    table = Table(["variance", *next(iter(by_variance.values()))], rows)
    return Section("Gradients (Figure 7)", words, [table], [Chart("Cosine to the true gradient, by size", chart)])


def _withheld_section(ways: Sequence[Way], found: dict[str, Figure]) -> Section:
    rows = [[way.contract, interval_text(found.get(f"yoshimura/{way.contract}"))] for way in ways]
    text = "The same attack where the contract withholds or rounds scores, 3,000 rows a target, no stop at 0.99."
    return Section("Fewer and rounded scores", [text], [Table(["contract", "top-1 [95%]"], rows)])
