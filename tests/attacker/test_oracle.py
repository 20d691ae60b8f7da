"""The real client against the real server: counts, retries, refusals."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attacker.oracle import BudgetSpent, Oracle, OracleError
from tests.fixtures import Start
from tests.serving import Caller, Server, inputs

RUN = {"method": "a test"}
NOISE = (("gaussian_noise", (("sigma", 0.2),)),)
Open = Callable[..., Oracle]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Open]:
    """`connect(caller)`: the attacker's view of a key, with a run begun in this test's folder."""
    with contextlib.ExitStack() as stack:

        def connect(caller: Caller, folder: str = "run", **options: Any) -> Oracle:
            oracle = Oracle(caller.server.address, caller.key, **{"patience": 20.0, **options})
            stack.callback(oracle.close)
            oracle.begin(tmp_path / folder, RUN)
            return oracle

        yield connect


def batches(count: int, rows: int = 5) -> list[np.ndarray]:
    return [inputs(rows, seed) for seed in range(count)]


def shared(parts: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, None]]:
    return ((part, None) for part in parts)


def scores(answers: Iterable[Any]) -> list[bytes]:
    return [answer.scores.tobytes() for answer in answers]


# What it sees and counts


def test_what_it_knows_of_the_model(server: Server, connect: Open) -> None:
    oracle = connect(server.new_key(top_k=2, round_to=0.01, budget=9, rate=100.0, defences=NOISE))
    assert (oracle.model_id, oracle.input_shape, oracle.low, oracle.high) == ("linear/1", (1, 8, 6), 0, 1)
    assert (oracle.classes, oracle.max_rows, oracle.spent) == (5, 64, 0)
    assert oracle.contract.as_dict() == {
        "access": "scores",
        "top_k": 2,
        "round_to": 0.01,
        "features": (),
        "defences": NOISE,
        "budget": 9,
        "rate": 100.0,
        "expires": None,
    }


def test_answers_come_in_order_and_are_counted(server: Server, connect: Open) -> None:
    caller, alone = server.new_key(), server.new_key()
    oracle = connect(caller)
    answers = list(oracle.stream((part, n) for n, part in enumerate(batches(5))))
    direct = [alone.predict(part).scores.data for part in batches(5)]
    assert scores(answers) == direct
    wide = oracle.query(inputs(150), np.repeat([0, 3, 4], 50))  # three requests
    assert wide.scores is not None
    assert wide.scores.shape == (150, 5)
    oracle.query(inputs(7))
    assert oracle.spent == oracle.usage().spent == caller.usage().spent == 25 + 150 + 7
    assert (oracle.shared, dict(oracle.spent_on)) == (7, {0: 55, 1: 5, 2: 5, 3: 55, 4: 55})


def test_what_is_withheld_is_nan(server: Server, connect: Open) -> None:
    full = connect(server.new_key(), "full").query(inputs(20)).scores
    top = connect(server.new_key(top_k=2), "top").query(inputs(20)).scores
    assert full is not None
    assert top is not None
    largest = full >= np.sort(full)[:, -2:-1]
    np.testing.assert_array_equal(top, np.where(largest, full, np.nan))
    labels = connect(server.new_key("label"), "label").query(inputs(20))
    assert labels.scores is None
    np.testing.assert_array_equal(labels.labels, full.argmax(1))


def test_leaving_a_stream_early_loses_no_count(server: Server, connect: Open) -> None:
    """What was sent is charged, so it is received and counted."""
    caller = server.new_key()
    oracle = connect(caller)
    stream = oracle.stream(shared(batches(10)))
    next(stream)
    stream.close()
    assert 5 <= oracle.spent == caller.usage().spent < 50


def test_nothing_is_asked_without_a_journal(server: Server) -> None:
    caller = server.new_key()
    oracle = Oracle(server.address, caller.key)
    with pytest.raises(OracleError, match=r"no run was begun: call begin\(folder, run\) first"):
        oracle.query(inputs(1))
    oracle.close()
    assert caller.usage().spent == 0


def test_budget_spent(server: Server, connect: Open) -> None:
    """What was answered before has been yielded, and the counts agree."""
    caller = server.new_key(budget=23)
    oracle = connect(caller)
    stream = oracle.stream(shared(batches(10)))
    assert len([next(stream) for _ in range(4)]) == 4
    with pytest.raises(BudgetSpent, match=r"5 rows asked and 3 of 23 left"):
        next(stream)
    assert oracle.spent == caller.usage().spent == 20


def test_bad_input_is_the_servers_sentence(server: Server, connect: Open) -> None:
    caller = server.new_key()
    with pytest.raises(OracleError, match=r"^inputs lie in \[2, 2\]: values outside \[0, 1\] are not answered$"):
        connect(caller).query(np.full((1, 1, 8, 6), 2, dtype=np.float32))
    assert caller.usage().spent == 0


# What it waits for


def test_it_slows_down_when_asked_to(server: Server, connect: Open) -> None:
    caller = server.new_key(rate=100.0)
    oracle = connect(caller, patience=0.0)  # a server that asks for patience is there: its wish costs none
    began = time.monotonic()
    assert len(list(oracle.stream(shared(batches(4, 60))))) == 4
    assert time.monotonic() - began > 0.5
    assert oracle.spent == caller.usage().spent == 240


def test_it_waits_for_a_place_in_the_queue(start: Start, connect: Open) -> None:
    server = start("slow", options=("--batch", "1", "--max-waiting", "2"))
    caller = server.new_key(model="slow")
    oracle = connect(caller)
    assert len(list(oracle.stream(shared(batches(4, 2))))) == 4
    assert oracle.spent == caller.usage().spent == 8


@pytest.mark.parametrize("model", ["linear", "slow"])
@pytest.mark.parametrize("kills", [(5,), (0, 2, 3, 9)])
def test_server_killed_and_restarted(start: Start, connect: Open, model: str, kills: Sequence[int]) -> None:
    """Requests that broke off are sent again under their ids: the same noise, and each row charged once. Those to the
    slow model are all under way when the server is killed."""
    server = start(model)
    caller = server.new_key(model=model, defences=NOISE)
    oracle = connect(caller)

    def disturbed() -> Iterator[tuple[np.ndarray, None]]:
        for n, part in enumerate(batches(10)):
            if n in kills:
                port = server.port
                server.kill()
                server.start(port)
            yield part, None

    answers = scores(oracle.stream(disturbed()))
    assert oracle.spent == caller.usage().spent == 50
    oracle.close()
    again = connect(caller)
    assert scores(again.stream(shared(batches(10)))) == answers  # from the journal
    assert caller.usage().spent == 50


def test_server_that_stays_away(start: Start, connect: Open) -> None:
    """The run stops after its patience, once; it goes on from its journal when the server is back."""
    server = start()
    caller = server.new_key()
    oracle = connect(caller, patience=0.5)
    stream = oracle.stream(shared(batches(10)))
    first = [next(stream), next(stream)]
    port = server.port
    server.kill()
    began = time.monotonic()
    with pytest.raises(OracleError, match=rf"\(is oracle-server running at 127\.0\.0\.1:{port}\?\)$"):
        list(stream)
    assert 0.5 < time.monotonic() - began < 5
    oracle.close()
    server.start(port)
    resumed = connect(caller)
    answers = scores(resumed.stream(shared(batches(10))))
    assert answers[:2] == scores(first)
    assert resumed.spent == caller.usage().spent == 50


def test_no_server() -> None:
    began = time.monotonic()
    with pytest.raises(OracleError, match=r"\(is oracle-server running at 127\.0\.0\.1:1\?\)$"):
        Oracle("127.0.0.1:1", "mirage_x_y", patience=0.2)
    assert time.monotonic() - began < 5


def test_a_key_that_is_refused_is_no_reason_to_wait(server: Server) -> None:
    began = time.monotonic()
    with pytest.raises(OracleError, match=r"^the API key is not known here: check it, or ask the operator for one$"):
        Oracle(server.address, "mirage_x_y")
    assert time.monotonic() - began < 5


def test_a_whole_download_is_the_model(server: Server, connect: Open, models: Path) -> None:
    """Loaded here it gives the scores that the server gives; it is fetched once, and again only if it was damaged."""
    caller = server.new_key("weights")
    oracle = connect(caller)
    x = torch.from_numpy(inputs(20)).requires_grad_()
    logits = oracle.model()(x)
    logits.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    answer = oracle.query(inputs(20)).scores
    np.testing.assert_allclose(torch.softmax(logits.detach().double(), 1).numpy(), answer, rtol=0, atol=1e-6)
    oracle.model()
    assert caller.usage().downloads == 1
    (tmp := Path(oracle.folder / "model.pt2")).write_bytes(b"damaged")
    oracle.model()
    assert caller.usage().downloads == 2
    assert tmp.read_bytes() == (models / "models" / "linear" / "1" / "model.pt2").read_bytes()
