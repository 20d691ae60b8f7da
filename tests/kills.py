"""The server killed with SIGKILL under load, again and again, and the laws that must hold each time.

Eight keys with different contracts ask without pause; what broke off is asked again under its id once the server is
back. After each kill the dead server's ledger stands on one side and what the clients were told on the other:
answered <= charged <= budget for every key, nothing acknowledged is lost, no retry costs anything or gets another
answer, and the head in every receipt is the link of its line in the log. Whatever does not
hold is a violation, in words.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from oracle_server.ledger import Entry, SqliteLedger
from oracle_server.ledger.chain import audit_key_path
from oracle_server.ledger.verify import verify
from oracle_server.operator import ledger_path
from protos.mirage.v1 import oracle_pb2 as pb
from tests.serving import Caller, Server, inputs, refused

__all__ = ["CONTRACTS", "MODELS", "Outcome", "kill_series"]

MODELS = ("linear", "slow")  # what the server must host
CONTRACTS: tuple[dict[str, Any], ...] = (
    {"access": "scores"},
    {"access": "label", "budget": 4_000},
    {"access": "scores", "top_k": 2, "round_to": 0.01, "defences": (("gaussian_noise", (("sigma", 0.2),)),)},
    {"access": "scores", "defences": (("gaussian_noise", (("sigma", 0.1),)),), "budget": 20_000},
    {"access": "scores", "defences": (("keyed_noise", (("sigma", 0.1),)),)},
    {"access": "scores", "budget": 60},
    {"access": "label", "rate": 400.0, "model": "slow"},  # most kills come between its charge and its answer
    {"access": "weights"},  # and downloads
)
_ALL_UNDER_WAY = 0.5  # share of the kills before which every client has done its retries and was told something new
_MOST_WAIT = 10.0
_MOST_SECONDS = 0.25  # until the kill, drawn at random


@dataclass(frozen=True)
class Outcome:
    """What became of a series: answers acknowledged; those of them that had been charged before a kill and were
    answered after it; retries of answers that were there already; refusals for want of budget; downloads told whole.
    """

    kills: int
    violations: list[str]
    answered: int
    recovered: int
    asked_again: int
    budget_refusals: int
    downloads: int


def kill_series(server: Server, kills: int, *, seed: int = 0, before: str = "") -> Outcome:
    """Kill the server, which hosts `MODELS`, at random moments. `before` goes to each start; see `tests/forker.py`."""
    clients = [_Client(server.new_key(**contract), number) for number, contract in enumerate(CONTRACTS)]
    generator = random.Random(seed)
    violations: list[str] = []
    for _ in range(kills):
        stop = threading.Event()
        under_way: set[int] = set()
        threads = [threading.Thread(target=client.run, args=(stop, under_way)) for client in clients]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + _MOST_WAIT * (generator.random() < _ALL_UNDER_WAY)
        while len(under_way) < len(clients) and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(generator.uniform(0.0, _MOST_SECONDS))
        server.process.kill()
        stop.set()
        for thread in threads:
            thread.join()
        with contextlib.closing(SqliteLedger(ledger_path(server.root))) as ledger:
            violations += _audit(clients, ledger)
        violations += _verify(clients, ledger_path(server.root))
        server.kill()
        server.start(before=before)
    stop = threading.Event()
    stop.set()
    for client in clients:  # what is still open is asked once more, and then everybody's count is the ledger's
        client.run(stop, set())
        rows, spent = sum(map(_rows, client.answered)), client.caller.usage().spent
        if client.broken_off or rows != spent:
            client.violation(f"{spent} rows were charged and {rows} answered in the end")
    return Outcome(
        kills,
        violations + [sentence for client in clients for sentence in client.violations],
        answered=sum(len(client.answered) for client in clients),
        recovered=sum(client.recovered for client in clients),
        asked_again=sum(client.asked_again for client in clients),
        budget_refusals=sum(client.budget_refusals for client in clients),
        downloads=sum(client.downloads for client in clients),
    )


def _rows(request_id: bytes) -> int:
    """The request of an id is a function of the id."""
    return 1 + request_id[0] % 20


@dataclass
class _Client:
    """It asks without pause, retries what broke off once the server is back, and writes down what it was told."""

    caller: Caller
    number: int
    answered: dict[bytes, pb.PredictResponse] = field(default_factory=dict)
    broken_off: list[bytes] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    recovered: int = 0
    asked_again: int = 0
    budget_refusals: int = 0
    downloads: int = 0

    def violation(self, sentence: str) -> None:
        self.violations.append(f"key {self.number}: {sentence}")

    def run(self, stop: threading.Event, under_way: set[int]) -> None:
        """Until told to stop, or the server is gone; its number is in `under_way` once it was told something new."""
        try:
            self._run(stop, under_way)
        except Exception as error:
            self.violation(f"a client ended with {type(error).__name__}: {error}")

    def _run(self, stop: threading.Event, under_way: set[int]) -> None:
        generator = random.Random(f"{self.number} {self.caller.server.address}")
        open_ids, self.broken_off = self.broken_off, []
        known = list(self.answered)
        again = [*open_ids, *generator.sample(known, min(3, len(known)))]
        while again:
            if not self._ask(again.pop(0)):
                self.broken_off += again
                return
        downloads = CONTRACTS[self.number]["access"] == "weights"
        while not stop.is_set() and self._ask(generator.randbytes(8) + secrets.token_bytes(8)):
            if downloads:
                self._download()
            under_way.add(self.number)

    def _ask(self, request_id: bytes) -> bool:
        """False when the server is gone."""
        request = self.caller.request(inputs(_rows(request_id), int.from_bytes(request_id, "little")), request_id)
        try:
            while (response := self._send(request)) is None:
                pass
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self.broken_off.append(request_id)
                return False
            if refused(error).reason == "BUDGET_SPENT":
                if request_id in self.answered:
                    self.violation("a retry was refused for want of budget")
                self.budget_refusals += 1
                time.sleep(0.01)
            else:
                self.violation(f"a client was told {refused(error)}")
            return True
        before = self.answered.setdefault(request_id, response)
        if before is not response:
            self.asked_again += 1
            if response.receipt.rows_charged or response.receipt.sequence != before.receipt.sequence:
                self.violation("a retry was charged, or has another place in the log")
            if _answer(response) != _answer(before):
                self.violation("a retry got another answer")
        elif response.receipt.rows_charged == 0:
            self.recovered += 1  # charged in the moment of the kill, answered now
        elif response.receipt.rows_charged != _rows(request_id):
            self.violation(f"{response.receipt.rows_charged} rows were charged for {_rows(request_id)}")
        return True

    def _send(self, request: pb.PredictRequest) -> pb.PredictResponse | None:
        """The answer; None when the key has to slow down, which it did."""
        try:
            return self.caller.send(request)
        except grpc.RpcError as error:
            told = refused(error)
            if told.reason != "SLOW_DOWN":
                raise
            time.sleep(told.retry_after or 0.0)
            return None

    def _download(self) -> None:
        try:
            *chunks, last = self.caller.download()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                self.violation(f"a download ended with {refused(error)}")
            return
        self.downloads += 1
        if hashlib.sha256(b"".join(chunk.data for chunk in chunks)).digest() != last.sha256:
            self.violation("a download is not what its hash says")


def _answer(response: pb.PredictResponse) -> bytes:
    """All of a response but its receipt."""
    copy = pb.PredictResponse()
    copy.CopyFrom(response)
    copy.ClearField("receipt")
    return copy.SerializeToString(deterministic=True)


def _audit(clients: Sequence[_Client], ledger: SqliteLedger) -> list[str]:
    """What the dead server's ledger and the clients disagree on."""
    entries: dict[str, list[Entry]] = defaultdict(list)
    after = 0
    while page := list(ledger.entries(after)):
        after = page[-1].sequence
        for entry in page:
            entries[entry.key_id].append(entry)
    return [
        f"key {client.number}: {sentence}"
        for client in clients
        for sentence in _audit_key(client, entries[client.caller.key_id], ledger)
    ]


