"""Figures of the campaign on Fredrikson et al., CCS 2015: three face recognisers, trees and regressions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from oracle_server.threat_model import Access, Contract, release
from oracle_server.victims.split_models import random_split_errors
from oracle_server.victims.splits import class_of
from referee.cell import Cell
from referee.figures.attributes import attribute_figures
from referee.figures.common import best_white_box, counts_equal, model_of, rate
from referee.figures.deblurring import deblurred, deblurring_figures
from referee.figures.lineups import NETWORKS, lineup_figures
from referee.metrics.calibration import calibration
from referee.report import Figure, Section
from referee.report.faces import deblurring_section, lineup_section, rounding_section, time_section
from referee.training import Training

if TYPE_CHECKING:
    from referee.campaign import PlannedCell
    from referee.results import Results

__all__ = ["apart", "figures", "sections", "trainings"]

_SPLITS = range(5)  # random 7/3 splits for the test error
_ARCHITECTURES = {"softmax": "softmax_regression", "mlp": "mlp", "dae": "autoencoder"}
_PAPER_ERROR = {"softmax": 0.075, "mlp": 0.042, "dae": 0.033}  # Figure 6
_MOST_ERROR = {"softmax": 0.055, "mlp": 0.06, "dae": 0.06}
_LEAST_TOP1 = {"mlp": 0.40, "dae": 0.40}
_PAPER_SECONDS = {"softmax": 1.4, "mlp": 1298.7, "dae": 692.5}  # Figure 8
_PAPER_EPOCHS = {"softmax": 5.6, "mlp": 3096.3, "dae": 4728.5}
_MOST_SECONDS = 3.0  # a face, all faces in one batch
_ROUNDING = (None, 0.001, 0.005, 0.01, 0.05, 0.1)  # Figure 12


def figures(results: Results, cells: list[Cell]) -> list[Figure]:
    """All that the finished cells and experiments allow; `results` gives models and private data."""
    done = [cell for cell in cells if cell.status == "done"]
    found = attribute_figures(results.attributes())
    if done:
        found += _errors(results)
    for model in _ARCHITECTURES:
        found += _recognition(results, model, [cell for cell in done if model_of(cell) == model])
    found += _process_gain(done) + lineup_figures(results, done) + deblurring_figures(results, done)
    for model in _ARCHITECTURES:
        found += _rounding(results, model, done)
    return [*found, *([counts_equal("fredrikson/counts_equal", cells)] if done else [])]


def trainings() -> list[Training]:
    """The three models on five random splits, and two more evaluation networks."""
    networks = [Training("att40", None, seed) for seed in NETWORKS]
    models = [Training(f"random-{n}", name, n) for name in _ARCHITECTURES.values() for n in _SPLITS]
    return [*networks, *models]


def _errors(results: Results) -> list[Figure]:
    faces = results.judge("att40").faces
    found = []
    for model, architecture in _ARCHITECTURES.items():
        errors = np.array(random_split_errors(_SPLITS, architecture, faces=faces))
        found.append(
            rate(
                f"fredrikson/{model}/test_error",
                errors,
                np.arange(len(errors)),
                paper=_PAPER_ERROR[model],
                at_most=_MOST_ERROR[model],
                extra={"splits": len(errors)},
            )
        )
    return found


def _recognition(results: Results, model: str, cells: list[Cell]) -> list[Figure]:
    """Each option with weights, the best of them, what it costs, and what scores alone gave."""
    found = []
    for cell in cells:
        if cell.method != "deblur":
            seen = {"true_confidence": float(cell.confidence[-1].mean()), "rows": cell.rows_ledger, "split": cell.split}
            found.append(rate(f"fredrikson/{cell.name}/top1", cell.top1[-1], cell.targets, extra=seen))
    best = best_white_box(cells, model)
    if best is None:
        return found
    found.append(
        rate(
            f"fredrikson/{model}/top1",
            best.top1[-1],
            best.targets,
            at_least=_LEAST_TOP1.get(model),
            extra={"option": best.name, "split": best.split},
        )
    )
    seconds, epochs = best.seconds / len(best.targets), _epochs(results, best)
    found.append(
        Figure(
            f"fredrikson/{model}/seconds_per_face",
            seconds,
            unit="s",
            paper=_PAPER_SECONDS[model],
            at_most=_MOST_SECONDS,
            extra={"option": best.name, "faces": len(best.targets)},
        )
    )
    found.append(
        Figure(
            f"fredrikson/{model}/epochs",
            epochs,
            unit="steps",
            paper=_PAPER_EPOCHS[model],
            extra={"option": best.name},
        )
    )
    return found


def _epochs(results: Results, cell: Cell) -> float:
    with np.load(results.attacker_arrays(cell)) as arrays:
        return float(arrays["extra_steps"].mean())


def _process_gain(cells: list[Cell]) -> list[Figure]:
    """Process-DAE against the same search without it, person by person."""
    code = {cell.name: cell for cell in cells if cell.method == "mi_face_code"}
    pairs = [(code[name], code[other]) for name in code if (other := name.replace("_processed", "")) != name]
    found = []
    for number, (processed, plain) in enumerate(pairs):
        gain = processed.top1[-1].astype(float) - plain.top1[-1].astype(float)
        extra = {
            "with": float(processed.top1[-1].mean()),
            "without": float(plain.top1[-1].mean()),
            "split": processed.split,
        }
        name = "fredrikson/dae/process_gain" + (f"/{processed.split}" if number else "")
        found.append(rate(name, gain, processed.targets, unit="difference", extra=extra))
    return found


def _rounding(results: Results, model: str, cells: list[Cell]) -> list[Figure]:
    """Figure 12 for one model, against what an honest client loses: accuracy and calibration on unseen photos."""
    victim = next((v.name for v in results.plan.victims if v.name == model), None)
    if victim is None or not cells:
        return []
    judge = results.judge("att40")
    rows = np.array(judge.split.test)
    with torch.no_grad():
        logits = results.target_model(victim, "cpu")(torch.from_numpy(judge.faces.images[rows])).numpy()
    people = class_of(judge.faces, judge.split.test, judge.split.private)
    found = []
    for step in _ROUNDING:
        scores = release(logits, Contract(Access.SCORES, round_to=step)).scores
        assert scores is not None
        name = f"fredrikson/rounding/{model}/{f'r={step}' if step else 'full'}"
        honest = calibration(scores, people)
        found += [
            rate(f"{name}/accuracy", scores.argmax(axis=1) == people, people),
            Figure(f"{name}/calibration_error", honest.calibration_error, extra={"brier": honest.brier}),
        ]
    return found


def sections(results: Results, cells: list[Cell], found: list[Figure]) -> list[Section]:
    """What the report shows of these figures beside the cells."""
    done = [cell for cell in cells if cell.status == "done"]
    models = list(_ARCHITECTURES)
    return [
        *time_section(found, "fredrikson", models),
        *lineup_section(found, "fredrikson", models),
        *deblurring_section(found, "fredrikson", deblurred(results, done)),
        *rounding_section(found, "fredrikson", {model: _rounded(model, done) for model in models}),
    ]


def apart(cell: PlannedCell) -> bool:
    """Whether the sections show a cell instead of the table of its split: where the attacker is given a photo."""
    return bool(cell.given)


def _rounded(model: str, cells: list[Cell]) -> dict[str, str]:
    """For each contract with scores, how many people the best attack through it recovers."""
    best: dict[str, float] = {}
    for cell in cells:
        contract = cell.name.rpartition("/")[2]
        if model_of(cell) == model and cell.contract["access"] == "scores":
            best[contract] = max(best.get(contract, 0.0), float(cell.top1[-1].mean()))
    return {contract: f"{share:.3f}" for contract, share in best.items()}
