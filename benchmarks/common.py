"""What all benchmarks share: the hosted models, a server process, the attacker's own client of it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import torch
from torch import nn

from attacker.oracle import WINDOW, Oracle
from oracle_server.models.importing import Draft, host
from oracle_server.models.repository import Repository
from oracle_server.operator import RemoteOperator, admin_socket
from oracle_server.victims.cnn import Cnn
from oracle_server.victims.softmax_regression import SoftmaxRegression
from protos.mirage.v1 import oracle_pb2
from protos.mirage.v1.admin_pb2 import CreateKeyRequest

__all__ = ["BATCH", "CLASSES", "IN_FLIGHT", "THREADS", "Rig", "Served", "served"]

CLASSES, BATCH = 40, 64
IN_FLIGHT = WINDOW
THREADS = 1  # torch threads, of the server and of the model in process
_START_SECONDS = 120.0
_folders = itertools.count()


@dataclass(frozen=True)
class Rig:
    """How a run of the benchmarks measures: a folder to work in, the rounds of each ratio, the seconds of one reading,
    and the shape of an input row.
    """

    folder: Path
    rounds: int = 11
    seconds: float = 1.0
    shape: tuple[int, ...] = (1, 112, 92)

    def models(self) -> Path:
        """A server's root with both networks and random weights: `softmax/1`, pixels -> 40, and `cnn/1`, the
        evaluation network.
        """
        torch.manual_seed(0)
        softmax = SoftmaxRegression(CLASSES, self.shape)
        nn.init.normal_(softmax.linear.weight, std=0.01)
        for model, module in {"softmax": softmax, "cnn": Cnn(CLASSES, self.shape).eval()}.items():
            host(module, Repository(self.folder), Draft(model, "1", self.shape))
        return self.folder

    def noise(self, rows: int) -> np.ndarray:
        """Images (rows, *shape), float32 in [0, 1)."""
        return np.random.default_rng(0).random((rows, *self.shape), dtype=np.float32)


class Served:
    """A running server of the models below `root`."""

    def __init__(self, root: Path, address: str) -> None:
        self._root = root
        self._address = address

    def archive(self, model: str) -> Path:
        return self._root / "models" / model / "model.pt2"

    def client(self, model: str, label: str = "", defences: Iterable[oracle_pb2.Defence] = ()) -> Oracle:
        """The attacker's own client, with a fresh key for full scores, behind `defences`, and a fresh journal."""
        contract = oracle_pb2.Contract(access=oracle_pb2.Contract.ACCESS_SCORES, defences=defences)
        with grpc.insecure_channel(f"unix:{admin_socket(self._root)}") as channel:
            request = CreateKeyRequest(label=label, model=model, contract=contract)
            oracle = Oracle(self._address, RemoteOperator(channel).create_key(request).key)
        oracle.begin(self._root / f"client-{next(_folders)}", {"benchmark": model})
        return oracle


@contextmanager
def served(root: Path) -> Iterator[Served]:
    """A server process on loopback until the block is left."""
    state, log = root / "server.json", root / "server.log"
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
