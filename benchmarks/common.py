"""What all benchmarks share: the hosted models, a server process, the attacker's own client of it."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import torch
from torch import nn

from attacker.oracle import WINDOW, Oracle
from benchmarks.callers import Load, noise
from benchmarks.models import MODELS
from oracle_server.models.importing import Draft, host
from oracle_server.models.repository import Repository
from oracle_server.operator import RemoteOperator, admin_socket
from protos import archive
from protos.mirage.v1 import oracle_pb2
from protos.mirage.v1.admin_pb2 import CreateKeyRequest

__all__ = ["BATCH", "IN_FLIGHT", "THREADS", "Rig", "Served", "served"]

BATCH = 64
IN_FLIGHT = WINDOW
THREADS = 1  # torch threads, of the server and of the model in process
_START_SECONDS = 120.0
_LOG = "server.log"
_folders = itertools.count()


_SHAPES = {"softmax": (1, 112, 92), "cnn": (1, 64, 64), "resnet18": (3, 64, 64)}
_SMALL = {"softmax": (1, 20, 16), "cnn": (1, 8, 8), "resnet18": (3, 8, 8)}


@dataclass(frozen=True)
class Rig:
    """How a run of the benchmarks measures: a folder to work in, the rounds of each ratio, the seconds of one reading.

    A quick one has the same models for small images, and only shows that everything runs.
    """

    folder: Path
    rounds: int = 11
    seconds: float = 1.0
    quick: bool = False

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of an input row of each model."""
        return _SMALL if self.quick else _SHAPES

    def models(self, *names: str) -> Path:
        """A server's root with these models, all when left out, each with random weights, as version 1 of its name."""
        torch.manual_seed(0)
        for model in names or MODELS:
            shape = self.shapes[model]
            host(MODELS[model](shape).eval(), Repository(self.folder), Draft(model, "1", shape))
        return self.folder

    def module(self, model: str) -> nn.Module:
        """A hosted model as whoever made it has it: the module that its archive was exported from, weights and all."""
        module = MODELS[model](self.shapes[model]).eval()
        module.load_state_dict(archive.load(self.folder / "models" / model / "1" / "model.pt2").state_dict())
        return module

    def noise(self, model: str, rows: int = BATCH) -> np.ndarray:
        """Images (rows, *shape) for a model, float32 in [0, 1)."""
        return noise((rows, *self.shapes[model]))


class Served:
    """A running server of the models below `root`."""

    def __init__(self, root: Path, address: str) -> None:
        self._root = root
        self._address = address

    def archive(self, model: str) -> Path:
        return self._root / "models" / model / "1" / "model.pt2"

    def form(self, model: str) -> tuple[str, int]:
        """The form that the server chose for a model, and the rows of a forward pass at most, from its log."""
        said = re.search(rf"\b{model}/1 runs (\w+), at most (\d+) rows", (self._root / _LOG).read_text())
        assert said, f"the log of the server says nothing of {model}"
        return said[1], int(said[2])

    def keys(
        self, model: str, number: int = 1, label: str = "", defences: Iterable[oracle_pb2.Defence] = ()
    ) -> tuple[str, ...]:
        """Fresh keys for full scores of a model, behind `defences`."""
        contract = oracle_pb2.Contract(access=oracle_pb2.Contract.ACCESS_SCORES, defences=defences)
        request = CreateKeyRequest(label=label, model=f"{model}/1", contract=contract)
        with grpc.insecure_channel(f"unix:{admin_socket(self._root)}") as channel:
            return tuple(RemoteOperator(channel).create_key(request).key for _ in range(number))

    def client(self, model: str, label: str = "", defences: Iterable[oracle_pb2.Defence] = ()) -> Oracle:
        """The attacker's own client, with a fresh key and a fresh journal."""
        oracle = Oracle(self._address, *self.keys(model, label=label, defences=defences))
        oracle.begin(self._root / f"client-{next(_folders)}", {"benchmark": model})
        return oracle

    def load(self, model: str, shape: tuple[int, ...], callers: int, rows: int = 1, **how: str) -> Load:
        """So many users of a model, each with a key of its own; `how` may name a `dtype`, and a `label` of the keys."""
        keys = self.keys(model, callers, how.pop("label", ""))
        return Load("mirage", self._address, shape, callers, rows, keys=keys, **how)


@contextmanager
def served(root: Path) -> Iterator[Served]:
    """A server process on loopback until the block is left."""
    state, log = root / "server.json", root / _LOG
    command = [sys.executable, "-m", "benchmarks.host", str(root), str(THREADS)]
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS)}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not state.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        yield Served(root, json.loads(state.read_text())["address"])
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
