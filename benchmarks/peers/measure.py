"""What this server answers to 32 callers of one row each, over what another server of the same weights answers them."""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import click
import grpc
import numpy as np
import torch

from benchmarks.callers import PROTOCOLS, Callers, Load, Run, noise
from benchmarks.common import THREADS, Rig, Served
from benchmarks.peers import mlserver, rayserve, torchserve, triton
from benchmarks.peers.peer import ENVIRONMENTS, Job, Peer, interpreter, running, versions, write
from benchmarks.readings import alternated, over
from referee.report.summary import Figure

__all__ = ["PEERS", "installed", "measure", "started"]

PEERS: tuple[Peer, ...] = (torchserve.PEER, mlserver.PEER, rayserve.PEER, triton.PEER, triton.BACKEND)
_BOUNDS = {
    "softmax": {"torchserve": 1.2, "mlserver": 4.0, "rayserve": 9.0, "triton": 1.3},
    "cnn": {"torchserve": 1.8, "mlserver": 1.8, "rayserve": 1.8, "triton": 1.8},
}
_CALLERS = 32
_WARM = 15  # readings of each before those that count: a virtual machine's compiler takes its time
_START_SECONDS = 120.0


def measure(server: Served, rig: Rig, peers: Sequence[Peer] = PEERS, warm: int = _WARM) -> Iterator[Figure]:
    """A figure of each model and each peer that is installed; of one that is not, a line that says so."""
    for peer in peers:
        if found := installed(peer):
            python, versions = found
            told = {"peer": versions, "settings": peer.settings, "threads": THREADS, "warm_seconds": warm * rig.seconds}
            for model, bounds in _BOUNDS.items():
                with started(peer, python, model, rig) as load:
                    pairs = _alternated(server.load(model, load.shape, _CALLERS), load, rig, warm)
                name = f"bench/{model}/{_CALLERS}_callers_over_{peer.name}"
                yield over(name, pairs, bounds.get(peer.name), **told)


def _alternated(ours: Load, theirs: Load, rig: Rig, warm: int) -> list[tuple[Run, Run]]:
    with Callers(ours) as first, Callers(replace(theirs, callers=_CALLERS)) as second:
        both = (lambda: first.run(rig.seconds), lambda: second.run(rig.seconds))
        alternated(both, warm)
        return alternated(both, rig.rounds)


def installed(peer: Peer) -> tuple[Path, str] | None:
    """Its interpreter and its versions; None, and a line for the reader, when it is not installed."""
    python = interpreter(peer)
    missing = [program for program in peer.programs if shutil.which(program) is None]
    if missing:
        click.echo(f"peers: {peer.name} is left out: it needs {missing[0]}, which is not installed", err=True)
    elif (found := versions(peer, python)) is None:
        click.echo(
            f"peers: {peer.name} is left out: it is not installed. `python -m benchmarks.peers"
            f" {peer.environment}` installs it in {ENVIRONMENTS.name}/{peer.environment}.", err=True,
        )  # fmt: skip
    else:
        return python, found
    return None


@contextmanager
def started(peer: Peer, python: Path, model: str, rig: Rig) -> Iterator[Load]:
    """The peer, serving a model of the rig, until the block is left: the load of one caller.

    Raises `RuntimeError` with the end of its log when it does not start, and when its scores are not the model's.
    """
    folder, module, shape = (rig.folder / peer.name / model).resolve(), rig.module(model), rig.shapes[model]
    folder.mkdir(parents=True)
    write(model, module, shape, folder / "module.pt")
    with torch.inference_mode():
        expected = module(torch.from_numpy(noise((1, *shape)))).numpy()
    job = Job(python.absolute(), folder, folder / "module.pt", model, shape, expected.shape[1], _free_ports())
    load = Load(peer.protocol, f"127.0.0.1:{job.ports[0]}", shape, model=peer.path.format(model=model))
    with running(peer, job) as process:
        deadline = time.monotonic() + _START_SECONDS
        while (answer := asyncio.run(_answer(load))) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                log = (folder / "log").read_text(errors="replace")
                raise RuntimeError(f"{peer.name} did not start: {log[-2000:]}")
            time.sleep(0.2)
        if not np.allclose(peer.scores(answer), expected.ravel(), rtol=0, atol=1e-5):
            raise RuntimeError(f"{peer.name} answers with other scores than {model} gives: is it the same model?")
        yield load


async def _answer(load: Load) -> bytes | None:
    """The answer to one request, None while there is nobody or nothing to ask."""
    async with AsyncExitStack() as stack:
        try:
            return await PROTOCOLS[load.protocol](load, stack)[0]()
        except (OSError, EOFError, RuntimeError, grpc.RpcError):
            return None


def _free_ports() -> tuple[int, ...]:
    """Ports of loopback that nobody has now, as many as any peer wants."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(5)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return tuple(each.getsockname()[1] for each in sockets)
