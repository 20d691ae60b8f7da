"""Scenario 1 of Yang et al., CCS 2019: photos reconstructed from released answers (Table 2, Figures 7, 8 and 13)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from attacker.poses import POSES, slant, turn
from referee.figures.common import rate
from referee.figures.inverted import Inverted, mean_interval, places_of, ratio_interval
from referee.metrics.recognition import recognise
from referee.report import Figure

if TYPE_CHECKING:
    from referee.results import Results

__all__ = ["AUXILIARY", "photo_figures"]

AUXILIARY = ("same", "generic", "distinct")
# Table 2, the error on photos that the inversion network has not seen: of `same`, whose auxiliary set is the test half,
# those are the target's training photos.
_PAPER = {
    "mnist": {"same": 0.0078, "generic": 0.0153, "distinct": 0.0415},
    "faces": {"same": 0.0107, "generic": 0.0115, "distinct": 0.0316},
}
_MOST = {"mnist": {"same": 0.020, "generic": 0.035}}
_RATIO = {("yang/mnist", 3): 1.0}  # by data set and m, what the whole interval must lie below
_QUARTERS = 4


def photo_figures(results: Results, photos: Sequence[Inverted]) -> list[Figure]:
    """Everything about photos that were reconstructed from an honest model's answers."""
    dishonest = {victim.name for victim in results.plan.victims if victim.joint is not None}
    photos = [one for one in photos if one.cell.victim not in dishonest]
    found: list[Figure] = []
    for data in dict.fromkeys(one.data for one in photos):
        mine = [one for one in photos if one.data == data]
        for auxiliary in AUXILIARY:
            found += _auxiliary(f"yang/{data}", auxiliary, [one for one in mine if one.label == auxiliary])
        found += [*_limits(f"yang/{data}", mine), *_truncation(results, f"yang/{data}", mine)]
        found += [*_classes(f"yang/{data}", mine), *_alignment(f"yang/{data}", mine)]
    return [*found, *_speedup(photos)]


def _auxiliary(place: str, auxiliary: str, cells: Sequence[Inverted]) -> Iterable[Figure]:
    """Table 2: unseen and training photos, beside the two floors; whether the class can be told from the image."""
    if not cells:
        return
    data = place.rpartition("/")[2]
    paper, most = _PAPER.get(data, {}).get(auxiliary), _MOST.get(data, {}).get(auxiliary)
    for kind in ("unseen", "training"):
        values = np.concatenate([one.mse(kind) for one in cells])
        floors = {
            name.replace(" ", "_"): float(np.mean([one.floor(name, kind).mean() for one in cells]))
            for name in ("mean image", "class means")
        }
        quality = {
            name: float(np.mean([getattr(one.cell, name)[-1][one.where(kind)].mean() for one in cells]))
            for name in ("psnr", "ssim")
        }
        bound = most if kind == "unseen" else None
        cost = {"seconds": np.mean([one.seconds for one in cells]), "rows": np.mean([one.rows for one in cells])}
        extra = floors | quality | cost | {"runs": len(cells)}
        name = f"{place}/{auxiliary}/{kind}_mse"
        yield rate(name, values, places_of(cells, kind), paper=paper, at_most=bound, extra=extra)
    values = np.concatenate([one.cell.top1[-1][one.where("unseen")] for one in cells])
    among = np.concatenate([_among_private(one) for one in cells])
    photos = {"real_photos": cells[0].judge.test_accuracy, "among_private_classes": float(among.mean())}
    yield rate(f"{place}/{auxiliary}/recognised", values, places_of(cells, "unseen"), extra=photos)


def _among_private(one: Inverted) -> np.ndarray:
    """Whether the evaluation network names the right class when it may choose among the target's classes alone."""
    chosen, count = one.where("unseen"), len(one.judge.split.private)
    people = one.given.people[chosen]
    seen = recognise(
        lambda x: one.judge.network(x)[:, :count], one.cell.images[-1][chosen], people, device=one.judge.device
    )
    return seen.top1


def _limits(place: str, cells: Sequence[Inverted]) -> Iterable[Figure]:
    """What holds the error back: the same run with one thing changed; and photos by how sure the target is of them."""
    for one in cells:
        if one.label.startswith("limit_"):
            name = f"{place}/limit/{one.label.removeprefix('limit_')}/unseen_mse"
            yield rate(name, one.mse(), places_of([one], "unseen"), extra={"seconds": one.seconds})
    same = [one for one in cells if one.label == "same"]
    if same and not np.isnan(same[0].given.answers).any():
        sure = np.concatenate([one.given.answers[one.where("unseen")].max(1) for one in same])
        error = np.concatenate([one.mse() for one in same])
        for number, chosen in enumerate(np.array_split(np.argsort(sure, kind="stable"), _QUARTERS), 1):
            extra = {"median_confidence": float(np.median(sure[chosen])), "photos": len(chosen)}
            name = f"{place}/limit/confidence_quarter={number}/unseen_mse"
            yield rate(name, error[chosen], places_of(same, "unseen")[chosen], extra=extra)


