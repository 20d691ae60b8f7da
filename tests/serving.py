"""Real servers on loopback for tests: hosted models, processes that start in a tenth of a second, callers with keys."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from oracle_server.contracts import contract_message
from oracle_server.operator import admin_socket
from oracle_server.threat_model import Access, Contract
from protos.codec import encode
from protos.mirage.v1 import admin_pb2
from protos.mirage.v1 import oracle_pb2 as pb
from protos.mirage.v1.admin_pb2_grpc import AdminStub
from protos.mirage.v1.oracle_pb2_grpc import OracleStub

__all__ = [
    "Books",
    "Caller",
    "Forker",
    "Process",
    "Refused",
    "Server",
    "assert_refused",
    "inputs",
    "new_root",
    "refused",
]

_MESSAGE_BYTES = 256 << 20
_START_SECONDS = 60.0


def inputs(rows: int, seed: int = 0, shape: tuple[int, ...] = (1, 8, 6)) -> np.ndarray:
    """Legal rows (N, *shape) float32 in [0, 1]."""
    return np.random.default_rng(seed).random((rows, *shape), dtype=np.float32)


def new_root(models: Path, *names: str) -> Path:
    """A server's folder with a short path, as the admin socket needs one, that hosts `names` of `models`."""
    root = Path(tempfile.mkdtemp(prefix="mr"))
    for name in names:
        shutil.copytree(models / "models" / name, root / "models" / name)
    return root


@dataclass(frozen=True)
class Books:
    """All that a server has ever charged: rows and downloads of each key; lines of the log, and the rows in them."""

    rows: dict[str, int]
    downloads: dict[str, int]
    lines: int
    logged: int


@dataclass(frozen=True)
class Refused:
    """What a refused caller is told; `reason` and `rows_charged` are None when no range's server wrote the status."""

    code: str
    reason: str | None
    sentence: str
    rows_charged: int | None = None
    figures: dict[str, int] | None = None
    retry_after: float | None = None


def refused(error: grpc.RpcError) -> Refused:
    """Read the rich status of a failed call."""
    code, sentence, status = error.code().name, error.details(), rpc_status.from_call(error)
    if status is None:
        return Refused(code, None, sentence)
    assert (status.code, status.message) == (error.code().value[0], sentence)
    info, delay = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "mirage"
    figures = {name: int(value) for name, value in info.metadata.items()}
    waits = any(detail.Unpack(delay) for detail in status.details[1:])
    return Refused(
        code,
        info.reason,
        sentence,
        figures.pop("rows_charged"),
        figures,
        delay.retry_delay.ToNanoseconds() / 1e9 if waits else None,
    )


def assert_refused(server: Server, call: Callable[[], object], code: str, reason: str | None, sentence: str) -> Refused:
    """The call fails with this status, reason and sentence, and nobody was charged anything."""
    before = server.books()
    with pytest.raises(grpc.RpcError) as caught:
        call()
    told = refused(caught.value)
    assert (told.code, told.reason, told.sentence) == (code, reason, sentence)
    assert told.rows_charged in (0, None)
    assert server.books() == before
    return told


class Process:
    """A command that runs; `log` is what it has printed."""

    def __init__(self, forker: Forker, pid: int, log: Path) -> None:
        self._forker, self.pid, self._log = forker, pid, log
        self.status: int | None = None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.status is None:
            self.status = self._forker.order(poll=self.pid)["status"]
        return self.status

    def wait(self, seconds: float = 60.0) -> int:
        deadline = time.monotonic() + seconds
        while (status := self.poll()) is None:
            assert time.monotonic() < deadline, f"still running after {seconds:g} s:\n{self.log}"
            time.sleep(0.002)
        return status

    def send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        self.send(number)
        return self.wait()


