"""The server killed with SIGKILL under load, fifty times: answered <= charged <= budget, and nothing that was
acknowledged is lost."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field

import grpc
import pytest

from oracle_server.ledger import SqliteLedger
from oracle_server.operator import ledger_path
from protos.mirage.v1 import oracle_pb2 as pb
from tests.fixtures import Start
from tests.serving import Caller, inputs, refused

ROUNDS = 50
NOISE = (("gaussian_noise", (("sigma", 0.2),)),)


@dataclass
class Load:
    """One client: it asks without pause, retries what broke off once the server is back, and writes down what it was
    told."""

    caller: Caller
    seed: int
    answered: dict[bytes, pb.PredictResponse] = field(default_factory=dict)
    broken_off: list[pb.PredictRequest] = field(default_factory=list)
    recovered: int = 0  # broken off although it had been charged
    asked_again: int = 0
    refusals: int = 0

    def run(self, stop: threading.Event) -> None:
        generator = random.Random(f"{self.seed} {self.caller.server.address}")
        retries, self.broken_off = self.broken_off, []
        known = list(self.answered)
        again = [self._request(request_id) for request_id in generator.sample(known, min(3, len(known)))]
        for request in (*retries, *again):
            self._ask(request)
        while not stop.is_set():
            self._ask(self._request(generator.randbytes(8) + secrets.token_bytes(8)))

    def _request(self, request_id: bytes) -> pb.PredictRequest:
        """The request of an id is a function of the id."""
        rows = 1 + request_id[0] % 20
        return self.caller.request(inputs(rows, int.from_bytes(request_id, "little")), request_id)

    def _ask(self, request: pb.PredictRequest) -> None:
        try:
            response = self.caller.send(request)
        except grpc.RpcError as error:
            if refused(error).reason == "BUDGET_SPENT":
                self.refusals += 1
                time.sleep(0.01)
            elif error.code() is grpc.StatusCode.UNAVAILABLE:
                self.broken_off.append(request)
            else:
                raise
            return
        before = self.answered.setdefault(request.request_id, response)
        if before is not response:
            self.asked_again += 1
            assert response.receipt.rows_charged == 0
            assert response.receipt.sequence == before.receipt.sequence
            assert response.WhichOneof("answer") == before.WhichOneof("answer")
            assert (response.scores, response.top_k, response.labels) == (before.scores, before.top_k, before.labels)
        elif response.receipt.rows_charged == 0:
            self.recovered += 1  # charged in the moment of the kill, answered now
        else:
            assert response.receipt.rows_charged == request.inputs.shape[0]


def audit(loads: list[Load], ledger: SqliteLedger) -> None:
    """The laws, with the dead server's ledger on one side and what the clients were told on the other."""
    charged: dict[str, dict[bytes, int]] = defaultdict(dict)
    after = 0
    while entries := list(ledger.entries(after)):
        after = entries[-1].sequence
        for entry in entries:
            assert entry.request_id not in charged[entry.key_id]
            charged[entry.key_id][entry.request_id] = entry.rows
    for load in loads:
        key = ledger.key(load.caller.key_id)
        assert key is not None
        mine = charged[key.key_id]
        rows = {request_id: 1 + request_id[0] % 20 for request_id in load.answered}
        assert rows.items() <= mine.items(), "an acknowledged answer is not in the ledger, or with other rows"
        spent = ledger.usage(key.key_id).spent
        assert sum(rows.values()) <= sum(mine.values()) == spent
        assert key.contract.budget is None or spent <= key.contract.budget


@pytest.mark.slow
def test_fifty_kills_under_load(start: Start) -> None:
    server = start()
    contracts = [
        {"access": "scores"},
        {"access": "scores", "defences": NOISE},
        {"access": "label", "budget": 2_000},
        {"access": "scores", "top_k": 2, "round_to": 0.01, "defences": NOISE, "budget": 6_000},
    ]
    loads = [Load(server.new_key(**contract), seed) for seed, contract in enumerate(contracts)]
    generator = random.Random(0)
    for _ in range(ROUNDS):
        stop = threading.Event()
        failures: list[BaseException] = []
        threads = [threading.Thread(target=_guarded, args=(load, stop, failures)) for load in loads]
        for thread in threads:
            thread.start()
        time.sleep(generator.uniform(0.0, 0.25))
        server.process.kill()
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures, failures[0]
        ledger = SqliteLedger(ledger_path(server.root))
        try:
            audit(loads, ledger)
        finally:
            ledger.close()
        server.kill()
        server.start()
    stop = threading.Event()
    stop.set()
    for load in loads:  # what is still open is asked once more, and then everybody's count is the ledger's
        load.run(stop)
        assert not load.broken_off
        rows = sum(1 + request_id[0] % 20 for request_id in load.answered)
        assert load.caller.usage().spent == rows
    assert sum(load.recovered for load in loads) > 0, "no kill came between a charge and its answer"
    assert loads[2].refusals > 0, "no budget was ever spent"


def _guarded(load: Load, stop: threading.Event, failures: list[BaseException]) -> None:
    try:
        load.run(stop)
    except BaseException as error:
        failures.append(error)
