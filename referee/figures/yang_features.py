"""A feature service instead of a classifier: Yang et al., CCS 2019, section 5.7, Table 4."""

from __future__ import annotations

from collections.abc import Sequence

from referee.figures.common import rate
from referee.figures.inverted import Inverted, places_of
from referee.report import Figure

__all__ = ["feature_figures"]

_LABEL, _ROUNDED = "features", "features_rounded"
_PAPER = {  # Table 4: features, decimals (None: unrounded) -> unknown individuals, known individuals
    (17, None): (0.0472, 0.0469),
    (20, None): (0.0470, 0.0462),
    (80, 1): (0.0454, 0.0443),
    (80, 3): (0.0437, 0.0438),
    (80, 5): (0.0437, 0.0438),
    (80, None): (0.0437, 0.0438),
}


def feature_figures(photos: Sequence[Inverted]) -> list[Figure]:
    """The error on photos of classes that the auxiliary set does not show, and on other photos of those that it shows;
    by the number of features, by the decimals of what is inverted, and whether the network was trained on the same.
    """
    found = []
    for one in photos:
        if one.label in (_LABEL, _ROUNDED):
            count = one.given.answers.shape[1]
            for contract in dict.fromkeys(one.given.contracts.tolist()):
                decimals = _decimals(contract)
                trained = "trained_" if one.label == _ROUNDED else ""
                rounding = "" if decimals is None else f"/{trained}round={decimals}"
                for kind, paper in zip(("unknown", "known"), _PAPER.get((count, decimals), (None, None)), strict=True):
                    values = one.mse(kind, contract)
                    floor = {"mean_image": float(one.floor("mean image", kind).mean())}
                    numbers = places_of([one], kind)
                    name = f"yang/features/{count}{rounding}/{kind}_mse"
                    found.append(rate(name, values, numbers, paper=None if trained else paper, extra=floor))
    return found


def _decimals(contract: str) -> int | None:
    """Of a contract whose name ends with them, as in "all, round=3"."""
    _, rounded, decimals = contract.partition("round=")
    return int(decimals) if rounded else None
