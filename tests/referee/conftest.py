"""A cell with made-up measurements, of which a test changes what it is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from referee.attribute_plan import Experiment
from referee.cell import Cell, unscored
from referee.report import Campaign, Figure, Reference, SplitView
from tests.referee.tiny_experiment import tiny_experiment

ROUNDED = {"access": "scores", "top_k": None, "round_to": 0.05}
WEIGHTS = {"access": "weights"}
HITS = (True,) * 12 + (False,) * 8
MISSES = (False,) * 20
FULL = {"access": "scores", "top_k": None, "round_to": None, "defences": [], "budget": None}


@pytest.fixture
def make_cell() -> Callable[..., Cell]:
    """`make_cell(hits=[...], **changes)`: M = 2 marks, T = 4 targets, images of (1, 6, 5)."""

    def make(hits: tuple[bool, ...] = (True, True, True, False), **changes: Any) -> Cell:
        top1 = np.array([[False] * len(hits), hits])
        generator = np.random.default_rng(changes.get("seed", 0))
        known: dict[str, Any] = {
            "name": "numeric/full",
            "split": "att40",
            "victim": "softmax",
            "method": "numeric",
            "parameters": {"probe": 1.0},
            "seed": 0,
            "contract": FULL,
            "status": "done",
            "sentence": "",
            "targets": np.arange(len(hits)),
            "marks": np.array([100.0, 3000.0]),
            "images": generator.random((2, len(hits), 1, 6, 5)),
            "top1": top1,
            "top5": top1 | True,
            "own": generator.random(top1.shape),
            "others": generator.random(top1.shape) / 2,
            "confidence": generator.random(top1.shape),
            **{key: np.full(top1.shape, np.nan) for key in ("mse", "psnr", "ssim")},
            "rows_ledger": 12_000,
            "rows_attacker": 12_000,
            "self_reported": False,
            "capacity_bits": 123_456.0,
            "seconds": 1.5,
        }
        return Cell(**{**known, **changes})

    return make


@pytest.fixture
def make_refused() -> Callable[..., Cell]:
    """A cell that was refused under a label-only contract."""

    def make(**changes: Any) -> Cell:
        known: dict[str, Any] = {
            "name": "numeric/label",
            "split": "att40",
            "victim": "softmax",
            "method": "numeric",
            "parameters": {"probe": 1.0},
            "seed": 0,
            "contract": {**FULL, "access": "label"},
            "status": "refused",
            "sentence": "numeric needs scores; this key releases only a label.",
        }
        return unscored(image_shape=(1, 6, 5), targets=np.arange(4), **{**known, **changes})

    return make


@pytest.fixture
def campaign() -> Campaign:
    generator = np.random.default_rng(7)
    split = SplitView(
        "att40",
        "Twenty people.",
        "Credit: the laboratory.",
        "A network.",
        20,
        np.arange(20),
        generator.random((20, 2, 1, 6, 5)),
    )
    flat = np.full(20, 0.5)
    return Campaign(
        title="Demo <campaign>",
        created="2026-01-01",
        command="referee demo",
        splits=[split],
        references=[
            Reference(
                "zero image",
                "floor",
                "att40",
                np.arange(20),
                np.arange(20) == 3,
                np.arange(20) < 4,
                0 * flat,
                0 * flat,
                flat,
            ),
            Reference("photos 8-10", "ceiling", "att40", np.arange(20), flat > 0, flat > 0, flat, flat / 2, flat),
        ],
        figures=[Figure("demo/top1", 0.6, low=0.4, high=0.8, paper=0.5, at_least=0.2), Figure("demo/free", 2.5e-7)],
        versions={"torch": "2"},
        notes=["A note."],
    )


@pytest.fixture
def cells(make_cell, make_refused):
    return [
        make_cell(
            HITS, name="mi_face", method="mi_face", contract=WEIGHTS, self_reported=True, rows_ledger=0, rows_attacker=0
        ),
        make_cell(HITS, name="numeric/a"),
        make_cell((True, *MISSES[1:]), name="numeric/b", parameters={"probe": 1e-4}),
        make_cell(MISSES, name="numeric/r", contract=ROUNDED),
        make_refused(),
    ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A small attribute experiment on a table of its own."""
    return tiny_experiment(tmp_path_factory.mktemp("t"))
