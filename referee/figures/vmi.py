"""Figures of the campaign on VMI (Wang et al., NeurIPS 2021), with GMI and KED-MI on the same targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from referee.cell import Cell
from referee.figures.brep_sections import judged_by_its_kind
from referee.figures.common import counts_equal
from referee.figures.latent import Way, batched_over_single, ways_of
from referee.figures.parity import parities
from referee.figures.sampled import Ground, Sampled, ground_of, paired, sampled, samples_of
from referee.figures.vmi_front import flow_minus_gaussian, front
from referee.figures.vmi_sections import sections
from referee.metrics import clustered_interval, recognise
from referee.report import Figure
from referee.training import Training

if TYPE_CHECKING:
    from referee.campaign import PlannedCell
    from referee.results import Results

__all__ = ["apart", "figures", "sections", "trainings"]

_SAME = "digits-same"
_FACES = "att20"
_BEST = {"digits-generic": 0.90, "att20": 0.50}  # what the best image of any white-box attack is to reach
_NEAR_FLOOR = 0.05


def apart(planned: PlannedCell) -> bool:
    """All cells stand in the sections, by way and not by victim."""
    return True


def trainings() -> list[Training]:
    """None beside the campaign's own."""
    return []


def figures(results: Results, cells: Sequence[Cell]) -> list[Figure]:
    """All that the finished cells allow."""
    done = [cell for cell in cells if cell.status == "done"]
    places: dict[str, dict[str, Way]] = {}
    kind = judged_by_its_kind(results)
    for (place, label, _), way in ways_of(done, kind, name=lambda split: split).items():
        places.setdefault(place, {})[label] = way
    grounds = {split: ground_of(results, split) for split in dict.fromkeys(cell.split for cell in done)}
    found, tricked = [], {}
    for place, ways in places.items():
        ground = grounds[next(iter(ways.values())).split]
        measured = {label: sampled(results, way, ground) for label, way in ways.items() if label != "adversarial"}
        found += [one.figure(f"vmi/{place}/{label}/top1", ground) for label, one in measured.items()]
        found += _rivals(place, measured)
        found += _best(place, measured, ground)
        if place == _SAME:
            found += [*front(measured), *flow_minus_gaussian(measured)]
        if "adversarial" in ways:
            tricked[place] = ways["adversarial"]
    found += _control(results, tricked, grounds)
    found += parities()
    if timed := [cell for cell in done if cell.method in ("latent_gradient", "gmi")]:
        found += batched_over_single(results, timed, "whitebox", lambda cell: cell.split + kind(cell))
    return [*found, counts_equal("vmi/counts_equal", cells)]


def _rivals(place: str, measured: dict[str, Sampled]) -> list[Figure]:
    """VMI less GMI and KED-MI on all samples, target by target."""
    pairs = [
        ("vmi", "gmi", ""),
        ("vmi", "ked_mi", ""),
        ("vmi_unselected", "gmi", "unselected_"),
        ("vmi_gan", "gmi_gan", "gan_"),
    ]
    found = []
    for ours, other, kind in pairs:
        if ours not in measured or other not in measured:
            continue
        for measure in ("top1", *measured[ours].fit):
            named = (ours, other) == ("vmi", "gmi") and place in (_SAME, _FACES)
            if measure != "top1":
                named = named and place == _SAME and measure in ("recall", "coverage")
            interval, victims = paired(measured[ours], measured[other], measure)
            marks = {
                f"evaluations_of_{label}": float(np.mean([cell.marks[-1] for cell in measured[label].way.cells]))
                for label in (ours, other)
            }
            found.append(
                Figure(
                    f"vmi/{place}/{kind}{measure}_minus_{other.removesuffix('_gan')}",
                    interval.value,
                    low=interval.low,
                    high=interval.high,
                    unit="difference",
                    at_least=0.0 if named else None,
                    whole=named and measure == "top1",
                    extra={"victims": victims, **marks},
                )
            )
    return found


def _best(place: str, measured: dict[str, Sampled], ground: Ground) -> list[Figure]:
    """The way whose one image of each target is recognised most often."""
    ways = [one for one in measured.values() if one.way.cells[0].self_reported]
    if not ways:
        return []
    best = max(ways, key=lambda one: one.way.share().value)
    whole, share = best.figure("", ground).extra, best.way.share()
    extra = {name: whole[name] for name in ("victims", "evaluations_a_target", "seconds_a_target")}
    extra |= {"way": best.way.label, "other_architecture_of_samples": whole["other_architecture"]}
    name, least = f"whitebox/{place}/best_top1", _BEST.get(place)
    return [Figure(name, share.value, low=share.low, high=share.high, at_least=least, extra=extra)]


def _control(results: Results, tricked: dict[str, Way], grounds: dict[str, Ground]) -> list[Figure]:
    """Do evaluation networks take public images for the targets that fool the target? Beside what they say of the same
    images before.
    """
    said = {place: _said_of(results, way, grounds[way.split]) for place, way in tricked.items()}
    if not said:
        return []
    found = [_tricked(f"control/adversarial/{place}/top1", said[place], tricked[place].targets) for place in said]
    people = np.concatenate([[f"{place} {target}" for target in way.targets] for place, way in tricked.items()])
    whole = _tricked("control/adversarial/top1", np.concatenate(list(said.values()), 1), people)
    floor = whole.extra["floor"]
    return [*found, replace(whole, at_least=max(0.0, floor - _NEAR_FLOOR), at_most=floor + _NEAR_FLOOR)]


def _said_of(results: Results, way: Way, ground: Ground) -> np.ndarray:
    """Shares of each target's images (4, N) that are named as it: by the judge, by the judge before they were changed,
    by the target, and by the other network.
    """
    parts = []
    for cell in way.cells:
        network = results.judge(way.split).network
        made, originals = (samples_of(results, cell, name) for name in ("samples", "originals"))
        wanted = np.repeat(cell.targets, made.shape[1])
        pairs = (
            (network, made),
            (network, originals),
            (results.target_model(cell.victim), made),
            (ground.other, made),
        )
        seen = [
            recognise(model, images.reshape(-1, *images.shape[2:]), wanted, device=results.device).top1
            for model, images in pairs
        ]
        parts.append(np.stack(seen).reshape(len(pairs), *made.shape[:2]).mean(2))
    return np.concatenate(parts, 1)


def _tricked(name: str, shares: np.ndarray, people: np.ndarray) -> Figure:
    top1 = clustered_interval(shares[0], people)
    floor, target, other = shares[1:].mean(1).tolist()
    extra = {"floor": floor, "target_says": target, "other_architecture": other}
    return Figure(name, top1.value, low=top1.low, high=top1.high, extra=extra)
