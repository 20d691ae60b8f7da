"""The attacker's view of the oracle: the only file that opens a channel.

Requests are numbered. The id of request n is a hash of the run's nonce and n, and the journal holds its intent before
it is sent, so that retries, after an error or in another process after a crash, are the same request and free.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from torch import nn

from attacker.answers import Answer, Contract, join, read_answer, reason_of
from attacker.journal import Journal
from attacker.on_device import OnDevice
from attacker.payload import payload
from attacker.transport import Tls, plain_text_options
from protos import RANGE_MARKER, archive
from protos.codec import decode, digest, dtype_name, raw, serialize
from protos.contracts import contract_values
from protos.mirage.v1 import oracle_pb2 as pb
from protos.mirage.v1.oracle_pb2_grpc import OracleStub
from protos.schema import Feature, Output
from protos.tree import Tree

__all__ = ["WINDOW", "BudgetSpent", "Oracle", "OracleError"]

_NO_ORACLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN)
WINDOW = 3  # requests under way at once: one computed, one on the wire, one being made
_MESSAGE_BYTES = 256 << 20
_REQUEST_BYTES = 4 << 20  # larger requests are slower: each of their copies is written to memory that no cache holds
_RECONNECT_MS = 500  # most time between two attempts to reach a server that went away


class OracleError(RuntimeError):
    """The oracle refused or did not answer; the sentence says why."""


class BudgetSpent(OracleError):
    """The key's budget does not cover the next request: the attack ends with what it has."""


@dataclass
class _Request:
    sequence: int
    rows: int
    targets: np.ndarray | int | None
    data: bytes
    call: grpc.Future[bytes] | None


