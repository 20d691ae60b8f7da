"""What the attacks that search the codes of an image prior have in common: asking, starting, and reading scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from attacker.answers import Answer, join
from attacker.public import public_images
from attacker.snapshot import rung_above

if TYPE_CHECKING:
    from attacker.oracle import Oracle
    from attacker.priors.prior import Prior

__all__ = ["ask_codes", "log_scores", "mean_codes", "next_due"]

_AVERAGED = 16  # public images behind a start, as in Yoshimura et al., APSIPA 2021, section V-A
_OFTEN = 1.5  # a snapshot is due at every rung of the ladder, and when the mark has grown by this factor


def ask_codes(oracle: Oracle, prior: Prior, z: Tensor, targets: np.ndarray | None) -> Answer:
    """Answers to the images of codes (N, m), N >= 1; `targets` (N,) are who each row is asked for, None for everybody.

    Images are made a request at a time, while the request before it is being answered.
    """
    parts = [slice(first, first + oracle.max_rows) for first in range(0, len(z), oracle.max_rows)]

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for part in parts:
            images = prior.images(z[part]).clip(oracle.low, oracle.high)
            yield images, None if targets is None else targets[part]

    answers = list(oracle.stream(batches()))
    return answers[0] if len(answers) == 1 else join(answers)


def mean_codes(prior: Prior, public: Path | None, oracle: Oracle, n: int, seed: int) -> Tensor:
    """n starts (n, m), each the mean of the codes of 16 public images; of 16 draws of the prior's codes where there is
    no encoder or no public data. Start number i is the same for every n.
    """
    starts = []
    for i in range(n):
        if prior.encoder is not None and public is not None:
            images = public_images(public, oracle)
            rows = np.random.default_rng((seed, i)).choice(len(images), min(_AVERAGED, len(images)), replace=False)
            starts.append(np.asarray(images[np.sort(rows)]))
        else:
            random = torch.Generator().manual_seed((seed * 1_000_003 + i) % 2**63)
            starts.append(prior.codes.draw(_AVERAGED, random).numpy())
    chosen = np.concatenate(starts)
    codes = prior.encode(chosen) if chosen.ndim > 2 else torch.from_numpy(chosen)
    mean: Tensor = codes.unflatten(0, (n, -1)).mean(1)
    return mean


def log_scores(answer: Answer, labels: np.ndarray, round_to: float | None) -> np.ndarray:
    """The logarithm of what N answers say of the classes `labels` (N,): (N,) float64, finite.

    A withheld score counts as an equal share of what the released ones leave, though as no more than the smallest of
    them; a score of 0 as half the rounding step, or as the smallest number.
    """
    if answer.scores is None:
        raise ValueError("this key's contract releases no scores: use a key with access 'scores'")
    scores = answer.scores
    own = scores[np.arange(len(scores)), labels]
    hidden = np.isnan(own)
    if hidden.any():
        known = scores[hidden]
        share = (1 - np.nansum(known, axis=1)) / np.isnan(known).sum(1)
        own[hidden] = np.clip(share, 0, np.nanmin(known, axis=1))
    least = round_to / 2 if round_to else np.finfo(np.float64).tiny
    return np.asarray(np.log(np.maximum(own, least)))


def next_due(mark: float) -> float:
    """The mark at which a snapshot is due after one at `mark`."""
    return min(float(rung_above(mark)), _OFTEN * mark) if mark > 0 else 0.0
