"""The attribute experiments of a campaign: what runs here, what has no result and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from referee.attribute_models import load_table
from referee.attribute_plan import Experiment
from referee.attributes import find_result, run_experiment

__all__ = ["not_run", "run_missing"]


def run_missing(
    experiments: Sequence[Experiment], out: Path, device: str, say: Callable[[str], None], quiet: bool
) -> None:
    """Run those that have no result yet and whose table is on this machine."""
    missing = [one for one in experiments if find_result(one, out) is None]
    there = [one for one in missing if _absent(one) is None]
    for number, experiment in enumerate(there, 1):
        say(f"experiment {number} of {len(there)}: {experiment.name}")
        run_experiment(experiment, out, device, say=say, quiet=quiet)


def not_run(experiments: Sequence[Experiment], out: Path) -> list[str]:
    """A note for the experiments that have no result, for each reason."""
    reasons: dict[str, list[str]] = {}
    for one in experiments:
        if find_result(one, out) is None:
            reasons.setdefault(_absent(one) or "run the campaign again", []).append(one.name)
    return [f"Not run: {', '.join(names)} ({reason})." for reason, names in reasons.items()]


def _absent(experiment: Experiment) -> str | None:
    """Why the experiment's table is not here, if it is not."""
    try:
        load_table(experiment)
    except LookupError as error:
        return str(error)
    return None