def _verify(clients: Sequence[_Client], ledger: Path) -> list[str]:
    """What is wrong with the chain of the log: each receipt's head must be the link of its line."""
    receipts = [response.receipt for client in clients for response in client.answered.values()]
    if not receipts:
        return []
    heads = [(receipt.sequence, receipt.head) for receipt in receipts]
    return list(verify(ledger, audit_key_path(ledger), heads).findings)


def _audit_key(client: _Client, entries: list[Entry], ledger: SqliteLedger) -> list[str]:
    key, usage = ledger.key(client.caller.key_id), ledger.usage(client.caller.key_id)
    if key is None:
        return ["the key is gone"]
    found = []
    charged: dict[bytes, tuple[Entry, int]] = {}  # with what the key had spent by then
    spent = 0
    for entry in entries:
        spent += entry.rows
        if entry.request_id in charged:
            found.append("a request id is charged twice")
        charged[entry.request_id] = entry, spent
    for request_id, response in client.answered.items():
        receipt = response.receipt
        entry, total = charged.get(request_id, (None, 0))
        if entry is None:
            found.append("an acknowledged answer is not in the ledger")
        elif (entry.rows, entry.sequence) != (_rows(request_id), receipt.sequence):
            found.append("an acknowledged answer is in the ledger with other rows, or in another place")
        elif receipt.rows_charged and receipt.spent != total:
            found.append(f"a receipt says {receipt.spent} rows spent, and the log adds up to {total}")
    answered = sum(map(_rows, client.answered))
    if not answered <= spent == usage.spent:
        found.append(f"{answered} rows answered, {spent} in the log, {usage.spent} in the key's row")
    if key.contract.budget is not None and spent > key.contract.budget:
        found.append(f"{spent} rows were charged and the budget is {key.contract.budget}")
    downloads = sum(entry.rpc == "Download" for entry in entries)
    if not client.downloads <= downloads == usage.downloads:
        found.append(f"{client.downloads} downloads told, {downloads} in the log, {usage.downloads} in the key's row")
    return found
