"""What the peers have in common: an environment of their own, a process to start and to end, a model to serve.

A peer is installed when its interpreter can import it: that of `.peers/NAME`, which `python -m benchmarks.peers NAME`
makes, or else the one that runs the benchmark. Their pins do not fit ours, nor each other's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

__all__ = ["ENVIRONMENTS", "ROOT", "Job", "Peer", "environment", "interpreter", "running", "versions", "write"]

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".peers"
_STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Job:
    """What a peer is to serve: the module in `file`, under the name `model`, rows of `shape` to `classes` scores; at
    which `ports` of loopback, all of them free; `folder` is its own, to write to.
    """

    python: Path
    folder: Path
    file: Path
    model: str
    shape: tuple[int, ...]
    classes: int
    ports: tuple[int, ...]


@dataclass(frozen=True)
class Peer:
    """One server to compare with.

    name          in a figure
    environment   its folder of `.peers`, where pip installs `requirements` beside torch
    module        what its interpreter imports when it is installed; `programs` are found too
    distribution  whose version is stated, and `settings` beside it
    protocol      one of `benchmarks.callers.PROTOCOLS`, spoken at `Job.ports[0]`; `path` makes a model's name for it
    command       writes what a job needs, and says what to start
    scores        of an answer's bytes
    """

    name: str
    environment: str
    requirements: tuple[str, ...]
    module: str
    distribution: str
    settings: str
    protocol: str
    command: Callable[[Job], Sequence[str]]
    scores: Callable[[bytes], np.ndarray]
    path: str = "{model}"
    programs: tuple[str, ...] = ()


def write(model: str, module: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """The file that `benchmarks.peers.inside.eager.forward` reads: the name of a model in `MODELS`, and its weights."""
    torch.save({"model": model, "shape": shape, "weights": module.state_dict()}, path)


def interpreter(peer: Peer) -> Path:
    """The Python of the peer's own environment, or this one."""
    own = ENVIRONMENTS / peer.environment / "bin" / "python"
    return own if own.exists() else Path(sys.executable)


def versions(peer: Peer, python: Path) -> str | None:
    """Of the peer, its torch and its Python, where that can import it; else None."""
    code = f"""import importlib.metadata as of, platform, {peer.module}
print({peer.distribution!r}, of.version({peer.distribution!r}), "torch", of.version("torch"))
print("Python", platform.python_version())"""
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, env=environment(python)
    )
    return " ".join(done.stdout.splitlines()[-2:]) if done.returncode == 0 else None


def environment(python: Path) -> dict[str, str]:
    """One thread, no proxy, this project's `benchmarks.peers.inside` in reach, and the peer's own commands first."""
    kept = {name: text for name, text in os.environ.items() if not name.lower().endswith("_proxy")}
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
    path = os.pathsep.join((str(python.parent), os.environ.get("PATH", os.defpath)))
    return kept | threads | {"PYTHONPATH": str(ROOT), "PATH": path}


@contextmanager
def running(peer: Peer, job: Job) -> Iterator[subprocess.Popen[bytes]]:
    """The peer's process, until the block is left; whatever it started in its session ends with it."""
    job.folder.mkdir(parents=True, exist_ok=True)
    command, log = peer.command(job), job.folder / "log"
    surroundings = environment(job.python) | {"TMPDIR": str(job.folder)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=job.folder, env=surroundings,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the process, and to what is left of its group SIGKILL."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