class Forker:
    """The process that forks the others; see `tests/forker.py`."""

    def __init__(self, archive: Path) -> None:
        command = [sys.executable, "-P", "-W", "error", str(Path(__file__).with_name("forker.py")), str(archive)]
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdout is not None
        assert json.loads(self._process.stdout.readline() or "{}").get("ready"), "the forker did not start"

    def order(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def start(
        self,
        module: str,
        arguments: Sequence[object],
        *,
        log: Path,
        folder: Path = Path("/"),
        environment: dict[str, str] | None = None,
        before: str = "",
    ) -> Process:
        """`python -m MODULE ARGUMENTS`, by now."""
        words = [str(word) for word in arguments]
        order = {"module": module, "arguments": words, "log": str(log), "folder": str(folder), "before": before}
        return Process(self, self.order(**order, environment=environment or {})["pid"], log)

    def close(self) -> None:
        self._process.communicate()


class Server:
    """`oracle-server serve` on a root of its own; everything that it hosts, charges and logs is real."""

    def __init__(self, forker: Forker, root: Path, *options: str, port: int = 0, before: str = "") -> None:
        self._forker, self.root, self._options = forker, root, options
        self._channels = contextlib.ExitStack()
        self.start(port, before)

    def start(self, port: int = 0, before: str = "") -> None:
        """Start, or start again after `kill`; returns when calls are answered."""
        (self.root / "server.json").unlink(missing_ok=True)
        words = ["serve", "--root", self.root, "--port", port, "--device", "cpu", *self._options]
        self.process = self._forker.start("oracle_server", words, log=self.root / "server.log", before=before)
        deadline = time.monotonic() + _START_SECONDS
        while not (self.root / "server.json").exists():
            assert self.process.poll() is None, self.process.log
            assert time.monotonic() < deadline, self.process.log
            time.sleep(0.002)
        self.address: str = json.loads((self.root / "server.json").read_text())["address"]
        self.channel = self._channels.enter_context(_channel(self.address))
        self.admin = AdminStub(self._channels.enter_context(_channel(f"unix:{admin_socket(self.root)}")))

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def new_key(self, access: str = "scores", model: str = "linear", **contract: Any) -> Caller:
        message = contract_message(Contract(Access(access), **contract))
        made = self.admin.CreateKey(admin_pb2.CreateKeyRequest(model=model, contract=message))
        return Caller(self, made.key, made.key_id)

    def books(self) -> Books:
        keys = self.admin.ListKeys(admin_pb2.ListKeysRequest()).keys
        entries = [entry for batch in self.admin.Audit(admin_pb2.AuditRequest()) for entry in batch.entries]
        return Books(
            rows={key.key_id: key.usage.spent for key in keys if key.usage.spent},
            downloads={key.key_id: key.usage.downloads for key in keys if key.usage.downloads},
            lines=len(entries),
            logged=sum(entry.rows for entry in entries),
        )

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        self._channels.close()
        return self.process.kill(number)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.root, ignore_errors=True)


class Caller:
    """The holder of a key, with the bare protocol: no retries, no journal."""

    def __init__(self, server: Server, key: str, key_id: str) -> None:
        self.server, self.key, self.key_id = server, key, key_id

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.key}"),)

    @property
    def stub(self) -> OracleStub:
        return OracleStub(self.server.channel)

    def describe(self) -> pb.DescribeResponse:
        return self.stub.Describe(pb.DescribeRequest(), metadata=self.metadata, timeout=30)

    def request(self, rows: np.ndarray, request_id: bytes | None = None, model: str = "") -> pb.PredictRequest:
        chosen = secrets.token_bytes(16) if request_id is None else request_id
        return pb.PredictRequest(model=model, request_id=chosen, inputs=encode(rows))

    def send(self, request: pb.PredictRequest, timeout: float = 30.0) -> pb.PredictResponse:
        return self.stub.Predict(request, metadata=self.metadata, timeout=timeout)

    def predict(self, rows: np.ndarray, request_id: bytes | None = None) -> pb.PredictResponse:
        return self.send(self.request(rows, request_id))

    def raw(self, rpc: str, data: bytes) -> bytes:
        """The bytes of an answer to any bytes at all."""
        call = self.server.channel.unary_unary(rpc)
        answer: bytes = call(data, metadata=self.metadata, timeout=30)
        return answer

    def download(self) -> Iterator[pb.DownloadChunk]:
        return iter(self.stub.Download(pb.DownloadRequest(), metadata=self.metadata, timeout=30))

    def usage(self) -> pb.UsageResponse:
        return self.stub.Usage(pb.UsageRequest(), metadata=self.metadata, timeout=30)


def _channel(address: str) -> grpc.Channel:
    sizes = [(f"grpc.max_{way}_message_length", _MESSAGE_BYTES) for way in ("send", "receive")]
    return grpc.insecure_channel(address, options=sizes)
