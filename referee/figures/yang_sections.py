"""What the report shows of the campaign on Yang et al., CCS 2019: tables of figures, curves, and images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from attacker.poses import POSES
from referee.cell import Cell
from referee.figures.inverted import Inverted
from referee.figures.shown import interval_text, strip, value_text, with_error
from referee.figures.yang_photos import AUXILIARY
from referee.figures.yang_scenario_sections import class_section, developer_section, feature_section
from referee.report import Chart, Figure, Section, Strip, Table, labels
from referee.report.bars import Line, Value, lines

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["inversion_sections"]

_TIMES = (10, 20, 40, 60, 120, 240, 480, 900, 1800)  # seconds of training at which a curve is read
_Found = dict[str, Figure]


def inversion_sections(
    results: Results, cells: Sequence[Cell], photos: Sequence[Inverted], figures: Sequence[Figure]
) -> list[Section]:
    """A section for each of the paper's tables and figures that has results."""
    found = {figure.name: figure for figure in figures}
    sets = list(dict.fromkeys(one.data for one in photos))
    sections = [
        _auxiliary(results, photos, found, sets),
        _limits(found, sets),
        _truncation(results, photos, found, sets),
        _classes(found, sets),
        class_section(results, cells, found, sets),
        developer_section(results, photos, found, sets),
        _alignment(photos, found, sets),
        feature_section(photos, found),
        _speed(found),
    ]
    return [section for section in sections if section.tables]


def _auxiliary(results: Results, photos: Sequence[Inverted], found: _Found, sets: Sequence[str]) -> Section:
    rows, curves, strips = [], [], []
    for data in sets:
        for auxiliary in AUXILIARY:
            place = f"yang/{data}/{auxiliary}"
            unseen, recognised = found.get(f"{place}/unseen_mse"), found.get(f"{place}/recognised")
            if unseen is None or recognised is None:
                continue
            extra = unseen.extra
            rows.append(
                [
                    data, auxiliary, interval_text(unseen), value_text(found.get(f"{place}/training_mse")),
                    labels.number(extra["mean_image"]), labels.number(extra["class_means"]),
                    f"{extra['psnr']:.1f}", labels.ratio(extra["ssim"]), labels.ratio(recognised.value, 3),
                    labels.ratio(recognised.extra["among_private_classes"], 3), labels.number(unseen.paper),
                    labels.count(extra["rows"]),
                ]
            )  # fmt: skip
            one = next(one for one in photos if (one.data, one.label) == (data, auxiliary))
            curves.append(Line(f"{data} {auxiliary}", _curve(results, one)))
            strips.append(strip(f"{data}, auxiliary set: {auxiliary}", [("reconstructed", one, None)]))
    heads = [
        "data", "auxiliary set", "MSE, unseen", "MSE, training", "mean image", "class means", "PSNR", "SSIM",
        "recognised", "of private", "paper", "rows, ledger",
    ]  # fmt: skip
    text = (
        "A network that was trained on the oracle's answers for other images inverts the answers that somebody else got"
        " about photos which the attacker never sees. Same: other photos of the same classes; generic: photos of other"
        " classes; distinct: photos of something else. Mean image and class means are floors: what the mean of the"
        " private photos, or of those of the right class, would reach."
    )
    note = (
        "Unseen photos were seen by nobody, training photos by the target. Recognised: the evaluation network, which"
        " knows the public classes too, names the right class; of private: it may choose among the target's classes"
        " alone. 95% intervals by bootstrap over photos."
    )
    told = [
        [line.name, *(labels.DASH if v.value is None else f"{v.value:.4f}" for v in line.values)] for line in curves
    ]
    times = Table(["held-out MSE after", *(f"{time} s" for time in _TIMES)], told, title="Training time")
    chart = Chart(
        "Held-out error against training time",
        lines("Held-out error against training time", [f"{t:g}" for t in _TIMES], curves, x_name="seconds, one core"),
        "On the attacker's own held-out images, by which the best epoch is chosen; the last epoch that had ended.",
    )
    return Section(
        "Auxiliary sets (Table 2)",
        [text],
        [Table(heads, rows, left=2, note=note), times] if rows else [],
        [chart],
        strips,
    )


def _curve(results: Results, one: Inverted) -> list[Value]:
    """The lowest held-out error so far at each of `_TIMES`; None before the first epoch and after the last."""
    kept = json.loads((results.attacker_folder(results.planned(one.cell)) / "training.json").read_text())
    ends, best = np.array(kept["seconds"]), np.minimum.accumulate(kept["held_out_mse"])
    values = []
    for time in _TIMES:
        ended = int((ends <= time).sum())
        over = time > 2 * ends[-1]
        values.append(Value(None if not ended or over else float(best[ended - 1])))
    return values


