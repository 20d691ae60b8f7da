"""What an answer tells beside what the contract releases: nothing, in its bytes, its size, its headers, its status, the
server's log and its time.

One status depends on what a model computed, and says so: MODEL_FAILED, when a score is no number.
"""

from __future__ import annotations

import contextlib
import math
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch

from oracle_server.models.importing import Draft, host
from oracle_server.models.repository import Repository
from protos.mirage.v1 import oracle_pb2 as pb
from tests.fixtures import Start
from tests.hosted import SHAPE, softmax_regression
from tests.serving import Caller, Forker, Server, inputs

PREDICT = "/mirage.v1.Oracle/Predict"
CONTRACTS = {
    "label": ("label", {}),
    "scores": ("scores", {}),
    "rounded": ("scores", {"round_to": 0.01}),
    "top": ("scores", {"top_k": 2}),
    "rounded top": ("scores", {"top_k": 3, "round_to": 0.1}),
}


@dataclass(frozen=True)
class Seen:
    """All that a caller sees of one call, but the receipt: its numbers count calls."""

    code: str
    details: str
    headers: tuple[tuple[str, str | bytes], ...]
    trailers: tuple[tuple[str, str | bytes], ...]
    answer: bytes

    @property
    def form(self) -> tuple[object, ...]:
        """The same without the answer's content: what must not depend on any score."""
        return self.code, self.details, self.headers, self.trailers, len(self.answer)


def see(caller: Caller, data: bytes) -> Seen:
    answer = b""
    try:
        answer, call = caller.server.channel.unary_unary(PREDICT).with_call(data, metadata=caller.metadata, timeout=60)
    except grpc.RpcError as error:
        call = error
    response = pb.PredictResponse.FromString(answer)
    if answer:
        assert response.HasField("receipt")
        response.ClearField("receipt")
    pairs = (call.initial_metadata(), call.trailing_metadata())
    headers, trailers = (tuple((name, value) for name, value in some or ()) for some in pairs)
    return Seen(call.code().name, call.details(), headers, trailers, response.SerializeToString())


