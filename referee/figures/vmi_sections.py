"""The report of the campaign on VMI: measures by way, recognition against diversity, components, samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from referee.cell import Cell
from referee.figures.brep_sections import judged_by_its_kind
from referee.figures.latent import Way, ways_of
from referee.figures.sampled import samples_of
from referee.figures.shown import interval_text
from referee.metrics import recognise
from referee.report import Chart, Figure, Section, Strip, StripRow, Table, labels
from referee.report.scatter import Dots, scatter

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["sections"]

_SAMPLES = 8  # of one target in a strip
_RECOGNITION = {
    "evaluations_a_target": "evaluations",
    "samples_a_target": "samples",
    "image_top1": "one image",
    "top5": "rank <= 5",
    "any_of_five_tries": "any of 5 tries",
    "best_of_five_restarts": "best of 5 restarts",
    "other_architecture": "other network",
}
_LIKENESS = {
    "nearest": "nearest",
    "nearest_of_successes": "successes",
    "centroid": "centroid",
    "centroid_of_successes": "successes",
    "frechet": "Frechet",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "own_class": "own class",
    "other_classes": "others",
}
_SHOWN = ("vmi", "gmi", "ked_mi", "margin", "vmi_margin", "vmi_gan", "gmi_gan", "style_extended_flow", "adversarial")
_COUNTS = ("evaluations_a_target", "samples_a_target")


def sections(results: Results, cells: Sequence[Cell], figures: Sequence[Figure]) -> list[Section]:
    """One for each split, the front, the components, and the control."""
    found = {figure.name: figure for figure in figures}
    places: dict[str, list[Way]] = {}
    for (place, _, _), way in ways_of(cells, judged_by_its_kind(results), name=lambda split: split).items():
        places.setdefault(place, []).append(way)
    made = [_place(results, place, ways, found) for place, ways in places.items()]
    made += [*_front(found), *(part for place in places for part in _components(place, found)), *_control(found)]
    return made


def _place(results: Results, place: str, ways: list[Way], found: dict[str, Figure]) -> Section:
    judge = results.judge(ways[0].split)
    named = {way.label: figure for way in ways if (figure := found.get(f"vmi/{place}/{way.label}/top1")) is not None}
    first = [[label, interval_text(figure), *_row(figure, _RECOGNITION)] for label, figure in named.items()]
    for reference in judge.references(None, results.public(ways[0].split)):
        if reference.name in ("mean public face", "mean public image", "held-out photos"):
            values = {"evaluations_a_target": 0, "image_top1": reference.top1.mean(), "top5": reference.top5.mean()}
            shown = Figure(reference.name, float(reference.top1.mean()), extra=values)
            first.append([reference.name, interval_text(shown), *_row(shown, _RECOGNITION)])
    second = [[label, *_row(figure, _LIKENESS)] for label, figure in named.items()]
    some = next(iter(named.values()), None)
    texts = [
        judge.evaluation,
        "Top-1 is the share of all samples that it names; the image that an attack would hand over, if it had to choose"
        " one, stands beside it. Evaluations are those of the target model for each target, by the attack's own count.",
    ]
    tables = [Table(["way", "top-1 of samples [95%]", *_RECOGNITION.values()], first, title="Recognition")]
    if some is not None:
        texts.append(
            "The other network is one of the architecture conv_classifier; it is right on"
            f" {labels.number(some.extra['other_architecture_accuracy'])} of photos that it has not seen."
        )
        note = (
            "Distances to the nearest private image and to the centroid of the own class are ratios to those of"
            " held-out photos, over all samples and over successes. Precision to coverage with"
            f" k = {some.extra['k']}, within each class, averaged."
        )
        tables.append(Table(["way", *_LIKENESS.values()], second, title="Likeness and diversity", note=note))
    start = f"vmi/{place}/"
    minus = [
        [name.removeprefix(start).replace("_", " "), interval_text(figure)]
        for name, figure in found.items()
        if name.startswith(start) and "_minus_" in name
    ]
    if minus:
        tables.append(Table(["VMI less another method, target by target", "difference [95%]"], minus))
    return Section(f"Samples of each class: {place}", texts, tables, strips=_strips(results, place, ways))


def _row(figure: Figure, columns: dict[str, str]) -> list[str]:
    values = [(name, figure.extra.get(name)) for name in columns]
    return [
        labels.DASH if value is None else labels.count(value) if name in _COUNTS else labels.number(value)
        for name, value in values
    ]


def _strips(results: Results, place: str, ways: list[Way]) -> list[Strip]:
    """Samples of the first two targets of the first victim, way by way."""
    judge, made = results.judge(ways[0].split), []
    shown = [way for way in ways if way.label in _SHOWN]
    for target in ways[0].cells[0].targets[:2].tolist():
        photos = judge.view().photos[judge.view().people == target][0]
        rows = [StripRow("photos of the class", list(photos))]
        for way in shown:
            images = samples_of(results, way.cells[0])[list(way.cells[0].targets).index(target)][:_SAMPLES]
            seen = recognise(judge.network, images, np.full(len(images), target), device=judge.device).top1.tolist()
            rows.append(StripRow(way.label, list(images), ["recognised" if hit else "missed" for hit in seen], seen))
        made.append(Strip(f"{place}, class {target}, first victim", rows, "Framed where the network names the class."))
    return made


def _front(found: dict[str, Figure]) -> list[Section]:
    if (whole := found.get("vmi/front")) is None:
        return []
    charts = []
    for measure in ("coverage", "recall"):
        kinds = [
            Dots(name, colour, tuple((x, y, f"{label}: {x:.3f}, {y:.3f}") for label, x, y in points))
            for colour, (name, points) in enumerate(whole.extra[f"points_{measure}"].items())
        ]
        drawn = scatter(kinds, "samples recognised", f"{measure} of the class")
        charts.append(Chart(f"Recognition against {measure}", drawn, "A point for each method and weight."))
    said = (
        f"{whole.value:.0%} of the points of GMI and KED-MI are dominated by one of VMI in recognition and coverage"
        f" ({whole.extra['by_recall']:.0%} in recognition and recall); not dominated:"
        f" {', '.join(whole.extra['not_dominated']) or 'none'}."
    )
    tables = []
    if (flow := found.get("vmi/flow_minus_gaussian")) is not None:
        rows = [["a flow less a Gaussian", interval_text(flow)]]
        tables = [Table(["samples recognised at equal divergence from the prior", "difference [95%]"], rows)]
    return [Section("Recognition against diversity", [said], tables, charts)]


def _components(place: str, found: dict[str, Figure]) -> list[Section]:
    """Prior, space and family, with everything else alike."""
    if not any(name.startswith(f"vmi/{place}/gan_z_") for name in found):
        return []
    rows = []
    for prior, space in (("gan", "z"), ("gan", "extended"), ("style", "z"), ("style", "extended")):
        for family in ("gaussian", "mixture", "flow"):
            figure = found.get(f"vmi/{place}/{prior}_{space}_{family}/top1")
            if figure is None:
                rows.append([prior, space, family, *[labels.DASH] * 6])
                continue
            more = ("other_architecture", "recall", "coverage", "frechet", "divergence")
            rows.append([prior, space, family, interval_text(figure), *(labels.number(figure.extra[n]) for n in more)])
    text = (
        "The same objective, weight, start, steps and optimiser with every combination. A DCGAN takes its code at one"
        " place, so it has no extended space."
    )
    heads = ["prior", "space", "family", "top-1 [95%]", "other network", "recall", "coverage", "Frechet", "nats"]
    return [Section(f"Which component contributes what: {place}", [text], [Table(heads, rows, left=3)])]


def _control(found: dict[str, Figure]) -> list[Section]:
    mine = {name: figure for name, figure in found.items() if name.startswith("control/adversarial")}
    if (whole := mine.get("control/adversarial/top1")) is None:
        return []
    rows = []
    for name, figure in mine.items():
        where = name.removeprefix("control/adversarial").removesuffix("top1").strip("/") or "all"
        values = (figure.extra[key] for key in ("floor", "target_says", "other_architecture"))
        rows.append([where, interval_text(figure), *map(labels.number, values)])
    text = "Public images, changed a little, each pixel by a bounded amount, until the target takes them for the class."
    verdict = (
        "The evaluation network is not fooled by them: it says what it said of the unchanged images, up to 0.05."
        if whole.passed
        else "The evaluation network can be fooled: it names the class more often than on the unchanged images, so part"
        " of what it recognises may be no likeness."
    )
    other = (
        "The network of the architecture conv_classifier, which most targets here have too, is fooled where it names"
        " far more than the unchanged images' share: there its verdict on reconstructions is worth less."
    )
    table = Table(["images", "top-1 [95%]", "unchanged", "the target says", "other network"], rows)
    return [Section("Control: images that fool the target", [text, verdict, other], [table])]
