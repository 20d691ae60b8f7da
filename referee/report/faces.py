"""Sections on attacks on faces beside their cells: time, line-ups, deblurring, rounding; made of named figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from referee.report import labels
from referee.report.sections import Section, Strip, StripRow, Table
from referee.report.summary import Figure

__all__ = ["deblurring_section", "lineup_section", "rounding_section", "time_section"]

_SHOWN = 8  # photos in a strip
_WHOM = {"": "all answers", "majority/": "majority of three", "best/": "best network"}


def time_section(figures: Sequence[Figure], prefix: str, models: Sequence[str]) -> list[Section]:
    """Seconds and steps a face, beside the paper's (Figure 8)."""
    found = _by_name(figures)
    rows = []
    for model in models:
        seconds, epochs = (found.get(f"{prefix}/{model}/{name}") for name in ("seconds_per_face", "epochs"))
        if seconds is not None and epochs is not None:
            option = str(seconds.extra.get("option", labels.DASH))
            rows.append([model, option, *(labels.number(n) for f in (seconds, epochs) for n in (f.value, f.paper))])
    heads = ["model", "option", "seconds a face", "paper", "steps", "paper"]
    note = "All faces of a cell are one batch; its whole run is counted, the download and the start among it."
    return [Section("Time (Figure 8)", tables=[Table(heads, rows, left=2, note=note)])] if rows else []


def lineup_section(figures: Sequence[Figure], prefix: str, models: Sequence[str]) -> list[Section]:
    """Overall, identified, excluded (Figure 9)."""
    found = _by_name(figures)
    rows = []
    for model in models:
        for whom, words in _WHOM.items():
            rates = [
                found.get(f"{prefix}/lineup/{model}/{whom}{rate}") for rate in ("overall", "identified", "excluded")
            ]
            if all(rates):
                rows.append([model, words, *(_interval(rate) for rate in rates)])
    text = (
        "A reconstruction beside five photos: which shows the same person, or is the person not there? In 80% of the"
        " questions one of the photos shows the person, a photo that no network has seen; the others are training"
        " photos of other people. Three evaluation networks answer; the similarity below which they say that nobody is"
        " there was fixed beforehand on real photos, at one false alarm in a hundred line-ups without the person."
        " Random answers are right in one of six."
    )
    warning = (
        "The networks know the people's training photos, and strangers' photos are training photos: line-ups with"
        " strangers whom nobody has seen are harder for them. The same questions lie in the folder lineups, for people"
        " to answer."
    )
    table = Table(["model", "answers", "overall", "identified", "excluded"], rows, left=2)
    return [Section("Line-ups (Figure 9)", [text, warning], [table])] if rows else []


def rounding_section(figures: Sequence[Figure], prefix: str, attacks: Mapping[str, Mapping[str, str]]) -> list[Section]:
    """What rounding costs an honest client and what it leaves to an attack (Figure 12). `attacks` gives for each model
    and contract label the best attack's recognition in words.
    """
    found = _by_name(figures)
    rows = []
    for model, recognised in attacks.items():
        for contract, top1 in recognised.items():
            place = f"{prefix}/rounding/{model}/{contract}"
            accuracy, error = found.get(f"{place}/accuracy"), found.get(f"{place}/calibration_error")
            if accuracy is not None and error is not None:
                brier = labels.ratio(float(error.extra["brier"]), 3)
                rows.append(
                    [model, contract, labels.ratio(accuracy.value, 3), labels.ratio(error.value, 3), brier, top1]
                )
    heads = ["model", "scores", "accuracy", "calibration error", "Brier", "attack: recognised"]
    text = (
        "Accuracy and calibration of the released scores on photos that nobody has seen, and the attack through them."
    )
    return [Section("Rounding (Figure 12)", [text], [Table(heads, rows, left=2)])] if rows else []


def deblurring_section(
    figures: Sequence[Figure],
    prefix: str,
    shown: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray, Sequence[str], Sequence[bool]]],
) -> list[Section]:
    """Rates, and for each cell the photos as given (N, C, H, W), what became of them, and as they were, with the words
    below and which of them are right.
    """
    rows = []
    for figure in figures:
        if figure.name.startswith(f"{prefix}/deblur"):
            extra = figure.extra
            before = [
                labels.ratio(extra[key], 3) if key in extra else labels.DASH for key in ("blurred", "label_right")
            ]
            rows.append([figure.name.removeprefix(f"{prefix}/"), _interval(figure), *before, str(extra["photos"])])
    strips = [
        Strip(
            title,
            [
                StripRow("given", list(given[:_SHOWN])),
                StripRow("deblurred", list(made[:_SHOWN]), words[:_SHOWN], good[:_SHOWN]),
                StripRow("real", list(real[:_SHOWN])),
            ],
        )
        for title, given, made, real, words, good in shown
    ]
    heads = ["figure", "share of photos", "recognised while blurred", "right label", "photos"]
    text = "Photos so blurred that the model no longer recognises them: of people in the model, and of others."
    return [Section("Deblurring (section 5)", [text], [Table(heads, rows)], strips=strips)] if rows else []


def _by_name(figures: Sequence[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def _interval(figure: Figure | None) -> str:
    if figure is None:
        return labels.DASH
    value = labels.ratio(figure.value, 3)
    if figure.low is None or figure.high is None:
        return value
    return f"{value} [{labels.ratio(figure.low)}, {labels.ratio(figure.high)}]"
