"""The report of the campaign on BREP-MI: curves, tables and images, by way and not by victim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from referee.cell import Cell
from referee.figures.latent import Way, panel, place_of, ways_of
from referee.figures.shown import SHOWN, interval_text
from referee.report import Chart, Figure, Section, Strip, StripRow, Table, labels
from referee.report.charts import success

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["curves", "sections", "ways_strip"]

_IN_CURVES = ("brep", "brep_compatible", "draws", "latent_scores", "network")


def sections(results: Results, cells: Sequence[Cell], figures: Sequence[Figure]) -> list[Section]:
    """One for each split, and one on the options."""
    found = {figure.name: figure for figure in figures}
    ways = ways_of(cells, judged_by_its_kind(results))
    made = []
    for place in dict.fromkeys(place for place, _, _ in ways):
        mine = [way for (where, _, _), way in ways.items() if where == place]
        made.append(_place_section(results, place, mine, found))
    if options := [figure for figure in figures if "/options/" in figure.name or "improved_over" in figure.name]:
        made.append(_options_section(options))
    return made


def judged_by_its_kind(results: Results) -> Callable[[Cell], str]:
    """Tells apart the targets that have the architecture of the network that judges: what is recognised of these may be
    that architecture's.
    """
    return lambda cell: "-cnn" if results.planned(cell).victim.architecture == "cnn" else ""


def _place_section(results: Results, place: str, ways: list[Way], found: dict[str, Figure]) -> Section:
    split = ways[0].split
    judge = results.judge(split)
    rows = []
    for way in ways:
        name = f"brep/{place}/{way.label}/{way.contract}/top1"
        figure = found.get(f"brep/{place}/top1@3000" if (way.label, way.contract) == ("brep", "label") else name)
        if figure is not None and not way.label.endswith("_long"):
            other = labels.number(figure.extra["other_architecture"])
            row = [way.label, way.contract, labels.count(figure.extra["rows_a_target"]), interval_text(figure)]
            rows.append([*row, labels.number(figure.extra["among_private"]), other])
    for reference in judge.references(None, results.public(split)):
        if reference.name in ("mean public face", "mean public image", "held-out photos"):
            rows.append(
                [reference.name, "-", "0", labels.number(float(reference.top1.mean())), labels.DASH, labels.DASH]
            )
    table = Table(["way", "contract", "rows a target", "top-1 [95%]", "among private", "other network"], rows, left=2)
    texts = [
        judge.evaluation,
        "Rows are those that the server counted for each target; with weights they are the attack's own evaluations."
        " The column on the right is the verdict of a second evaluation network, of the architecture conv_classifier.",
    ]
    if place.endswith("-cnn"):
        texts.append(
            "These targets have the architecture of the first evaluation network, cnn (trained on other photos, and on"
            " everybody): what it recognises is partly what that architecture sees in an image, and the second"
            " network's verdict is the more careful one."
        )
    minus = [[name.removeprefix(f"brep/{place}/"), interval_text(figure)] for name, figure in found.items()
             if name.startswith(f"brep/{place}/top1_minus")]  # fmt: skip
    networks = "brep/minus_inversion" if place == "att20" else f"brep/{place}/minus_inversion"
    minus += [
        [name.split("/")[-1], interval_text(figure)] for name, figure in found.items() if name.startswith(networks)
    ]
    tables = [table, Table(["BREP-MI less another way, target by target", "difference [95%]"], minus)]
    return Section(
        f"Labels alone: {place}", texts, tables, curves(f"Recognition against rows, {place}", ways),
        [ways_strip(results, split, [way for way in ways if not way.label.startswith("brep_")])],
    )  # fmt: skip


def curves(title: str, ways: Sequence[Way], chosen: Sequence[str] = _IN_CURVES, floor: float = 0.0) -> list[Chart]:
    """Recognition against rows of the ways that ask an oracle; no chart where there is none."""
    asked = [way for way in ways if way.label.removesuffix("_long") in chosen and not way.cells[0].self_reported]
    note = "The share recognised by the evaluation network; a curve ends where its attack was done or its rows were."
    return [Chart(title, drawn, note) for drawn in success([panel(title, asked)], floor)]


def ways_strip(results: Results, split: str, ways: Sequence[Way]) -> Strip:
    """The first victim's images, way by way, below a real photo of each class."""
    judge = results.judge(split)
    targets = ways[0].cells[0].targets[:SHOWN].tolist() if ways else []
    rows = [StripRow("a photo of the class", [judge.view().photo(target) for target in targets])]
    for way in ways:
        cell = way.cells[0]
        hits = cell.top1[-1, :SHOWN].tolist()
        words = ["recognised" if hit else "missed" for hit in hits]
        rows.append(StripRow(f"{way.label}, {way.contract}", list(cell.images[-1, :SHOWN]), words, hits))
    return Strip(f"{place_of(split)}, first victim", rows, "Framed where the evaluation network names the class.")


def _options_section(options: Sequence[Figure]) -> Section:
    rows = []
    for figure in options:
        left_out = figure.name.split("/")[2] if "/options/" in figure.name else "nothing (the improved setting)"
        reached = labels.count(figure.extra["rows"]) if figure.extra["reached"] else "not reached"
        known = [f"{figure.extra['recognition']:.0%}", labels.count(figure.extra["compatible_rows"])]
        rows.append([left_out.replace("_", " "), *known, reached, labels.number(figure.value)])
    text = (
        "What the setting of the authors' code recognises at best on the same victims, the rows that it needs for that,"
        " and the rows until as many are recognised when one option of the improved setting is put back."
    )
    heads = ["put back", "their best", "their rows a target", "rows a target", "ratio"]
    return Section("What makes it cheaper", [text], [Table(heads, rows)])