class Oracle:
    """Access to one hosted model, described on opening, with one key; or with several of the same contract, which take
    turns, a request each, so that no key sees what the others are asked.

    input_shape  of one row; low and high bound every value in it
    classes      C; 0 for a feature model
    kind         of model: neural, tree, regression, features; trees and regressions publish features and response, and
                 as side information the confusion matrix (C, C) of a tree or the error's standard deviation
    outputs      of a feature model: name and group of each, in [0, 1]; `released`: the names of those that this key
                 gets, in the order of the columns of an answer's numbers
    joint        the classifier was trained together with a network that inverts it
    tls          files for TLS; without them plain text, on loopback unless `plain_text_beyond_loopback`
    patience     seconds of failures in a row before a run stops; it can be resumed
    max_rows     rows that one request carries at most: as many as the server takes, and no more than go fast
    spent        rows answered so far, counted here; `spent_on[c]` those asked for target c, `shared` those for all
    notice       tells whoever watches what an attack does between its questions
    keys         how many there are; repeats: how often a row is asked
    """

    repeats = 1

    def __init__(
        self,
        address: str,
        key: str | Sequence[str],
        *,
        tls: Tls | None = None,
        plain_text_beyond_loopback: bool = False,
        patience: float = 60.0,
        progress: Callable[[int, int | None], None] = lambda spent, budget: None,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        options = [
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MESSAGE_BYTES),
            ("grpc.initial_reconnect_backoff_ms", _RECONNECT_MS),
            ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),
        ]
        if tls is None:
            options += plain_text_options(address, plain_text_beyond_loopback)
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            self._channel = grpc.secure_channel(address, tls.credentials(), options=options)
        self._address, self._patience = address, patience
        keys = [key] if isinstance(key, str) else key
        self._metadata = [(("authorization", f"Bearer {one}"),) for one in keys]
        self._progress = progress
        self.notice = notice
        self._predict: Any = self._channel.unary_unary("/mirage.v1.Oracle/Predict")  # bytes, for the journal
        self._stub = OracleStub(self._channel)
        try:
            described = self._describe()
        except BaseException:
            self._channel.close()
            raise
        card = described.card
        self.model_id = f"{card.name}/{card.version}"
        self.input_shape = tuple(card.input_shape)
        self.dtype = dtype_name(card.input_dtype)
        self.accepted_dtypes = tuple(map(dtype_name, card.accepted_dtypes))
        self.low, self.high = card.low, card.high
        self.classes = card.classes
        self.kind = card.kind
        self.features = tuple(Feature.from_message(feature) for feature in card.features)
        self.response = Feature.from_message(card.response) if card.HasField("response") else None
        self.confusion = decode(card.confusion) if card.HasField("confusion") else None
        self.error_std = card.error_std if card.HasField("error_std") else None
        self.outputs = tuple(Output.from_message(output) for output in card.outputs)
        self.joint = card.joint
        self.archive_sha256 = card.archive_sha256.hex()
        self._archives = {"": card.archive_sha256} | {part.name: part.sha256 for part in card.archives}
        self.contract = Contract(**contract_values(described.contract))
        self.keys = len(self._metadata)
        groups = self.contract.features or {output.group for output in self.outputs}
        self.released = tuple(output.name for output in self.outputs if output.group in groups)
        self.max_rows = _rows_of_a_request(described)
        self.shared = 0
        self.spent_on: Counter[int] = Counter()
        self.device: torch.device | str = "cpu"
        self._sequence = 0
        self._journal: Journal | None = None
        self.folder = Path()

    def _describe(self) -> pb.DescribeResponse:
        found: list[pb.DescribeResponse] = []
        for key in self._metadata:
            ask = functools.partial(self._stub.Describe, pb.DescribeRequest(), metadata=key, timeout=30)
            found.append(self._insist(ask))
            if found[-1].range_marker != RANGE_MARKER:
                said = f"{self._address} is no oracle of a range ({RANGE_MARKER}): nothing else is ever queried"
                raise OracleError(said)
            if found[-1].card != found[0].card or found[-1].contract != found[0].contract:
                raise OracleError("the keys are for different models or contracts: give keys that differ in nothing")
        return found[0]

    def begin(self, folder: Path, run: dict[str, Any], device: torch.device | str = "cpu") -> None:
        """Open the journal in `folder` for the run that `run` names, and count from zero. Needed before any query."""
        self.folder, self.device = folder, device
        self._journal = Journal(folder / "journal.bin", run)

    def forget(self) -> None:
        """Leave no trace of a run that has asked nothing."""
        if self._journal is not None:
            self._journal.forget()

    @property
    def spent(self) -> int:
        return self.shared + self.spent_on.total()

    def query(self, inputs: np.ndarray, targets: np.ndarray | int | None = None) -> Answer:
        """Answers for any number of rows (N, *input_shape); `targets` as in `stream`."""
        per_row = isinstance(targets, np.ndarray)
        parts = [slice(first, first + self.max_rows) for first in range(0, len(inputs), self.max_rows)]
        answers = list(self.stream((inputs[part], targets[part] if per_row else targets) for part in parts))  # type: ignore[index]
        return answers[0] if len(answers) == 1 else join(answers)

    def stream(self, batches: Iterable[tuple[np.ndarray, np.ndarray | int | None]]) -> Iterator[Answer]:
        """One answer for each batch, in order; a few requests are under way at once.

        A batch is (inputs (N, *input_shape), 1 <= N <= max_rows, see `payload`; the target of each row: an array (N,),
        one for all, or None for rows that serve every target). Its array may be reused once the next is asked for.
        Raises `BudgetSpent` when the budget does not cover a request: what was answered before has been yielded.
        """
        window: deque[_Request] = deque()
        try:
            for inputs, targets in batches:
                window.append(self._send(inputs, targets))
                if len(window) == WINDOW:
                    yield self._receive(window.popleft())
            while window:
                yield self._receive(window.popleft())
        except (
            BudgetSpent,
            GeneratorExit,
        ):  # the end, or the attack stopped early: what was sent is charged and counted
            for request in window:
                with contextlib.suppress(OracleError):
                    self._receive(request)
            raise

    def _send(self, inputs: np.ndarray, targets: np.ndarray | int | None) -> _Request:
        if self._journal is None:
            raise OracleError("no run was begun: call begin(folder, run) first")
        array = payload(inputs, self.dtype, self.accepted_dtypes)
        sequence, self._sequence = self._sequence, self._sequence + 1
        self._journal.intend(sequence, digest(str(array.shape).encode(), raw(array)))
        if self._journal.answer(sequence) is not None:
            return _Request(sequence, len(inputs), targets, b"", None)
        request_id = hashlib.sha256(f"{self._journal.nonce}:{sequence}".encode()).digest()
        data = serialize(pb.PredictRequest(request_id=request_id), "inputs", array)
        return _Request(sequence, len(inputs), targets, data, self._call(sequence, data))

    def _call(self, sequence: int, data: bytes) -> grpc.Future[bytes]:
        key = self._metadata[sequence % self.keys]  # of a retry the same
        call: grpc.Future[bytes] = self._predict.future(data, metadata=key, timeout=300)
        return call

    def _receive(self, request: _Request) -> Answer:
        assert self._journal is not None
        data = self._journal.answer(request.sequence)
        if data is None:
            first = request.call

            def wait() -> bytes:
                nonlocal first
                call, first = first, None  # a retry is the same bytes under the same id
                return (call or self._call(request.sequence, request.data)).result()

            data = self._insist(wait)
            self._journal.record(request.sequence, data)
        answer = read_answer(pb.PredictResponse.FromString(data), self.classes)
        if request.targets is None:
            self.shared += request.rows
        elif isinstance(request.targets, np.ndarray):
            self.spent_on.update(request.targets.tolist())
        else:
            self.spent_on[int(request.targets)] += request.rows
        budget = self.contract.budget
        self._progress(self.spent, None if budget is None else self.keys * budget)
        return answer

    def _insist(self, call: Callable[[], Any]) -> Any:
        """The call's result, with retries for as long as they may help; `OracleError` with the server's sentence."""
        started, delay = time.monotonic(), 0.05
        while True:
            try:
                return call()
            except grpc.RpcError as error:
                reason, wait = reason_of(error)
                code = error.code()
                if reason == "BUDGET_SPENT":
                    raise BudgetSpent(error.details()) from error
                may_help = reason in ("SLOW_DOWN", "QUEUE_FULL") or code in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    grpc.StatusCode.CANCELLED,  # by a server that is going down: nobody here cancels calls
                )
                if reason == "SLOW_DOWN":
                    started = time.monotonic()  # the server is there and asks for patience
                elif not may_help or time.monotonic() - started > self._patience:
                    said = error.details() or code.name
                    lost = not reason and code in _NO_ORACLE
                    hint = f" (is oracle-server running at {self._address}?)" if lost else ""
                    raise OracleError(f"{said}{hint}") from error
                time.sleep(max(wait, delay * random.uniform(0.5, 1.5)))
                delay = min(2 * delay, 2.0)

    def model(self, part: str = "") -> nn.Module:
        """The model itself, (N, *input_shape) -> logits (N, C), or one of the parts that the card names; differentiable
        and downloaded once, hash checked. `ValueError` for a part that is not published.
        """
        return OnDevice(archive.load(self._downloaded(part, "pt2"), self.device), self.device)

    def tree(self) -> Tree:
        """A tree with the training counts of its leaves; downloaded once, hash checked."""
        return Tree.from_json(self._downloaded("", "json").read_bytes())

    def _downloaded(self, part: str, suffix: str) -> Path:
        if part not in self._archives:
            there = ", ".join(name for name in self._archives if name) or "none"
            raise ValueError(f"the model publishes no part {part!r}; there is {there}")
        path = self.folder / f"{part or 'model'}.{suffix}"
        promised = self._archives[part]
        if not path.exists() or hashlib.sha256(path.read_bytes()).digest() != promised:
            self._insist(lambda: self._download(part, path, promised))
        return path

    def _download(self, part: str, path: Path, promised: bytes) -> None:
        sha256, sent = hashlib.sha256(), b""
        new = path.with_suffix(".part")
        with new.open("wb") as file:
            for chunk in self._stub.Download(pb.DownloadRequest(archive=part), metadata=self._metadata[0]):
                file.write(chunk.data)
                sha256.update(chunk.data)
                sent = chunk.sha256 or sent
        if not sha256.digest() == sent == promised:
            new.unlink()
            raise OracleError("the download is truncated or was changed on its way (SHA-256 differs): run again")
        new.replace(path)

    def usage(self) -> pb.UsageResponse:
        """The server's own count; of several keys that of the first."""
        usage: pb.UsageResponse = self._insist(lambda: self._stub.Usage(pb.UsageRequest(), metadata=self._metadata[0]))
        return usage

    def close(self) -> None:
        self._channel.close()
        if self._journal is not None:
            self._journal.close()


def _rows_of_a_request(described: pb.DescribeResponse) -> int:
    """A power of two, which fills a server's batches, of about `_REQUEST_BYTES`; or what the server takes, if less."""
    row = math.prod(described.card.input_shape) * np.dtype(dtype_name(described.card.input_dtype)).itemsize
    fast = max(1, _REQUEST_BYTES // max(1, row))
    return min(described.max_rows, 1 << (fast.bit_length() - 1))
