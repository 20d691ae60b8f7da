"""A retry is free and tells nothing new; a call that ended before its forward pass began costs nothing."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import grpc
import numpy as np
import pytest

from protos.codec import decode, encode
from protos.mirage.v1 import admin_pb2
from protos.mirage.v1 import oracle_pb2 as pb
from tests.fixtures import Start
from tests.serving import Caller, Server, assert_refused, inputs, refused

NOISE = (("gaussian_noise", (("sigma", 0.2),)),)
KEYED = (("keyed_noise", (("sigma", 0.05),)),)
REUSED = ("ALREADY_EXISTS", "ID_REUSED", "this request id was used for other bytes: take a new id")
ID = b"0123456789abcdef"


def answer(response: pb.PredictResponse) -> bytes:
    """All that was released, as bytes: the response without its receipt."""
    kept = pb.PredictResponse()
    kept.CopyFrom(response)
    kept.ClearField("receipt")
    return kept.SerializeToString()


CONTRACTS = {
    "scores": {"access": "scores"},
    "top 2": {"access": "scores", "top_k": 2},
    "label": {"access": "label"},
    "noise": {"access": "scores", "defences": NOISE},
    "noise, top 1, rounded": {"access": "scores", "defences": NOISE, "top_k": 1, "round_to": 0.01},
    "noise, label": {"access": "label", "defences": NOISE},
    "keyed noise": {"access": "scores", "defences": KEYED},
}


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_same_again_is_the_same_answer_for_nothing(server: Server, name: str) -> None:
    caller = server.new_key(budget=20, **CONTRACTS[name])
    request = caller.request(inputs(20))
    first = caller.send(request)
    for _ in range(3):  # the budget is spent by now, which a retry does not mind
        again = caller.send(request)
        assert answer(again) == answer(first)
        assert (again.receipt.rows_charged, again.receipt.spent, again.receipt.budget_left) == (0, 20, 0)
        assert again.receipt.sequence == first.receipt.sequence
    assert caller.usage().spent == 20


def test_a_new_id_is_a_new_draw_and_a_new_charge(server: Server) -> None:
    """The negative control of the above: the same bytes under another id give other noise, and cost."""
    caller = server.new_key(defences=NOISE)
    first, second = caller.predict(inputs(4)), caller.predict(inputs(4))
    assert answer(first) != answer(second)
    assert second.receipt.spent == 8
    assert answer(server.new_key(defences=NOISE).predict(inputs(4), ID)) != answer(caller.predict(inputs(4), ID))


CHANGED = {
    "other values": lambda: encode(inputs(3, seed=1)),
    "fewer rows": lambda: encode(inputs(2)),
    "another sign of zero": lambda: encode(np.where(inputs(3) == inputs(3)[0, 0, 0, 0], np.float32(-0.0), inputs(3))),
}


@pytest.mark.parametrize("name", CHANGED)
def test_the_same_id_for_other_bytes(server: Server, caller: Caller, name: str) -> None:
    rows = inputs(3)
    rows[0, 0, 0, 0] = 0
    caller.predict(rows, ID)
    request = pb.PredictRequest(request_id=ID, inputs=CHANGED[name]())
    assert_refused(server, lambda: caller.send(request), *REUSED)
    assert caller.predict(rows, ID).receipt.rows_charged == 0


def test_two_keys_may_choose_the_same_id(server: Server) -> None:
    one, two = server.new_key(), server.new_key()
    assert one.predict(inputs(3), ID).receipt.rows_charged == 3
    assert two.predict(inputs(4), ID).receipt.rows_charged == 4


def test_the_same_id_from_many_threads_at_once(server: Server) -> None:
    caller = server.new_key(defences=NOISE)
    with ThreadPoolExecutor(16) as pool:
        for seed in range(10):
            request = caller.request(inputs(5, seed))
            answers = list(pool.map(lambda _, request=request: caller.send(request), range(16)))
            assert len({answer(each) for each in answers}) == 1
            assert sorted(each.receipt.rows_charged for each in answers) == [0] * 15 + [5]
    assert caller.usage().spent == 50


def test_different_bytes_under_one_id_at_once(server: Server) -> None:
    """One wins and is charged; whoever comes after with other bytes is refused, however close behind."""
    caller = server.new_key()
    with ThreadPoolExecutor(8) as pool:
        for seed in range(10):
            request_id = secrets.token_bytes(16)
            requests = [caller.request(inputs(5, 10 * seed + n), request_id) for n in range(8)]
            outcomes = list(pool.map(lambda request: _outcome(caller, request), requests))
            assert sorted(outcomes) == ["ID_REUSED"] * 7 + ["answered 5"]
    assert caller.usage().spent == 50


def test_one_budget_many_threads(server: Server) -> None:
    caller = server.new_key(budget=100)
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda seed: _outcome(caller, caller.request(inputs(3, seed))), range(48)))
    assert (outcomes.count("answered 3"), outcomes.count("BUDGET_SPENT")) == (33, 15)
    usage = caller.usage()
    assert (usage.spent, usage.budget_left) == (99, 1)


def test_no_retry_for_a_revoked_key(server: Server, caller: Caller) -> None:
    caller.predict(inputs(3), ID)
    server.admin.RevokeKey(admin_pb2.RevokeKeyRequest(key_id=caller.key_id))
    with pytest.raises(grpc.RpcError) as caught:
        caller.predict(inputs(3), ID)
    assert refused(caught.value).reason == "KEY_REVOKED"


@pytest.mark.parametrize("access", ["scores", "label"])
def test_a_retry_after_a_restart(start: Start, access: str) -> None:
    server = start()
    caller = server.new_key(access, defences=NOISE, budget=6)
    request = caller.request(inputs(6))
    first = caller.send(request)
    server.kill()
    server.start()
    again = caller.send(request)
    assert answer(again) == answer(first)
    assert (again.receipt.rows_charged, again.receipt.spent) == (0, 6)
    assert_refused(server, lambda: caller.predict(inputs(2), request.request_id), *REUSED)


# Calls that nobody waits for any more. The slow model takes a forward pass for each row; calls of one key keep order.


@pytest.fixture
def slow(start: Start) -> Server:
    return start("slow", options=("--batch", "1", "--max-waiting", "40"))


class Busy(NamedTuple):
    """A key whose eight rows the model's thread has begun, with a budget for four more and one."""

    caller: Caller
    answer: Future[pb.PredictResponse]


