"""Sections on class inference, the malicious developer and the feature service of Yang et al., CCS 2019."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from referee.cell import Cell
from referee.figures.inverted import Inverted, label_of, set_of
from referee.figures.shown import SHOWN, interval_text, strip
from referee.figures.yang_classes import class_place
from referee.figures.yang_developer import developers_images
from referee.report import Figure, Section, Strip, StripRow, Table, labels

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["class_section", "developer_section", "feature_section"]

_Found = dict[str, Figure]


def class_section(results: Results, cells: Sequence[Cell], found: _Found, sets: Sequence[str]) -> Section:
    rows, strips, texts = [], [], []
    for data in sets:
        place = class_place(data) + "/class_inference/"
        ways = [name for name in found if name.startswith(place)]
        rows += [[data, name.removeprefix(place), interval_text(found[name])] for name in ways]
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
                    known = len(judge.split.known)
                    texts.append(
                        f"{data}: the evaluation network tells {known} classes apart (chance is {1 / known:.3f}) and"
                        f" names {judge.test_accuracy:.1%} of real photos that it has not seen."
                    )
                    real = [judge.view().photo(target) for target in one.targets[:SHOWN].tolist()]
                    shown.append(StripRow("a photo of the class", real))
                hits = one.top1[-1, :SHOWN].tolist()
                words = ["recognised" if hit else "missed" for hit in hits]
                shown.append(StripRow(way, list(one.images[-1, :SHOWN]), words, hits, stretch=way.startswith("mi_")))
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


def developer_section(results: Results, photos: Sequence[Inverted], found: _Found, sets: Sequence[str]) -> Section:
    rows, texts, strips = [], [], []
    victims = {victim.name: victim for victim in results.plan.victims}
    for data in sets:
        place = f"{class_place(data)}/joint/"
        rows += [[data, name.removeprefix(place), interval_text(figure)] for name, figure in found.items()
                 if name.startswith(place)]  # fmt: skip
        for what, words in (("same", "other photos of its classes"), ("generic", "photos of other classes")):
            flagged, alarms = (found.get(f"{place}detector/{what}/{name}") for name in ("flagged", "false_alarms"))
            if flagged is not None and alarms is not None:
                texts.append(
                    f"{data}: a buyer who trains {alarms.extra['models']} ordinary models and inverts all models in the"
                    f" same way, on {words}, flags {flagged.value:.0%} of {flagged.extra['models']} that were trained"
                    f" jointly, and {alarms.value:.0%} of the ordinary ones when each is tested against the others"
                    f" (level {flagged.extra['level']:g})."
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
            beside = strip(f"{data}, malicious developer", others)
            own = StripRow("developer's own network", list(images[chosen][:SHOWN]))
            strips.append(Strip(beside.title, [*beside.rows, own], beside.note))
    text = (
        "A developer who trains the classifier together with a network that inverts it, against networks that are"
        " trained afterwards on an ordinary model's answers: for the developer's own photos (blackbox), and for these"
        " and generic ones (blackbox_generic). Errors are on photos that nobody has seen."
    )
    tables = [Table(["data", "figure", "value [95%]"], rows, left=2)] if rows else []
    return Section("Joint training by a malicious developer (Table 3)", [text, *texts], tables, strips=strips)


def feature_section(photos: Sequence[Inverted], found: _Found) -> Section:
    names = [name for name in found if name.startswith("yang/features/") and name.endswith("/unknown_mse")]
    rows = []
    for name in names:
        unknown, known = found[name], found.get(name.replace("unknown", "known"))
        what = name.removeprefix("yang/features/").removesuffix("/unknown_mse").replace("/", ", ")
        paper = [labels.number(figure.paper if figure else None) for figure in (unknown, known)]
        rows.append(
            [what, interval_text(unknown), interval_text(known), *paper, labels.number(unknown.extra["mean_image"])]
        )
    text = (
        "A network that tells 80 measurements of a digit's shape, in groups of 17, 3 and 60, each in [0, 1]; the"
        " contract names the groups that are released. Unknown: photos of classes that the auxiliary set does not show;"
        " known: other photos of those that it shows. Rounded to so many decimals when inverted; trained_: the"
        " network was trained on rounded ones too. The paper's figures are of a commercial service for faces."
    )
    heads = ["features", "MSE, unknown", "MSE, known", "paper, unknown", "paper, known", "mean image"]
    strips = [
        strip(f"{one.given.answers.shape[1]} features, classes unknown", [("reconstructed", one, None)], "unknown")
        for one in photos
        if one.label == "features"
    ]
    return Section("A feature service (Table 4)", [text], [Table(heads, rows)] if rows else [], strips=strips)