def _truncation(results: Results, place: str, cells: Sequence[Inverted]) -> Iterable[Figure]:
    """Figure 8: trained on truncated answers (ours) against trained on full ones and fed truncated ones (prior)."""
    ours, prior = (_errors(results, [one for one in cells if one.label == label]) for label in ("ours", "prior"))
    for m in sorted(ours.keys() & prior.keys()):
        pairs = sorted(ours[m].keys() & prior[m].keys())
        above, below = ([errors[m][pair] for pair in pairs] for errors in (ours, prior))
        ratio = ratio_interval(above, below)
        bound = _RATIO.get((place, m))
        extra = {"runs": len(pairs)}
        yield Figure(
            f"{place}/m={m}/ours_over_prior", ratio.value, low=ratio.low, high=ratio.high, at_most=bound,
            whole=bound is not None, extra=extra,
        )  # fmt: skip
        for label, errors in (("ours", above), ("prior", below)):
            mean = mean_interval(errors)
            yield Figure(f"{place}/m={m}/{label}_mse", mean.value, low=mean.low, high=mean.high, extra=extra)


def _errors(results: Results, cells: Sequence[Inverted]) -> dict[int, dict[tuple[str, int], float]]:
    """For each number m of scores that were released, the error on unseen photos in the n-th run on each victim."""
    found: dict[int, dict[tuple[str, int], float]] = {}
    for one in cells:
        for name, contract in results.planned(one.cell).asked.items():
            runs = found.setdefault(contract.top_k or len(one.judge.split.private), {})
            number = sum(victim == one.cell.victim for victim, _ in runs)
            runs[one.cell.victim, number] = float(one.mse(contract=name).mean())
    return found


def _classes(place: str, cells: Sequence[Inverted]) -> Iterable[Figure]:
    """Figure 13: the more classes, the more numbers, all of them released. A model of all classes is asked about all
    photos, and in `same_photos_mse` about those of the classes that the smallest model knows.
    """
    known = [one for one in cells if one.label == "k"]
    if not known:
        return
    few = min((one.judge.split.private for one in known), key=len)
    before: float | None = None
    for one in sorted(known, key=lambda one: len(one.judge.split.private)):
        private = one.judge.split.private
        of_few = np.isin(np.array(private)[one.given.people[one.where("unseen")]], few)
        extra = {"same_photos_mse": float(one.mse()[of_few].mean())}
        name = f"{place}/k={len(private)}/mse"
        yield rate(name, one.mse(), places_of([one], "unseen"), at_most=before, extra=extra)
        before = float(one.mse().mean())


def _alignment(place: str, cells: Sequence[Inverted]) -> Iterable[Figure]:
    """Figure 7: how the images lean, or which side they turn to, that a network makes which knows one pose only."""
    poses = {pose: one for one in cells for pose in POSES if one.label == f"pose_{pose}"}
    if len(poses) < len(POSES):
        return
    measure = turn if place.endswith("faces") else slant
    leans = {pose: measure(one.cell.images[-1][one.where("unseen")]) for pose, one in poses.items()}
    real = measure(poses["left"].given.photos[poses["left"].where("unseen")])
    numbers = places_of([poses["left"]], "unseen")
    for pose, values in leans.items():
        yield rate(f"{place}/alignment/{pose}", values, numbers, unit=measure.__name__, extra={"photos": real.mean()})
    apart = leans["right"] - leans["left"]
    spread = {"spread_of_photos": float(np.std(real))}
    yield rate(
        f"{place}/alignment/right_minus_left", apart, numbers, unit=measure.__name__, at_least=0.0, whole=True,
        extra=spread,
    )  # fmt: skip


def _speedup(photos: Sequence[Inverted]) -> Iterable[Figure]:
    """Wall time of a network that asks for each batch at each step, over that of one which asks everything first."""
    seconds = {label: [one.seconds for one in photos if one.label == label] for label in ("each_step", "queries_first")}
    if all(seconds.values()):
        ratio = ratio_interval(*seconds.values())
        rows = {one.label: one.cell.rows_ledger for one in photos if one.label in seconds}
        extra = {"rows": rows, "runs": len(seconds["each_step"])}
        yield Figure(
            "yang/queries_first_speedup", ratio.value, low=ratio.low, high=ratio.high, at_least=2.0, extra=extra
        )
