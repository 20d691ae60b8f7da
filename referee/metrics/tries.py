"""Several reconstructions of one target: is any of five the person?"""

from __future__ import annotations

import numpy as np

__all__ = ["TRIES", "any_of"]

TRIES = 5


def any_of(successes: np.ndarray, tries: int = TRIES) -> np.ndarray:
    """The chance that at least one of `tries` reconstructions of a target is recognised: (T, n) bool -> (T,) float64.

    They are drawn without replacement from the n that were made. With h recognised ones, none is drawn with chance
    C(n - h, tries) / C(n, tries) (the hypergeometric distribution); nothing is sampled. With n = tries it is 1 or 0.

    Parts of the field print the mean of this as "top-5 attack accuracy" or as "any of five tries". It is not
    `Recognition.top5`, the share of single reconstructions whose target is among the model's first five answers: an
    attacker cannot tell which of the five tries is the good one.

    Raises:
        ValueError: successes that aren't (T, n) bool, `tries` below 1 or above n.

    >>> any_of(np.array([[True, False, False, False]]), tries=2).tolist()
    [0.5]
    """
    successes = np.asarray(successes)
    if successes.ndim != 2 or successes.dtype != np.bool_:
        raise ValueError(f"successes {successes.shape} of {successes.dtype} must be (T, n) bool")
    made = successes.shape[1]
    if not 1 <= tries <= made:
        raise ValueError(f"tries={tries} must be at least 1 and at most the {made} reconstructions of a target")
    drawn = np.arange(tries)
    failures = made - successes.sum(axis=1, keepdims=True)
    none: np.ndarray = ((failures - drawn) / (made - drawn)).prod(axis=1)  # a factor is 0 where fewer than tries fail
    return 1.0 - none
