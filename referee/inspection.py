"""A buyer's test: was this classifier trained together with a network that inverts it?

A malicious developer (`oracle_server.victims.joint`) shapes the scores so that images can be read from them. That helps
every network that is trained to invert the model, a buyer's own too: its error on photos that it has not seen is lower
than under models that were trained alone. The buyer trains a few ordinary models, runs `inversion_network` against
each and against the suspect, with the same settings, contract and public data, and compares.

The test is a prediction interval for one more draw of a normal population, on a logarithmic scale. Of n ordinary errors
with mean m and standard deviation s of their logarithms, a further ordinary model's logarithm lies below
m - t(1 - level, n - 1) * s * sqrt(1 + 1/n) with probability `level`: that is the rate of false alarms, for every n.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

__all__ = ["Inspection", "InspectionRun", "inspect", "inspect_command", "inspect_runs", "read_run"]

_METHOD, _ERRORS = "inversion_network", "extra_held_out_mse"
_PATHS = ("public", "given")  # parameters that say where files lie, not what is in them
_LEAST = 3


@dataclass(frozen=True)
class Inspection:
    """What a buyer learns.

    suspect, ordinary  held-out errors, mean squared error per pixel
    p_value            probability of a logarithm so low for one more ordinary model
    threshold          errors below it are flagged
    flagged            whether the suspect's is
    sentence           all that in words
    """

    suspect: float
    ordinary: tuple[float, ...]
    p_value: float
    threshold: float
    flagged: bool
    sentence: str


def inspect(suspect: float, ordinary: Sequence[float], level: float = 0.01) -> Inspection:
    """Is the error that an inversion network reaches under the suspect below that under ordinary models?

    Raises `ValueError` for fewer than three ordinary errors, errors that are not above 0, equal ordinary errors, or a
    level that is not between 0 and 0.5.
    """
    errors = tuple(float(error) for error in ordinary)
    n = len(errors)
    if n < _LEAST:
        raise ValueError(f"{n} ordinary models say nothing about their spread: give at least {_LEAST}")
    if not all(0 < error < math.inf for error in (suspect, *errors)):
        raise ValueError(
            "every error must be a number above 0: a perfect or a broken reconstruction cannot be compared"
        )
    if not 0 < level < 0.5:
        raise ValueError(f"level={level} must be between 0 and 0.5")
    logs = np.log(errors)
    middle, spread = float(logs.mean()), float(logs.std(ddof=1)) * math.sqrt(1 + 1 / n)
    if spread < 1e-12:  # the same to the last digits
        raise ValueError("the ordinary errors are all the same: train ordinary models from different seeds")
    p_value = float(stdtr(n - 1, (math.log(suspect) - middle) / spread))
    threshold = math.exp(middle + float(stdtrit(n - 1, level)) * spread)
    flagged = p_value < level
    verdict = "lower than of an ordinary model" if flagged else "no lower than may be of an ordinary model"
    sentence = (
        f"The error {suspect:.4g} is {verdict}: {n} of them have {math.exp(middle):.4g} (geometric mean), the "
        f"threshold at level {level:g} is {threshold:.4g}, p = {p_value:.2g}."
    )
    return Inspection(float(suspect), errors, p_value, threshold, flagged, sentence)


@dataclass(frozen=True)
class InspectionRun:
    """A finished attacker run of `inversion_network`: its lowest held-out error, and what must be the same for all."""

    folder: Path
    error: float
    model: str
    archive_sha256: str
    alike: dict[str, Any]


def read_run(folder: Path) -> InspectionRun:
    """The run in a folder of the attacker (run.json, reconstructions.npz); `ValueError` says what it lacks."""
    try:
        said = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        with np.load(folder / "reconstructions.npz", allow_pickle=False) as arrays:
            errors = np.asarray(arrays[_ERRORS], dtype=np.float64) if _ERRORS in arrays.files else np.empty(0)
    except FileNotFoundError as error:
        raise ValueError(f"{folder} holds no finished run ({Path(error.filename).name} is missing)") from None
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"{folder} holds files that cannot be read ({str(error)[:80]}): run the attack again"
        ) from None
    if not isinstance(said, dict) or said.get("method") != _METHOD:
        raise ValueError(f"{folder} is no run of {_METHOD}: only its held-out errors can be compared")
    if said.get("ended") != "done":
        raise ValueError(f"the run in {folder} did not reach its end ({said.get('ended')}): give it a larger budget")
    if not errors.size or np.isnan(errors).all():
        raise ValueError(f"{folder} has no held-out errors: run {_METHOD} with public images that it may hold out")
    if not said.get("public_sha256"):
        raise ValueError(f"{folder} does not say which public data it used: run the attack again with --public")
    try:
        alike = {f"parameter {key}": value for key, value in said["parameters"].items() if key not in _PATHS}
        alike |= {f"contract's {key}": value for key, value in said["contract"].items()}
        alike["public data"] = said["public_sha256"]
        return InspectionRun(folder, float(np.nanmin(errors)), said["model"], said["archive_sha256"], alike)
    except (KeyError, AttributeError) as error:
        raise ValueError(f"{folder}/run.json lacks {error}: run the attack again") from None


def inspect_runs(suspect: Path, ordinary: Sequence[Path], level: float = 0.01) -> Inspection:
    """`inspect` on finished runs; `ValueError` for runs that differ in parameters, contract or public data, and for a
    model that comes twice.
    """
    judged, *others = runs = [read_run(folder) for folder in (suspect, *ordinary)]
    seen: dict[str, Path] = {}
    for run in runs:
        for what in sorted(judged.alike.keys() | run.alike.keys()):
            if judged.alike.get(what) != run.alike.get(what):
                raise ValueError(
                    f"{run.folder} differs from {judged.folder} in {what}: attack all models in the same way"
                )
        if (twin := seen.setdefault(run.archive_sha256, run.folder)) != run.folder or runs.count(run) > 1:
            raise ValueError(f"{twin} and {run.folder} are runs on the same model, {run.model}: count each model once")
    return inspect(judged.error, [run.error for run in others], level)


@click.command(
    "inspect", epilog="Example: referee inspect runs/bought --ordinary runs/a --ordinary runs/b --ordinary runs/c"
)
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--ordinary",
    multiple=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="A run against a model that you trained yourself; give at least three.",
)
@click.option("--level", default=0.01, show_default=True, help="Rate of false alarms.")
def inspect_command(run: Path, ordinary: tuple[Path, ...], level: float) -> None:
    """Was a model trained together with a network that inverts it? RUN is a run of inversion_network against it."""
    try:
        found = inspect_runs(run, ordinary, level)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(found.sentence)
    if found.flagged:
        click.echo("Do not deploy it: it may have been trained together with a network that inverts it.")