def _limits(found: _Found, sets: Sequence[str]) -> Section:
    rows, texts = [], []
    for data in sets:
        base = found.get(f"yang/{data}/same/unseen_mse")
        if base is None:
            continue
        changed = {name.split("/")[3]: figure for name, figure in found.items() if f"yang/{data}/limit/" in name}
        if changed:
            rows.append([data, "as in Table 2", interval_text(base), "", labels.number(base.extra["seconds"])])
        for name, figure in changed.items():
            what, seconds = name.replace("_", " ").replace("=", " "), figure.extra.get("seconds")
            if "median_confidence" in figure.extra:
                what += f" (median {figure.extra['median_confidence']:.6f})"
            ratio, took = f"{figure.value / base.value:.2f}", labels.number(seconds) if seconds else labels.DASH
            rows.append([data, what, interval_text(figure), ratio, took])
        runs = {name: figure.value / base.value for name, figure in changed.items() if "seconds" in figure.extra}
        if runs:
            helped, hurt = min(runs, key=lambda name: runs[name]), max(runs, key=lambda name: runs[name])
            texts.append(
                f"{data}: of what was changed, {helped.replace('_', ' ')} lowers the error most (to"
                f" {runs[helped]:.2f} of it) and {hurt.replace('_', ' ')} raises it most (to {runs[hurt]:.2f})."
            )
    text = "The run on the same distribution again, with one thing changed; and its photos by the target's confidence."
    heads = ["data", "changed", "MSE, unseen", "over the first", "seconds"]
    return Section("What holds the error back", [text, *texts], [Table(heads, rows, left=2)] if rows else [])


def _truncation(results: Results, photos: Sequence[Inverted], found: _Found, sets: Sequence[str]) -> Section:
    rows, charts, strips = [], [], []
    for data in sets:
        at = {int(name.split("=")[1].split("/")[0]): found[name] for name in found
              if name.startswith(f"yang/{data}/m=") and name.endswith("/ours_over_prior")}  # fmt: skip
        for m, ratio in at.items():
            ours, prior = (found[f"yang/{data}/m={m}/{label}_mse"] for label in ("ours", "prior"))
            rows.append(
                [
                    data,
                    str(m),
                    interval_text(ours),
                    interval_text(prior),
                    interval_text(ratio),
                    str(ratio.extra["runs"]),
                ]
            )
        if at:
            series = [Line(label, [with_error(found[f"yang/{data}/m={m}/{label}_mse"]) for m in at])
                      for label in ("ours", "prior")]  # fmt: skip
            title = f"{data}: error against the number of released scores"
            charts.append(Chart(title, lines(title, [f"m = {m}" for m in at], series, x_name="scores released")))
            strips += _truncated_strips(results, photos, data)
    text = (
        "Only the m largest scores are released. Ours: trained on answers that are truncated in the same way. Prior:"
        " the same network trained on full answers, with a key of its own, and fed truncated ones. Where all scores are"
        " released both are the same method, from other seeds."
    )
    heads = ["data", "m", "MSE, ours", "MSE, prior", "ours / prior", "runs"]
    note = "95% intervals of Student over runs, of which each has its own victim; of the ratio on logarithms."
    tables = [Table(heads, rows, left=2, note=note)] if rows else []
    return Section("Truncation (Figure 8)", [text], tables, charts, strips)


def _truncated_strips(results: Results, photos: Sequence[Inverted], data: str) -> list[Strip]:
    """Of the first victim: each m by both ways."""
    mine = [one for one in photos if one.data == data and one.label in ("ours", "prior")]
    shown: dict[tuple[int, str], tuple[str, Inverted, str | None]] = {}
    for one in mine:
        if one.cell.victim == mine[0].cell.victim:
            for name, contract in results.planned(one.cell).asked.items():
                m = contract.top_k or len(one.judge.split.private)
                shown.setdefault((m, one.label), (f"m = {m}, {one.label}", one, name))
    return [strip(f"{data}, {mine[0].cell.victim}", [shown[key] for key in sorted(shown)])] if shown else []


def _classes(found: _Found, sets: Sequence[str]) -> Section:
    rows = []
    for data in sets:
        for name, figure in found.items():
            if name.startswith(f"yang/{data}/k="):
                k = name.split("=")[1].split("/")[0]
                rows.append([data, k, interval_text(figure), labels.number(figure.extra["same_photos_mse"])])
    text = "Models of k classes, all k scores released: more classes tell more of a photo."
    heads = ["data", "k", "MSE, unseen", "on photos that all models know"]
    return Section("Number of classes (Figure 13)", [text], [Table(heads, rows, left=2)] if rows else [])


def _alignment(photos: Sequence[Inverted], found: _Found, sets: Sequence[str]) -> Section:
    rows, strips = [], []
    for data in sets:
        poses = {one.label.removeprefix("pose_"): one for one in photos
                 if one.data == data and one.label.startswith("pose_")}  # fmt: skip
        apart = found.get(f"yang/{data}/alignment/right_minus_left")
        if apart is None:
            continue
        values = [interval_text(found[f"yang/{data}/alignment/{pose}"]) for pose in POSES]
        real = labels.ratio(float(found[f"yang/{data}/alignment/left"].extra["photos"]), 3)
        rows.append([data, apart.unit, *values, interval_text(apart), real])
        strips.append(strip(data, [(f"auxiliary set: {pose}", poses[pose], None) for pose in POSES]))
    text = (
        "Auxiliary images of one pose only: how the images lean (digits, columns a row) or which side their bright part"
        " lies on (faces, from -1 to 1), for the same answers."
    )
    heads = ["data", "measure", *POSES, "right - left", "the photos"]
    return Section("Alignment (Figure 7)", [text], [Table(heads, rows, left=2)] if rows else [], strips=strips)


def _speed(found: _Found) -> Section:
    figure = found.get("yang/queries_first_speedup")
    if figure is None:
        return Section("")
    rows = [[name, f"{count:,}"] for name, count in figure.extra["rows"].items()]
    text = (
        f"The same network is trained {interval_text(figure)} times as fast when every auxiliary image is asked once,"
        " beforehand, as when each batch is asked again at each step; and for a fraction of the rows."
    )
    return Section("Queries first", [text], [Table(["run", "rows"], rows)])