def scores(rows: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = softmax_regression()(torch.from_numpy(rows)).softmax(1).numpy()
    return found


def of_label(label: int) -> np.ndarray:
    """Rows of `linear` whose label is this one, the surest first."""
    some = inputs(4000)
    found = scores(some)
    chosen = found.argmax(1) == label
    order: np.ndarray = np.argsort(-found[chosen].max(1))
    return some[chosen][order]


@pytest.mark.parametrize("batch", [1, 7])
def test_the_same_labels_get_the_same_bytes(server: Server, batch: int) -> None:
    rows = of_label(1)
    sure, unsure = rows[:batch], rows[-batch:]
    assert np.abs(scores(sure) - scores(unsure)).max() > 0.2
    caller = server.new_key("label")
    first, second = (see(caller, caller.request(some).SerializeToString()) for some in (sure, unsure))
    assert first.answer
    assert first == second
    knows = server.new_key("scores")  # the control: the same two under another contract
    first, second = (see(knows, knows.request(some).SerializeToString()) for some in (sure, unsure))
    assert first.form == second.form
    assert first != second


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_size_depends_on_the_shape_alone(server: Server, name: str) -> None:
    access, contract = CONTRACTS[name]
    caller = server.new_key(access, **contract)
    asked = [inputs(3, seed) for seed in range(20)] + [
        np.zeros((3, *SHAPE), np.float32),
        np.ones((3, *SHAPE), np.float32),
    ]
    seen = [see(caller, caller.request(rows).SerializeToString()) for rows in asked]
    assert len({one.form for one in seen}) == 1
    assert len({one.answer for one in seen}) > 10
    assert see(caller, caller.request(inputs(4)).SerializeToString()).form != seen[0].form


# Two servers that differ in nothing but how sure their model is.


@pytest.fixture
def pair(forker: Forker, start: Start) -> Iterator[Callable[..., tuple[Server, Server]]]:
    with contextlib.ExitStack() as stack:

        def pair(before: str = "") -> tuple[Server, Server]:
            plain = start("linear", before=before)
            root = Path(str(plain.root) + "b")
            model = softmax_regression()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(0.5)  # the labels stay, the scores do not
            host(model, Repository(root), Draft("linear", "1", SHAPE, deterministic=True))
            return plain, stack.enter_context(contextlib.closing(Server(forker, root, before=before)))

        yield pair


def session(server: Server) -> tuple[list[Seen], str]:
    """Calls of every kind, and what the server said meanwhile without its clock, its port, and whose model it is."""
    rows, seen = inputs(5, 3), []
    for number, (access, contract) in enumerate(CONTRACTS.values()):
        caller = server.new_key(access, budget=12, **contract)
        request = caller.request(rows, bytes([number]) * 16)
        changed = caller.request(rows / 2, bytes([number]) * 16)
        for data in (
            request,
            request,
            changed,
            caller.request(rows / 3),
            caller.request(rows / 4),
            caller.request(rows + 1),
        ):
            seen.append(see(caller, data.SerializeToString()))
        seen.append(see(caller, b"\xff"))
    return seen, re.sub(r"\d{4}-\d\d-\d\d [\d:,]+|127\.0\.0\.1:\d+", "", server.process.log)


def test_two_servers_are_told_apart_by_their_answers_alone(pair: Callable[..., tuple[Server, Server]]) -> None:
    (first, log), (second, other) = map(session, pair())
    assert [one.form for one in first] == [one.form for one in second]
    assert log == other
    assert {one.code for one in first} == {"OK", "ALREADY_EXISTS", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"}
    assert first[:7] == second[:7]  # under `label` not even the answers differ
    assert first[7:] != second[7:]


TELLING = {
    "log": "print(released, flush=True)",
    "size": "object.__setattr__(released, 'scores', None if released.scores is None else"
    " released.scores[:, : 3 + (released.scores.max() > 0.6)])",
}


@pytest.mark.parametrize("where", TELLING)
def test_a_server_that_tells_is_noticed(pair: Callable[..., tuple[Server, Server]], where: str) -> None:
    source = f"""
import oracle_server.answering as service
release = service.release
def telling(*arguments):
    released = release(*arguments)
    {TELLING[where]}
    return released
service.release = telling
"""
    (first, log), (second, other) = map(session, pair(source))
    assert (log != other) == (where == "log")
    assert ([one.form for one in first] != [one.form for one in second]) == (where == "size")


# Time. Calls for two classes alternate, in an order that is drawn anew for each pair. If the class makes no difference,
# either call of a pair is as likely to be the slower, whatever else the machine does: the number of pairs in which the
# second class was slower is binomial.

PAIRS = 300
UNLIKELY = 1e-4  # twice in a row, on samples of their own


def slower(caller: Caller, seed: int) -> int:
    """In how many of `PAIRS` pairs the call for class 1 took longer than the one for class 0."""
    draw, rows = random.Random(seed), {label: of_label(label)[:40] for label in (0, 1)}
    count = 0
    for number in range(PAIRS):
        took = {}
        for label in draw.sample((0, 1), 2):
            data = caller.request(rows[label][[number % 40]]).SerializeToString()
            began = time.perf_counter()
            caller.raw(PREDICT, data)
            took[label] = time.perf_counter() - began
        count += took[1] > took[0]
    return count


def chance(count: int) -> float:
    """How likely so uneven a count is, or a more uneven one, if both classes take the same time."""
    tail = sum(math.comb(PAIRS, n) for n in range(max(count, PAIRS - count), PAIRS + 1))
    return min(1.0, 2 * tail / 2**PAIRS)


def tells_by_time(caller: Caller) -> bool:
    return all(chance(slower(caller, seed)) < UNLIKELY for seed in (1, 2))


def test_the_chances() -> None:
    assert chance(PAIRS // 2) == 1
    assert chance(100) == chance(200) < UNLIKELY < chance(170)


@pytest.mark.parametrize("access", ["label", "scores"])
def test_time_does_not_depend_on_the_class(server: Server, access: str) -> None:
    assert not tells_by_time(server.new_key(access))


def test_a_class_that_takes_longer_is_noticed(start: Start) -> None:
    """Two thousandths of a second, in a call of about as much."""
    source = """
import time
import oracle_server.answering as service
release = service.release
def lingering(logits, *more):
    if logits.argmax() == 1:
        time.sleep(0.002)
    return release(logits, *more)
service.release = lingering
"""
    assert tells_by_time(start("linear", before=source).new_key("label"))
