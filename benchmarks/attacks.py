"""How fast attacks run: all targets in one batch against one alone, behind the wire against in process."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attacker.answers import Answer
from attacker.attacks.mi_face import MIFace, WhiteBox
from attacker.attacks.numeric import Numeric
from benchmarks.common import CLASSES, Rig, Served
from benchmarks.readings import Reading, paired
from protos import archive
from referee.report.summary import Figure

__all__ = ["measure"]


def measure(server: Served, rig: Rig) -> list[Figure]:
    """MI-Face's seconds a face, 40 targets over one; the numeric attack's rows a second, through the wire over
    direct.
    """
    path, client = server.archive("softmax"), server.client("softmax")
    many, one = (_mi_face(path, rig, targets) for targets in (CLASSES, 1))
    wire, direct = (_numeric(oracle) for oracle in (client, _Direct(path, rig, client.max_rows)))
    return [
        paired("bench/attacks/mi_face/batch40_over_batch1", many, one, rig.rounds, "s/face"),
        paired("bench/attacks/numeric/wire_over_in_process", wire, direct, rig.rounds, "rows/s"),
    ]


def _mi_face(path: Path, rig: Rig, targets: int) -> Reading:
    """Seconds a face for a fixed number of steps; nobody stops early."""
    model, start = archive.load(path), np.zeros(rig.shapes["softmax"], np.float32)
    steps = max(5, int(300 * rig.seconds))
    attack = MIFace(max_steps=steps, patience=steps + 1, confidence=1.0)

    def reading() -> float:
        begun = time.perf_counter()
        for _ in attack.descend(WhiteBox(model, range(targets)), start, targets, 0.0, 1.0):
            pass
        return (time.perf_counter() - begun) / targets

    return reading


def _numeric(oracle: Any) -> Reading:
    """Rows a second of one step from the zero image: a row for each pixel, and two for the images."""

    def reading() -> float:
        begun, before = time.perf_counter(), oracle.spent
        for _ in Numeric(max_steps=1).run(oracle, [0], seed=0):
            pass
        return float(oracle.spent - before) / (time.perf_counter() - begun)

    return reading


class _Direct:
    """What the numeric attack needs of an oracle: the archive called in this process, scores in float64."""

    low, high = 0.0, 1.0

    def __init__(self, path: Path, rig: Rig, max_rows: int) -> None:
        self.input_shape = rig.shapes["softmax"]
        self.max_rows = max_rows
        self.spent = 0
        self._model = archive.load(path)

    def query(self, inputs: np.ndarray, targets: np.ndarray | int | None = None) -> Answer:
        self.spent += len(inputs)
        with torch.inference_mode():
            return Answer(scores=self._model(torch.from_numpy(inputs)).double().softmax(1).numpy())

    def stream(self, batches: Iterable[tuple[np.ndarray, np.ndarray | int | None]]) -> Iterator[Answer]:
        return (self.query(*batch) for batch in batches)
