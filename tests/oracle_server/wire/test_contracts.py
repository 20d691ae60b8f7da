"""Over the wire comes exactly what `threat_model.release` makes of the archive's own logits, for every access and in
any company."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from defenses.response import defend
from oracle_server.models.neural import NeuralModel
from oracle_server.models.repository import Repository
from oracle_server.threat_model import Access, Contract, Released, release
from protos import RANGE_MARKER
from protos.archive import load
from protos.codec import decode
from protos.mirage.v1 import oracle_pb2 as pb
from tests.serving import Caller, Server, inputs

CONTRACTS: dict[str, dict[str, Any]] = {
    "weights": {"access": "weights"},
    "full scores": {"access": "scores"},
    "top 1": {"access": "scores", "top_k": 1},
    "top 3": {"access": "scores", "top_k": 3},
    "top 5 of 5": {"access": "scores", "top_k": 5},
    "rounded to 0.001": {"access": "scores", "round_to": 0.001},
    "rounded to 0.1": {"access": "scores", "round_to": 0.1},
    "rounded to 1": {"access": "scores", "round_to": 1.0},
    "top 1 rounded to 0.05": {"access": "scores", "top_k": 1, "round_to": 0.05},
    "top 3 rounded to 0.01": {"access": "scores", "top_k": 3, "round_to": 0.01},
    "a defence, top 2": {"access": "scores", "top_k": 2, "defences": (("temperature", (("temperature", 3.0),)),)},
    "a defence, rounded": {"access": "scores", "round_to": 0.001, "defences": (("reverse_sigmoid", (("beta", 0.7),)),)},
    "label": {"access": "label"},
}


@pytest.fixture(scope="module")
def model(models: Path) -> NeuralModel:
    """The archive of `linear`, in this process, in batches of the server's size."""
    repository = Repository(models)
    card = repository.card("linear")
    return NeuralModel(repository.archive(card), card, torch.device("cpu"), 16)


def released(response: pb.PredictResponse) -> Released:
    """What an answer holds, and nothing else in it."""
    kind = response.WhichOneof("answer")
    known = {"answer", "receipt", kind}
    assert {field.name for field, _ in response.ListFields()} <= known
    if kind == "labels":
        return Released(labels=decode(response.labels))
    if kind == "scores":
        return Released(scores=decode(response.scores))
    return Released(indices=decode(response.top_k.indices), values=decode(response.top_k.values))


def expected(logits: np.ndarray, contract: dict[str, Any]) -> Released:
    value = Contract(**(contract | {"access": Access(contract["access"])}))
    return release(logits, value, defend(value.defences, (b"",)))


def assert_same(one: Released, other: Released) -> None:
    """Bit for bit, and nothing where the other has nothing."""
    for name in ("scores", "indices", "values", "labels"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
            assert mine.tobytes() == theirs.tobytes(), name


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_answer_is_what_the_contract_allows(server: Server, model: NeuralModel, name: str) -> None:
    rows = inputs(50)
    answer = released(server.new_key(**CONTRACTS[name]).predict(rows))
    assert_same(answer, expected(model.logits([rows])[0], CONTRACTS[name]))


def test_the_check_notices_another_contract(server: Server, model: NeuralModel) -> None:
    """No two of these contracts give the same answer, but for the three that give all scores."""
    logits = model.logits([inputs(50)])[0]
    full = {"weights", "full scores", "top 5 of 5"}
    for one in CONTRACTS:
        answer = released(server.new_key(**CONTRACTS[one]).predict(inputs(50)))
        for other in CONTRACTS:
            if one != other and not {one, other} <= full:
                with pytest.raises(AssertionError):
                    assert_same(answer, expected(logits, CONTRACTS[other]))


def test_full_scores_are_the_archives_softmax(server: Server, models: Path) -> None:
    """The same with torch alone: nothing of the server's in the comparison."""
    rows = inputs(50)
    module = load(models / "models" / "linear" / "1" / "model.pt2")
    softmax = torch.softmax(module(torch.from_numpy(rows)).double(), 1).numpy()
    scores = released(server.new_key().predict(rows)).scores
    np.testing.assert_allclose(scores, softmax, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CONTRACTS)
def test_describe_says_what_the_contract_is(server: Server, name: str) -> None:
    contract = CONTRACTS[name]
    caller = server.new_key(**contract, budget=7, rate=100.0)
    caller.predict(inputs(2))
    told = caller.describe()
    assert told.range_marker == RANGE_MARKER
    assert pb.Contract.Access.Name(told.contract.access) == f"ACCESS_{contract['access'].upper()}"
    assert (told.contract.top_k if told.contract.HasField("top_k") else None) == contract.get("top_k")
    assert (told.contract.round_to if told.contract.HasField("round_to") else None) == contract.get("round_to")
    assert [defence.name for defence in told.contract.defences] == [n for n, _ in contract.get("defences", ())]
    assert (told.contract.budget, told.contract.rate, told.budget_left, told.spent, told.max_rows) == (7, 100, 5, 2, 64)
    card = told.card
    assert (card.name, card.version, list(card.input_shape), card.classes) == ("linear", "1", [1, 8, 6], 5)


@pytest.mark.parametrize("label", ["linear", "other"])
def test_many_callers_get_what_each_gets_alone(server: Server, label: str) -> None:
    """Requests of many keys share forward passes. A deterministic model answers bit for bit as alone; any other within
    1e-5 in logits, which for the log of a score is twice that."""
    deterministic = label == "linear"
    shape = (1, 8, 6) if deterministic else (1, 64, 64)
    sizes = [1, 2, 3, 5, 8, 13, 16, 17, 31, 64, 1, 7]
    callers = [server.new_key(model=label) for _ in sizes]
    batches = [inputs(size, seed, shape) for seed, size in enumerate(sizes)]
    alone = [released(caller.predict(rows)).scores for caller, rows in zip(callers, batches, strict=True)]
    together = threading.Barrier(len(sizes))

    def ask(caller: Caller, rows: np.ndarray) -> list[np.ndarray | None]:
        together.wait()
        return [released(caller.predict(rows)).scores for _ in range(10)]

    with ThreadPoolExecutor(len(sizes)) as pool:
        answers = list(pool.map(ask, callers, batches))
    for one, many in zip(alone, answers, strict=True):
        assert one is not None
        for scores in many:
            assert scores is not None
            if deterministic:
                assert scores.tobytes() == one.tobytes()
            else:
                np.testing.assert_allclose(np.log(scores), np.log(one), rtol=0, atol=2e-5)


def test_a_row_that_fails_takes_nobody_along(server: Server) -> None:
    """A neighbour in the same forward pass is answered as ever."""
    good, bad = server.new_key(model="fails"), server.new_key(model="fails")
    rows, poison = inputs(8), np.zeros((4, 1, 8, 6), dtype=np.float32)
    alone = released(good.predict(rows)).scores
    assert alone is not None
    calls = []
    for _ in range(20):
        calls.append(bad.stub.Predict.future(bad.request(poison), metadata=bad.metadata))
        scores = released(good.predict(rows)).scores
        np.testing.assert_allclose(scores, alone, rtol=0, atol=1e-6)
    assert all(call.exception() is not None for call in calls)
