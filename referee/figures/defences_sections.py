"""The report of a matrix of defences: what to take, accuracy against leakage, every attack, what contracts cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from referee.cell import Cell
from referee.figures.defences_detection import detection_sections
from referee.figures.defences_floors import floor_words
from referee.figures.defences_words import ATTACKERS, Point, advice, front, points_of, said
from referee.figures.shown import interval_text
from referee.report import Chart, Figure, Section, Table, labels
from referee.report.charts import COLOURS
from referee.report.scatter import Dots, scatter

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["said", "sections"]

_STAR = "*"
_MATRIX_NOTE = (
    "The share recognised at the end of each attack. A dash: no cell, or none that is finished; refused: the contract"
    " does not release what the attack needs."
)


def sections(results: Results, cells: Sequence[Cell], figures: Sequence[Figure]) -> list[Section]:
    """One for each task, one on the questions, one on detectors, and one on what was not measured."""
    tasks = points_of(figures)
    made = [_task(task, points, figures) for task, points in tasks.items()]
    if asked := [figure for figure in figures if _question(figure)]:
        made.append(_questions(asked))
    made += detection_sections(figures)
    return [*made, _not_covered()] if made else made


def _task(task: str, points: Sequence[Point], figures: Sequence[Figure]) -> Section:
    texts = [
        "Accuracy is what an honest client gets on held-out photos, by way of the very release of the server. Leakage"
        " is the share of targets that the evaluation network recognises in the images of the best attack against each"
        " defence, for an attacker takes whichever works. Intervals are clustered by target over seeds. A change is"
        " that from the best of the same attacks on the undefended model, target by target; a defence counts as a help"
        " where the interval of its change lies below 0.",
    ]
    texts += filter(None, [floor_words(task, figures)])
    tables, charts = [], []
    for attacker, words in ATTACKERS.items():
        mine = [point for point in points if point.leak(attacker) is not None]
        if not mine:
            continue
        if told := advice(task, points, attacker):
            texts.append(f"Against {words}. {told}")
        tables.append(_traded(mine, attacker, words, figures))
        charts.append(_chart(task, mine, attacker, words))
    tables += [_matrix(points), *_contracts(points)]
    return Section(f"Defences: {task}", texts, tables, charts)


def _traded(points: Sequence[Point], attacker: str, words: str, figures: Sequence[Figure]) -> Table:
    best, rows = front(points, attacker), []
    spent = {figure.name.rpartition("/")[0]: figure.value for figure in figures if figure.name.endswith("/epsilon")}
    for point in points:
        leak = point.leak(attacker)
        assert leak is not None
        every = point.recognition.extra["attacks"][leak["attack"]]
        change = labels.DASH
        if "change" in leak:
            bounds = (leak["change"], leak["change_low"], leak["change_high"])
            change = interval_text(Figure("", bounds[0], low=bounds[1], high=bounds[2]))
        rows.append(
            [
                point.name + (f" {_STAR}" if point in best else "") + (" (unfinished)" if point.unfinished else ""),
                interval_text(point.accuracy),
                labels.DASH if point.loss is None else labels.ratio(100 * point.loss, 1),
                leak["attack"],
                interval_text(Figure("", leak["share"], low=leak["low"], high=leak["high"])),
                labels.ratio(every["other_network"], 3),
                change,
                _half(every, point),
                labels.short(every["capacity_bits"]),
                labels.number(spent.get(point.accuracy.name.rpartition("/")[0])),
            ]
        )
    heads = ["defence", "accuracy [95%]", "loss, points", "best attack", "recognised [95%]", "other network"]
    heads += ["change [95%]", "rows to half", "bits, at most", "epsilon"]
    note = f"{_STAR} on the front: no other defence is as accurate and leaks no more, and is better in one of both."
    if any(point.unfinished for point in points):
        note += " Unfinished: an attack has still to be run, which may be better than the best one here."
    return Table(heads, rows, title=f"Accuracy and leakage to {words}", note=note)


def _half(every: dict[str, object], point: Point) -> str:
    """Rows, or steps, until half of what the same attack recognises on the undefended model is recognised."""
    rows = every["rows_to_half"]
    if not isinstance(rows, int | float):
        return "never"
    return f"{labels.count(rows)} {'steps' if every['marks_are'] == 'steps' else ''}".strip()


def _chart(task: str, points: Sequence[Point], attacker: str, words: str) -> Chart:
    kinds: dict[str, list[tuple[float, float, str]]] = {}
    for point in points:
        leak = point.leak(attacker)
        assert leak is not None
        hover = f"{point.name}: accuracy {point.accuracy.value:.3f}, {leak['attack']} {leak['share']:.3f}"
        kinds.setdefault(point.defence, []).append((point.accuracy.value, leak["share"], hover))
    line = [
        (point.accuracy.value, leak["share"], f"front: {point.name}")
        for point in front(points, attacker)
        if (leak := point.leak(attacker))
    ]
    dots = [Dots("front", COLOURS - 1, tuple(line), joined=True)]
    dots += [Dots(name, colour % (COLOURS - 1), tuple(where)) for colour, (name, where) in enumerate(kinds.items())]
    drawn = scatter(dots, "accuracy of honest clients", "recognised by the best attack")
    return Chart(
        f"Accuracy against leakage to {words}, {task}", drawn, "A point for each strength; lower right is better."
    )


def _matrix(points: Sequence[Point]) -> Table:
    names = list(dict.fromkeys(name for point in points for name in point.recognition.extra["attacks"]))
    rows = []
    for point in points:
        row = [point.name]
        for name in names:
            found = point.recognition.extra["attacks"].get(name)
            refused = found is not None and found["refused"]
            row.append("refused" if refused else labels.ratio(None if found is None else found["share"], 3))
        rows.append(row)
    return Table(["defence", *names], rows, title="Every attack against every defence", note=_MATRIX_NOTE)


def _contracts(points: Sequence[Point]) -> list[Table]:
    mine = [point for point in points if point.kind in ("none", "response", "contract")]
    if len(mine) < 2:
        return []
    rows = []
    for point in mine:
        extra = point.accuracy.extra
        rows.append(
            [
                "full scores" if point.undefended else point.name,
                interval_text(point.accuracy),
                labels.ratio(100 * point.loss, 1) if point.loss is not None else labels.DASH,
                labels.ratio(extra["top5"], 3),
                labels.ratio(extra["calibration_error"], 3),
                labels.ratio(1.0 if point.undefended else extra["agreement"], 3),
            ]
        )
    heads = ["contract", "accuracy [95%]", "loss, points", "top-5", "calibration error", "same answer"]
    some = mine[0].accuracy.extra
    note = f"Of {some['photos']} held-out photos of {some['classes']} classes; the last column beside full scores."
    if some["classes"] <= 5:
        note += " With so few classes everything that is released is among the first five."
    return [Table(heads, rows, title="What a contract costs honest clients of the undefended model", note=note)]


def _question(figure: Figure) -> bool:
    return figure.name.startswith("defences/") and (
        "each" in figure.extra or figure.name.startswith("defences/rounding_")
    )


def _questions(asked: Sequence[Figure]) -> Section:
    rows = []
    for figure in asked:
        rows.append([figure.name.partition("/")[2], interval_text(figure)])
        if "unrounded" in figure.extra:
            plain = (figure.extra[key] for key in ("unrounded", "unrounded_low", "unrounded_high"))
            value, low, high = plain
            rows.append(["  the same, not rounded", interval_text(Figure("", value, low=low, high=high))])
        alone = {f"{name} alone": told for name, told in figure.extra.get("by_attack", {}).items()}
        for name, told in (figure.extra.get("each", {}) | alone).items():
            shown = interval_text(Figure("", told["change"], low=told["low"], high=told["high"]))
            rows.append([f"  {name}", shown])
    text = "Differences are taken target by target with the same seed; all else is the share recognised."
    return Section("Particular questions", [text], [Table(["question", "value [95%]"], rows)])


def _not_covered() -> Section:
    texts = [
        "Whoever has the weights has no response defence and no other restriction of a contract: they act on the"
        " server's answers alone. Attacks on the weights are therefore run on undefended models and on models defended"
        " in training, and the leakage behind a response defence or a contract is that to a holder of a key.",
        "An attack on labels meets a contract that releases scores as it meets one that releases labels, since anybody"
        " can take the arg max of what is released; with rounded scores that holds up to ties.",
        "The best attack is the best of those that were run; its share is the largest of several measured ones, and so"
        " rather too large than too small. Several defences at once were not combined, and attackers who train models"
        " of their own on defended answers are covered only where an attack of the matrix does so.",
    ]
    return Section("What is not covered", texts)
