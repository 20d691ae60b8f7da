"""A finished attribute experiment: everybody's true level, every guess, who was in which sample, and both counts.

On disk it is two files below OUT/referee/attributes/: FOLDER.npz is written first and FOLDER.json, with its hash,
last. All rates are worked out from the guesses, so that a report never needs another run.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from referee.atomic import write_atomically
from referee.metrics.attributes import Mean, Rates, mean_over, rates

__all__ = ["Counted", "Result", "find", "save"]

FORMAT = 1


@dataclass(frozen=True)
class Counted:
    """What one adversary cost over all samples: rows by the server's ledger and by its own count, downloads."""

    rows_ledger: int
    rows_attacker: int
    downloads: int
    equal: bool


@dataclass(frozen=True, eq=False)
class Result:
    """S samples, N people, of one experiment; `definition` is `Experiment.definition()`.

    feature        the sensitive one, the first of those inferred; `levels` its names, `positive` the code that counts
    inside         (S, N) bool: whose rows the sample's model was grown on
    truth          (N,) int16 true codes
    guesses        for each adversary's label (S, N) int16
    fit_inside, fit_outside  (S,) accuracy of the model itself, or R^2 of a regression; NaN where nobody is
    splits         (S,) inner nodes that ask for the sensitive feature, -1 for a regression
    leaves         (S,) leaves of the tree, 0 for a regression
    """

    definition: dict[str, Any]
    table_sha256: str
    status: Literal["done", "void", "refused", "failed"]
    sentence: str
    feature: str
    levels: tuple[str, ...]
    positive: int
    sensitive: tuple[str, ...]
    response: str
    credit: str
    counted: Mapping[str, Counted]
    seconds: Mapping[str, float]
    inside: np.ndarray
    truth: np.ndarray
    guesses: Mapping[str, np.ndarray]
    fit_inside: np.ndarray
    fit_outside: np.ndarray
    splits: np.ndarray
    leaves: np.ndarray

    @property
    def name(self) -> str:
        return str(self.definition["name"])

    @property
    def table(self) -> str:
        return str(self.definition["table"])

    @property
    def model(self) -> str:
        return str(self.definition["model"])

    @property
    def whole(self) -> bool:
        """Whether the model was grown on everybody."""
        return bool(self.definition["fraction"] == 1.0)

    @property
    def samples(self) -> int:
        return len(self.inside)

    @property
    def subject(self) -> str:
        """The table, with what is inferred where that is not its first sensitive feature alone."""
        unknown = tuple(self.definition["unknown"])
        return self.table if unknown == self.sensitive[:1] else f"{self.table}/{'+'.join(unknown)}"

    def rates(self, label: str, *, inside: bool = True) -> Rates:
        """The rates of one adversary, for the people in each sample or for those outside."""
        return rates(self.guesses[label], self.truth, self.inside == inside, self.positive)

    def mean(self, label: str, mark: str, *, inside: bool = True) -> Mean | None:
        """The mean of one rate over the samples; None where no sample has one."""
        return mean_over(getattr(self.rates(label, inside=inside), mark))

    def baseline(self) -> str | None:
        """The label of the adversary that always says the most common level."""
        return self._label_of("marginal_mode")

    def ideal(self) -> str | None:
        """The label of the ideal adversary."""
        return self._label_of("ideal_model")

    def _label_of(self, method: str) -> str | None:
        return next((one["label"] for one in self.definition["adversaries"] if one["method"] == method), None)


_ARRAYS = ("inside", "truth", "fit_inside", "fit_outside", "splits", "leaves")


def save(result: Result, folder: Path, name: str) -> None:
    """Write a result; the same result gives the same bytes."""
    arrays = {key: getattr(result, key) for key in _ARRAYS}
    arrays["inside"] = np.packbits(result.inside, axis=1)
    arrays |= {f"guess_{label}": guess.astype(np.int16) for label, guess in result.guesses.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    data = buffer.getvalue()
    head = {field.name: getattr(result, field.name) for field in fields(result) if field.name not in _ARRAYS}
    head |= {"guesses": list(result.guesses), "counted": {k: vars(v) for k, v in result.counted.items()}}
    head |= {"format": FORMAT, "arrays_sha256": hashlib.sha256(data).hexdigest(), "seconds": dict(result.seconds)}
    text = json.dumps(head, indent=1, allow_nan=False) + "\n"
    write_atomically(folder / f"{name}.npz", data)
    write_atomically(folder / f"{name}.json", text.encode())


def find(folder: Path, name: str) -> Result | None:
    """The result of that name, or None where the experiment must (still, or again) be run."""
    try:
        head = json.loads((folder / f"{name}.json").read_bytes())
        data = (folder / f"{name}.npz").read_bytes()
        if head.pop("format") != FORMAT or head.pop("arrays_sha256") != hashlib.sha256(data).hexdigest():
            return None
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in _ARRAYS}
            guesses = {label: stored[f"guess_{label}"] for label in head["guesses"]}
        arrays["inside"] = np.unpackbits(arrays["inside"], axis=1, count=len(arrays["truth"])).astype(bool)
        head["counted"] = {label: Counted(**values) for label, values in head["counted"].items()}
        head |= {"levels": tuple(head["levels"]), "sensitive": tuple(head["sensitive"]), "guesses": guesses}
        return Result(**head, **arrays)
    except (AttributeError, KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile):
        return None
