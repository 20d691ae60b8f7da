"""The split of chest X-rays, which keeps patients whole: ``chestxray14-findings[-s<seed>]``.

The setting is that of Wang et al., Variational Model Inversion Attacks (NeurIPS 2021): a target tells some findings
apart, and what is public shows others. Private are the eight findings with the most images, public the others.

Images of one patient look alike, so that a target which has seen one has seen something of all. Every patient
therefore belongs to one part, drawn at random from the seed, finding by finding:

    50%   target             its images of private findings
    40%   evaluations        all its images; two evaluation networks have 20% each
    10%   tests              all its images; those of private findings also test the target

Published are images of public findings, of patients of the first two parts who have no image of a private finding.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oracle_server.victims import chest_xray
from oracle_server.victims.chest_xray import FINDINGS
from oracle_server.victims.data import needed_root
from oracle_server.victims.parts import parted
from oracle_server.victims.split import Rows, Split

__all__ = ["NAMES", "PRIVATE", "finding_split", "patient_split"]

NAMES = (f"{chest_xray.NAME}-findings[-s<seed>]",)

PRIVATE = 8
"""How many findings are private."""

_NAME = re.compile(rf"{chest_xray.NAME}-findings(-s(?P<seed>\d{{1,9}}))?")
_SHARES = (0.5, 0.2, 0.2, 0.1)  # of patients: target, two evaluation networks, tests


def patient_split(name: str) -> Split | None:
    """The split of that name; None when the name is none of ``NAMES``. Reads the data set's table, but no image.

    Raises:
        ValueError: the data set has too few findings, or too few patients with one of them.
        ImagesUnavailableError: the data set is not there.
    """
    found = _NAME.fullmatch(name)
    return _made(name, int(found["seed"] or 0), needed_root(chest_xray.NAME)) if found else None


@functools.lru_cache(maxsize=32)
def _made(name: str, seed: int, root: Path) -> Split:
    entries = chest_xray.entries(root)
    findings = np.array([entry.finding for entry in entries], dtype=np.int64)
    return finding_split(name, findings, np.array([entry.patient for entry in entries], dtype=np.int64), seed)


def finding_split(name: str, findings: NDArray[np.int64], patients: NDArray[np.int64], seed: int) -> Split:
    """The split of rows with these `findings` (N,) of these `patients` (N,).

    Raises:
        ValueError: as ``patient_split``.
    """
    counts = np.bincount(findings, minlength=len(FINDINGS))
    ranked = [int(finding) for finding in np.argsort(-counts, kind="stable") if counts[finding]]
    private, public = tuple(sorted(ranked[:PRIVATE])), tuple(sorted(ranked[PRIVATE:]))
    if not public:
        raise ValueError(
            f"split {name}: the images show {len(ranked)} findings: it needs {PRIVATE} private ones and one to publish"
        )
    learned, first, second, tested = (
        np.isin(patients, part) for part in _parts(findings, patients, np.random.default_rng(seed))
    )
    secret = np.isin(findings, private)
    shown = ~secret & ~tested & ~np.isin(patients, patients[secret])
    split = Split(
        name=name,
        data=chest_xray.NAME,
        private=private,
        public=public,
        target=_rows(secret & learned),
        test=_rows(secret & tested),
        evaluations=(_rows(first), _rows(second)),
        evaluation_test=_rows(tested),
        published=_rows(shown),
    )
    _check(split, findings)
    return split


def _parts(
    findings: NDArray[np.int64], patients: NDArray[np.int64], random: np.random.Generator
) -> list[NDArray[np.int64]]:
    """The patients of each share. Rare findings come first, so that each has patients in every part if it can."""
    showing = {finding: np.unique(patients[findings == finding]) for finding in np.unique(findings).tolist()}
    parts: list[list[NDArray[np.int64]]] = [[] for _ in _SHARES]
    placed = np.empty(0, dtype=np.int64)
    for finding in sorted(showing, key=lambda finding: (len(showing[finding]), finding)):
        new = random.permutation(np.setdiff1d(showing[finding], placed))
        placed = np.union1d(placed, new)
        for part, chosen in zip(parts, parted(new, _SHARES), strict=True):
            part.append(chosen)
    return [np.concatenate(part) for part in parts]


def _check(split: Split, findings: NDArray[np.int64]) -> None:
    needed: Iterable[tuple[str, Rows, tuple[int, ...]]] = (
        ("target", split.target, split.private),
        ("test", split.test, split.private),
        *(("evaluations", rows, split.known) for rows in split.evaluations),
        ("evaluation_test", split.evaluation_test, split.known),
        ("published", split.published, split.public),
    )
    for part, rows, known in needed:
        if lacking := sorted(set(known) - set(findings[list(rows)].tolist())):
            raise ValueError(
                f"split {split.name}: no image of {FINDINGS[lacking[0]]} is left for {part}: it needs more patients"
            )


def _rows(chosen: NDArray[np.bool_]) -> Rows:
    return tuple(np.flatnonzero(chosen).tolist())