@pytest.fixture
def busy(slow: Server) -> Iterator[Busy]:
    caller = slow.new_key(model="slow", budget=13)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(caller.predict, inputs(8))
        while slow.books().logged < 8:
            time.sleep(0.002)
        yield Busy(caller, future)
        assert future.result().receipt.rows_charged == 8


def settled(caller: Caller) -> int:
    """Rows charged in all once the key's calls are through: one more row, behind them."""
    caller.predict(inputs(1))
    return caller.server.books().logged - 1


def test_a_deadline_that_passes_in_the_queue(slow: Server, busy: Busy) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        busy.caller.send(busy.caller.request(inputs(4)), timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not busy.answer.done(), "the model was too fast for this test"
    assert settled(busy.caller) == 8
    assert busy.caller.predict(inputs(4)).receipt.spent == 13  # what it had held of its budget was given back


def test_a_caller_that_leaves_the_queue(slow: Server, busy: Busy) -> None:
    call = busy.caller.stub.Predict.future(busy.caller.request(inputs(4), ID), metadata=busy.caller.metadata)
    time.sleep(0.05)
    assert call.cancel()
    assert not busy.answer.done(), "the model was too fast for this test"
    assert settled(busy.caller) == 8
    assert busy.caller.predict(inputs(4), ID).receipt.rows_charged == 4  # not known as a retry, since it never ran


def test_a_caller_that_leaves_in_mid_pass_has_paid_and_may_come_back(slow: Server) -> None:
    """The control: a call whose forward pass began is charged, and its answer is there for the asking."""
    caller = slow.new_key(model="slow", budget=5)
    call = caller.stub.Predict.future(caller.request(inputs(4), ID), metadata=caller.metadata)
    while slow.books().logged < 4:
        time.sleep(0.002)
    call.cancel()
    assert settled(caller) == 4
    again = caller.predict(inputs(4), ID)
    assert (again.receipt.rows_charged, again.receipt.spent) == (0, 5)
    assert decode(again.scores).shape == (4, 5)


def test_a_full_queue(slow: Server, busy: Busy) -> None:
    """Of forty rows that may wait one key has some, and another eighteen: twelve more would be beyond its share, which
    is twice what stays free; a third key may have what is left, but not twenty.
    """
    caller, third = slow.new_key(model="slow"), slow.new_key(model="slow")
    waiting = [caller.stub.Predict.future(caller.request(inputs(9)), metadata=caller.metadata) for _ in range(2)]
    time.sleep(0.05)
    for refusing, rows, whose in ((caller, 12, "this key's share of "), (third, 20, "")):
        with pytest.raises(grpc.RpcError) as caught:
            refusing.predict(inputs(rows))
        told = refused(caught.value)
        assert (told.code, told.reason, told.rows_charged) == ("UNAVAILABLE", "QUEUE_FULL", 0)
        assert (told.sentence, told.retry_after) == (f"{whose}the queue of this model is full: try again", 0.1)
    assert not busy.answer.done(), "the model was too fast for this test"
    assert [call.result().receipt.rows_charged for call in waiting] == [9, 9]
    assert settled(caller) == 8 + 18


def _outcome(caller: Caller, request: pb.PredictRequest) -> str:
    try:
        return f"answered {caller.send(request).receipt.rows_charged}"
    except grpc.RpcError as error:
        return str(refused(error).reason)
