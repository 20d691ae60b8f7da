"""A small matrix of defences with made-up cells: who is recognised is written down for each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from oracle_server.victims.images import ImageSet
from referee.campaign import Plan, PlannedCell, read_plan
from referee.cell import Cell
from referee.figures import defences

__all__ = ["HITS", "TEXT", "World", "by_table", "row", "without_training", "world"]

TEXT = """
title = "Defences in small"
figures = "defences"
seeds = [0, 1]
[priors.eigenfaces]
kind = "pca"
[defences.label_smoothing]
kind = "training"
strengths = [ { alpha = -0.05 }, { alpha = -0.1 }, { alpha = 0.2 } ]
[defences.temperature]
kind = "response"
strengths = [ { temperature = 2.0 } ]
[defences.gaussian_noise]
kind = "response"
strengths = [ { sigma = 0.1 } ]
[defences.label]
kind = "contract"
strengths = [ { access = "label" } ]
[[matrix]]
task = "faces"
split = "att20"
architecture = "softmax_regression"
targets = "0-3"
[[matrix.attacks]]
name = "margin"
method = "latent_gradient"
access = "weights"
prior = "eigenfaces"
[[matrix.attacks]]
name = "face"
method = "mi_face"
access = "weights"
[[matrix.attacks]]
name = "numeric"
access = "scores"
own = 0.8
[[matrix.attacks]]
name = "brep"
method = "brep_mi"
access = "label"
prior = "eigenfaces"
"""
CLASSES = 4
PHOTOS = 3  # held out, of each class


@dataclass(frozen=True, eq=False)
class World:
    """What figures need of a campaign's folder, and its finished cells."""

    results: Any
    cells: list[Cell]

    def found(self, name: str, seed: int = 0) -> Cell:
        return next(cell for cell in self.cells if (cell.name, cell.seed) == (name, seed))


def row(text: str) -> tuple[bool, ...]:
    """'x.x.' are four targets, of which the first and the third are recognised."""
    return tuple(letter == "x" for letter in text)


def world(
    folder: Path, make_cell: Callable[..., Cell], hits: Callable[[PlannedCell], str | None], text: str = TEXT
) -> World:
    """`hits` says of each cell of the plan who is recognised, as `row` reads it; "refused", "failed", or None where it
    is not finished.
    """
    (folder / "c.toml").write_text(text)
    plan = read_plan(folder / "c.toml")
    cells = [_cell(make_cell, planned, said) for planned in plan.cells if (said := hits(planned)) is not None]
    return World(_results(plan), cells)


def _cell(make_cell: Callable[..., Cell], planned: PlannedCell, said: str) -> Cell:
    known: dict[str, Any] = {
        "name": planned.name,
        "split": planned.victim.split,
        "victim": planned.victim.name,
        "method": planned.method,
        "seed": planned.seed,
        "contract": planned.contract.as_dict(),
        "parameters": {},
    }
    if said in ("refused", "failed"):
        empty = {
            key: np.zeros((0, 20)) for key in ("top1", "top5", "own", "others", "confidence", "mse", "psnr", "ssim")
        }
        known |= {"targets": np.arange(20), "marks": np.zeros(0), "images": np.zeros((0, 20, 1, 6, 5)), **empty}
        return make_cell(status=said, sentence="no", **known)
    weights = planned.contract.access == "weights"
    rows = {"self_reported": True, "rows_ledger": 0, "rows_attacker": 0} if weights else {}
    return make_cell(row(said), **known, **rows)


class Says(nn.Module):
    """Logits (N, CLASSES) of the class that an image's first pixel names in quarters; so many are named wrong."""

    def __init__(self, wrong: int) -> None:
        super().__init__()
        self.wrong = wrong

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        named = (images[:, 0, 0, 0] * CLASSES).round().long() % CLASSES
        named[: self.wrong] = (named[: self.wrong] + 1) % CLASSES
        return 4.0 * nn.functional.one_hot(named, CLASSES).float()


def _references(model: None, public: Path) -> list[Any]:
    """One of four classes is recognised in a black image, three in photos."""
    targets = np.arange(CLASSES)
    return [
        SimpleNamespace(name="black image", kind="floor", top1=targets == 0, targets=targets),
        SimpleNamespace(name="held-out photos", kind="ceiling", top1=targets > 0, targets=targets),
    ]


def _results(plan: Plan) -> Any:
    labels = np.repeat(np.arange(CLASSES), PHOTOS)
    images = np.tile((labels / CLASSES).astype(np.float32)[:, None, None, None], (1, 1, 6, 5))
    faces = ImageSet(images, labels, "toy")
    split = SimpleNamespace(name="att20", test=tuple(range(len(labels))), private=tuple(range(CLASSES)), target=(0, 1))
    judge = SimpleNamespace(split=split, faces=faces, references=_references)
    wrong = {"label_smoothing-alpha-0.05": 1, "label_smoothing-alpha-0.1": 3, "label_smoothing-alpha0.2": 0}

    def target_model(name: str, device: str) -> nn.Module:
        return Says(next((count for part, count in wrong.items() if f"-{part}-" in name), 0)).eval()

    return SimpleNamespace(
        plan=plan, judge=lambda name: judge, target_model=target_model, device="cpu", public=lambda split: Path(split)
    )


# By attack and what it meets, who is recognised of four targets with seed 0 and seed 1.
HITS = {
    ("margin", "none", ""): ("xxx.", "xxx."),
    ("margin", "label_smoothing", "alpha=-0.05"): ("x...", "xx.."),
    ("margin", "label_smoothing", "alpha=-0.1"): ("....", "...."),
    ("margin", "label_smoothing", "alpha=0.2"): ("xxxx", "xxxx"),
    ("face", "none", ""): ("x...", "...."),
    ("face", "label_smoothing", "alpha=-0.05"): ("...x", "..xx"),
    ("face", "label_smoothing", "alpha=-0.1"): ("x...", "x..."),
    ("face", "label_smoothing", "alpha=0.2"): ("....", "...."),
    ("numeric", "none", ""): ("xx..", "x..."),
    ("numeric", "label_smoothing", "alpha=-0.05"): ("....", "...x"),
    ("numeric", "label_smoothing", "alpha=-0.1"): ("....", "...."),
    ("numeric", "label_smoothing", "alpha=0.2"): ("xx..", "x..."),
    ("numeric", "temperature", "temperature=2"): ("x...", "x..."),
    ("numeric", "gaussian_noise", "sigma=0.1"): ("....", "...."),
    ("numeric", "label", "access=label"): ("refused", "refused"),
    ("brep", "none", ""): ("x.x.", "x..."),
    ("brep", "label_smoothing", "alpha=-0.05"): ("....", "...."),
    ("brep", "label_smoothing", "alpha=-0.1"): ("....", "x..."),
    ("brep", "label_smoothing", "alpha=0.2"): ("x...", "x..."),
    ("brep", "temperature", "temperature=2"): ("x.x.", "x.x."),
    ("brep", "gaussian_noise", "sigma=0.1"): ("....", "...."),
}


def by_table(planned: PlannedCell) -> str | None:
    entry = planned.matrix
    assert entry is not None
    return HITS[entry.attack, entry.defence, entry.strength][planned.seed]


def without_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second network recognises nobody; it is not trained."""
    monkeypatch.setattr(defences, "other_network", lambda results, split: (nn.Identity(), 0.9))
    monkeypatch.setattr(defences, "rank_among", lambda network, images, targets: np.zeros(len(targets), bool))
