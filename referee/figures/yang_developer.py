"""Scenario 3 of Yang et al., CCS 2019: a classifier that was trained together with the network that inverts it (section
5.6, Table 3), and the test with which a buyer finds it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from oracle_server.victims.splits import class_of
from oracle_server.victims.training import error_rate
from referee.figures.inverted import Inverted, mean_interval, ratio_interval
from referee.figures.yang_classes import class_place
from referee.hosted import developers_network
from referee.inspection import Inspection, inspect
from referee.metrics.images import mse
from referee.report import Figure

if TYPE_CHECKING:
    from referee.campaign import Victim
    from referee.results import Results

__all__ = ["developer_figures", "developers_images"]

# Table 3: the joint training's error over that of a network trained on the same photos and generic ones.
_PAPER = {"faces": 0.0085 / 0.0083}
_BLACK_BOX, _GENERIC = "developer", "developer_generic"  # labels of cells
_BUYERS = {"buyer": "same", "generic": "generic"}  # of a buyer's cells, by what the buyer's own images show
_LEVEL, _FEWEST = 0.01, 4  # of the buyer's test; ordinary models, each of which is tested against the others


def developer_figures(results: Results, photos: Sequence[Inverted]) -> list[Figure]:
    """Table 3 and the buyer's test, for each data set that has jointly trained victims."""
    victims = {victim.name: victim for victim in results.plan.victims}
    found: list[Figure] = []
    for data in dict.fromkeys(one.data for one in photos):
        mine, place = [one for one in photos if one.data == data], f"{class_place(data)}/joint"
        joint = [one for one in mine if one.label == "generic" and victims[one.cell.victim].joint is not None]
        if joint:
            found += _table3(results, place, data, mine, joint, victims)
        for label, images in _BUYERS.items():
            runs = [one for one in mine if one.label == label]
            suspects = [one for one in runs if victims[one.cell.victim].joint is not None]
            splits = {one.cell.split for one in suspects}
            ordinary = [one for one in runs if one not in suspects and one.cell.split in splits]
            if len(splits) == 1 and len(ordinary) >= _FEWEST:
                found += _buyer(results, f"{place}/detector/{images}", suspects, ordinary)
    return found


def developers_images(results: Results, one: Inverted, victim: Victim) -> np.ndarray:
    """What the developer's own network makes of the answers that the cell was given: (N, C, H, W)."""
    return developers_network(victim, results.repository).invert(one.given.answers)


def _table3(
    results: Results,
    place: str,
    data: str,
    mine: Sequence[Inverted],
    joint: Sequence[Inverted],
    victims: dict[str, Victim],
) -> Iterable[Figure]:
    """Errors on unseen photos, victims of one seed paired: the joint training's own network against networks that are
    trained afterwards on an ordinary model's answers.
    """
    errors: dict[str, dict[int, float]] = {"joint": {}}
    accuracy: dict[str, dict[int, float]] = {"joint": {}, "ordinary": {}}
    for one in joint:
        victim, chosen = victims[one.cell.victim], one.where("unseen")
        images = developers_images(results, one, victim)[chosen]
        errors["joint"][victim.seed] = float(mse(images, one.given.photos[chosen]).mean())
        accuracy["joint"][victim.seed] = _accuracy(results, one)
    for one in mine:
        victim = victims[one.cell.victim]
        if one.label in (_BLACK_BOX, _GENERIC):
            errors.setdefault(one.label, {})[victim.seed] = float(one.mse().mean())
            accuracy["ordinary"][victim.seed] = _accuracy(results, one)
    for label, values in errors.items():
        name = {_BLACK_BOX: "blackbox", _GENERIC: "blackbox_generic"}.get(label, label)
        yield _mean(f"{place}/{name}_mse", list(values.values()))
        if label != "joint" and (seeds := sorted(values.keys() & errors["joint"].keys())):
            ratio = ratio_interval([errors["joint"][n] for n in seeds], [values[n] for n in seeds])
            generic = label == _GENERIC
            yield Figure(
                f"{place}/mse_over_{name}",
                ratio.value,
                low=ratio.low,
                high=ratio.high,
                paper=_PAPER.get(data) if generic else None,
                at_most=1.0 if generic and data == "digits" else None,
                extra={"pairs": len(seeds)},
            )
    if seeds := sorted(accuracy["joint"].keys() & accuracy["ordinary"].keys()):
        cost = [accuracy["ordinary"][n] - accuracy["joint"][n] for n in seeds]
        extra = {name: float(np.mean([values[n] for n in seeds])) for name, values in accuracy.items()}
        yield _mean(f"{place}/accuracy_cost", cost, unit="difference", **extra)


def _accuracy(results: Results, one: Inverted) -> float:
    """Of a victim, on the photos that nobody has seen."""
    split, faces = one.judge.split, one.judge.faces
    labels = class_of(faces, split.test, split.private)
    return 1 - error_rate(results.target_model(one.cell.victim, "cpu"), faces.images[np.asarray(split.test)], labels)


def _buyer(
    results: Results, place: str, suspects: Sequence[Inverted], ordinary: Sequence[Inverted]
) -> Iterable[Figure]:
    """The buyer's test of each jointly trained model, and of each ordinary one against the other ordinary ones."""
    bought, trained = ([_held_out(results, one) for one in runs] for runs in (suspects, ordinary))
    judged = [inspect(error, trained, _LEVEL) for error in bought]
    apart = [inspect(error, trained[:n] + trained[n + 1 :], _LEVEL) for n, error in enumerate(trained)]
    yield _share(f"{place}/flagged", judged, suspects=bought, ordinary=trained, level=_LEVEL)
    yield _share(f"{place}/false_alarms", apart)


def _held_out(results: Results, one: Inverted) -> float:
    with np.load(results.attacker_arrays(one.cell), allow_pickle=False) as arrays:
        return float(np.min(arrays["extra_held_out_mse"]))


def _share(name: str, judged: Sequence[Inspection], **extra: object) -> Figure:
    values = [float(one.flagged) for one in judged]
    seen = {"models": len(values), "p_values": [one.p_value for one in judged], **extra}
    return Figure(name, float(np.mean(values)), extra=seen)


def _mean(name: str, values: Sequence[float], **rest: object) -> Figure:
    mean = mean_interval(values)
    unit = str(rest.pop("unit", "ratio"))
    return Figure(name, mean.value, unit=unit, low=mean.low, high=mean.high, extra={"runs": len(values), **rest})
