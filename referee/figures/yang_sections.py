"""What the report shows of the campaign on Yang et al., CCS 2019: tables of figures, curves, and images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from attacker.poses import POSES
from referee.cell import Cell
from referee.figures.inverted import Inverted, label_of, set_of
from referee.figures.yang_classes import class_place
from referee.figures.yang_developer import developers_images
from referee.figures.yang_photos import AUXILIARY
from referee.report import Chart, Figure, Section, Strip, StripRow, Table, labels
from referee.report.bars import Line, Value, lines

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["inversion_sections"]

_SHOWN = 10  # images in a strip
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
        _class_inference(results, cells, found, sets),
        _developer(results, photos, found, sets),
        _alignment(photos, found, sets),
        _features(photos, found),
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
                    data, auxiliary, _interval(unseen), _value(found.get(f"{place}/training_mse")),
                    labels.number(extra["mean_image"]), labels.number(extra["class_means"]),
                    f"{extra['psnr']:.1f}", labels.ratio(extra["ssim"]), labels.ratio(recognised.value, 3),
                    labels.ratio(recognised.extra["among_private_classes"], 3), labels.number(unseen.paper),
                ]
            )  # fmt: skip
            one = next(one for one in photos if (one.data, one.label) == (data, auxiliary))
            curves.append(Line(f"{data} {auxiliary}", _curve(results, one)))
            strips.append(_strip(f"{data}, auxiliary set: {auxiliary}", [("reconstructed", one, None)]))
    heads = [
        "data", "auxiliary set", "MSE, unseen", "MSE, training", "mean image", "class means", "PSNR", "SSIM",
        "recognised", "of private", "paper",
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
        " alone."
    )
    chart = Chart(
        "Held-out error against training time",
        lines("Held-out error against training time", [f"{t:g}" for t in _TIMES], curves, x_name="seconds, one core"),
        "On the attacker's own held-out images, by which the best epoch is chosen; the last epoch that had ended.",
    )
    return Section("Auxiliary sets (Table 2)", [text], [Table(heads, rows, left=2, note=note)], [chart], strips)


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
    rows = []
    for data in sets:
        base = found.get(f"yang/{data}/same/unseen_mse")
        changed = [name for name in found if name.startswith(f"yang/{data}/limit/")]
        if changed and base is not None:
            rows.append([data, "as in Table 2", _interval(base), "", labels.number(base.extra["seconds"])])
        for name in changed:
            figure, what = found[name], name.split("/")[3].replace("_", " ").replace("=", " ")
            ratio = "" if base is None else f"{figure.value / base.value:.2f}"
            seconds = figure.extra.get("seconds")
            if "median_confidence" in figure.extra:
                what += f" (median {figure.extra['median_confidence']:.6f})"
            rows.append([data, what, _interval(figure), ratio, labels.number(seconds) if seconds else labels.DASH])
    text = "The run on the same distribution again, with one thing changed; and its photos by the target's confidence."
    heads = ["data", "changed", "MSE, unseen", "over the first", "seconds"]
    return Section("What holds the error back", [text], [Table(heads, rows, left=2)] if rows else [])


def _truncation(results: Results, photos: Sequence[Inverted], found: _Found, sets: Sequence[str]) -> Section:
    rows, charts, strips = [], [], []
    for data in sets:
        at = {int(name.split("=")[1].split("/")[0]): found[name] for name in found
              if name.startswith(f"yang/{data}/m=") and name.endswith("/ours_over_prior")}  # fmt: skip
        for m, ratio in at.items():
            ours, prior = (found[f"yang/{data}/m={m}/{label}_mse"] for label in ("ours", "prior"))
            rows.append([data, str(m), _interval(ours), _interval(prior), _interval(ratio), str(ratio.extra["runs"])])
        if at:
            series = [Line(label, [_with_error(found[f"yang/{data}/m={m}/{label}_mse"]) for m in at])
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
    return [_strip(f"{data}, {mine[0].cell.victim}", [shown[key] for key in sorted(shown)])] if shown else []


def _classes(found: _Found, sets: Sequence[str]) -> Section:
    rows = []
    for data in sets:
        for name, figure in found.items():
            if name.startswith(f"yang/{data}/k="):
                k = name.split("=")[1].split("/")[0]
                rows.append([data, k, _interval(figure), labels.number(figure.extra["same_photos_mse"])])
    text = "Models of k classes, all k scores released: more classes tell more of a photo."
    heads = ["data", "k", "MSE, unseen", "on photos that all models know"]
    return Section("Number of classes (Figure 13)", [text], [Table(heads, rows, left=2)] if rows else [])


def _class_inference(results: Results, cells: Sequence[Cell], found: _Found, sets: Sequence[str]) -> Section:
    rows, strips, texts = [], [], []
    for data in sets:
        place = class_place(data) + "/class_inference/"
        ways = [name for name in found if name.startswith(place)]
        rows += [[data, name.removeprefix(place), _interval(found[name])] for name in ways]
        if (seen := found.get(f"{class_place(data)}/classes_estimated")) is not None:
            texts.append(
                f"{data}: the labels of the auxiliary set show {seen.value:.0f} classes, of {seen.extra['truth']}."
            )
        shown: list[StripRow] = []
        for name in ways:
            way = name.removeprefix(place).removesuffix("/top1")
            one = next((cell for cell in cells if label_of(cell) == way and _of(results, cell, data)), None)
            if one is not None:
                judge = results.judge(one.split)
                if not shown:
                    real = [judge.view().photo(target) for target in one.targets[:_SHOWN].tolist()]
                    shown.append(StripRow("a photo of the class", real))
                hits = one.top1[-1, :_SHOWN].tolist()
                words = ["recognised" if hit else "missed" for hit in hits]
                shown.append(StripRow(way, list(one.images[-1, :_SHOWN]), words, hits, stretch=way.startswith("mi_")))
        strips += [Strip(f"{data}, first victim", shown)] if shown else []
    text = (
        "An image of each class, from the largest score alone: one-hot answers go into a network that was trained on"
        " the auxiliary set's largest scores (classes), into one trained on full answers (classes_prior), and MI-Face"
        " has the weights and cleans its images as the paper does."
    )
    tables = [Table(["data", "figure", "top-1, or difference [95%]"], rows, left=2)] if rows else []
    return Section("Training class inference (Figure 14)", [text, *texts], tables, strips=strips)


def _of(results: Results, cell: Cell, data: str) -> bool:
    return set_of(results.judge(cell.split)) == data


def _developer(results: Results, photos: Sequence[Inverted], found: _Found, sets: Sequence[str]) -> Section:
    rows, texts, strips = [], [], []
    victims = {victim.name: victim for victim in results.plan.victims}
    for data in sets:
        place = f"{class_place(data)}/joint/"
        rows += [[data, name.removeprefix(place), _interval(figure)] for name, figure in found.items()
                 if name.startswith(place)]  # fmt: skip
        flagged, alarms = (found.get(f"{place}detector/{name}") for name in ("flagged", "false_alarms"))
        if flagged is not None and alarms is not None:
            texts.append(
                f"{data}: a buyer who trains {len(flagged.extra['ordinary'])} ordinary models and inverts all in the"
                f" same way flags {flagged.value:.0%} of {flagged.extra['models']} jointly trained models, and"
                f" {alarms.value:.0%} of the ordinary ones when each is tested against the others (level"
                f" {flagged.extra['level']:g})."
            )
        joint = next(
            (one for one in photos if one.data == data and one.label == "generic" and victims[one.cell.victim].joint),
            None,
        )
        if joint is not None:
            images = developers_images(results, joint, victims[joint.cell.victim])
            others = [(one.label, one, None) for one in photos if one.data == data
                      and one.label in ("developer", "developer_generic")
                      and victims[one.cell.victim].seed == victims[joint.cell.victim].seed]  # fmt: skip
            chosen = joint.where("unseen")
            strip = _strip(f"{data}, malicious developer", others)
            own = StripRow("developer's own network", list(images[chosen][:_SHOWN]))
            strips.append(Strip(strip.title, [*strip.rows, own] if strip.rows else [own]))
    text = (
        "A developer who trains the classifier together with a network that inverts it, against networks that are"
        " trained afterwards on an ordinary model's answers: for the developer's own photos (blackbox), and for these"
        " and generic ones (blackbox_generic). Errors are on photos that nobody has seen."
    )
    tables = [Table(["data", "figure", "value [95%]"], rows, left=2)] if rows else []
    return Section("Joint training by a malicious developer (Table 3)", [text, *texts], tables, strips=strips)


def _alignment(photos: Sequence[Inverted], found: _Found, sets: Sequence[str]) -> Section:
    rows, strips = [], []
    for data in sets:
        poses = {one.label.removeprefix("pose_"): one for one in photos
                 if one.data == data and one.label.startswith("pose_")}  # fmt: skip
        apart = found.get(f"yang/{data}/alignment/right_minus_left")
        if apart is None:
            continue
        values = [_interval(found[f"yang/{data}/alignment/{pose}"]) for pose in POSES]
        real = labels.ratio(float(found[f"yang/{data}/alignment/left"].extra["photos"]), 3)
        rows.append([data, apart.unit, *values, _interval(apart), real])
        strips.append(_strip(data, [(f"auxiliary set: {pose}", poses[pose], None) for pose in POSES]))
    text = (
        "Auxiliary images of one pose only: how the images lean (digits, columns a row) or which side their bright part"
        " lies on (faces, from -1 to 1), for the same answers."
    )
    heads = ["data", "measure", *POSES, "right - left", "the photos"]
    return Section("Alignment (Figure 7)", [text], [Table(heads, rows, left=2)] if rows else [], strips=strips)


def _features(photos: Sequence[Inverted], found: _Found) -> Section:
    names = [name for name in found if name.startswith("yang/features/") and name.endswith("/unknown_mse")]
    rows = []
    for name in names:
        unknown, known = found[name], found.get(name.replace("unknown", "known"))
        what = name.removeprefix("yang/features/").removesuffix("/unknown_mse").replace("/", ", ")
        paper = [labels.number(figure.paper if figure else None) for figure in (unknown, known)]
        rows.append([what, _interval(unknown), _interval(known), *paper, labels.number(unknown.extra["mean_image"])])
    text = (
        "A network that tells 80 measurements of a digit's shape, in groups of 17, 3 and 60, each in [0, 1]; the"
        " contract names the groups that are released. Unknown: photos of classes that the auxiliary set does not show;"
        " known: other photos of those that it shows. Rounded to so many decimals when inverted; trained_: the"
        " network was trained on rounded ones too. The paper's figures are of a commercial service for faces."
    )
    heads = ["features", "MSE, unknown", "MSE, known", "paper, unknown", "paper, known", "mean image"]
    shown = [("features", one, None) for one in photos if one.label == "features"]
    strips = [
        _strip(f"{one.given.answers.shape[1]} features", [("reconstructed", one, None)], kind)
        for _, one, _ in shown
        for kind in ("unknown",)
    ]
    return Section("A feature service (Table 4)", [text], [Table(heads, rows)] if rows else [], strips=strips)


def _speed(found: _Found) -> Section:
    figure = found.get("yang/queries_first_speedup")
    if figure is None:
        return Section("")
    rows = [[name, f"{count:,}"] for name, count in figure.extra["rows"].items()]
    text = (
        f"The same network is trained {_interval(figure)} times as fast when every auxiliary image is asked once,"
        " beforehand, as when each batch is asked again at each step; and for a fraction of the rows."
    )
    return Section("Queries first", [text], [Table(["run", "rows"], rows)])


def _strip(title: str, rows: Sequence[tuple[str, Inverted, str | None]], kind: str = "unseen") -> Strip:
    """Rows of (label, run, contract): the first photos of a kind, and what each run made of their answers."""
    shown: list[StripRow] = []
    for label, one, contract in rows:
        chosen = np.flatnonzero(one.where(kind, contract))[:_SHOWN]
        if not shown:
            shown.append(StripRow("real photo", list(one.given.photos[chosen])))
        errors = one.cell.mse[-1][chosen]
        hits = one.cell.top1[-1][chosen].tolist()
        shown.append(StripRow(label, list(one.cell.images[-1][chosen]), [f"{e:.3f}" for e in errors], hits))
    return Strip(title, shown, "Below each its squared error; framed where the evaluation network names the class.")


def _value(figure: Figure | None) -> str:
    return labels.DASH if figure is None else labels.number(figure.value)


def _interval(figure: Figure | None) -> str:
    if figure is None or figure.low is None or figure.high is None:
        return _value(figure)
    return f"{labels.number(figure.value)} [{figure.low:.3g}, {figure.high:.3g}]".replace("-", "\u2212")


def _with_error(figure: Figure) -> Value:
    half = None if figure.low is None or figure.high is None else (figure.high - figure.low) / 2
    return Value(figure.value, half)
