"""Ways around the budget: retries, ids, calls cut off before the receipt, copies of the ledger. None pays."""

from __future__ import annotations

import random
import secrets
import shutil
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import grpc
import numpy as np
import pytest

from oracle_server.ledger import SqliteLedger
from oracle_server.operator import ledger_path
from protos.codec import encode
from protos.mirage.v1 import oracle_pb2 as pb
from protos.mirage.v1.oracle_pb2_grpc import OracleStub
from tests.fixtures import Start
from tests.oracle_server.wire.test_start import assert_does_not_start
from tests.raw_http2 import call, header_block, message
from tests.serving import Caller, Forker, Server, assert_refused, inputs, refused

IDS, ROWS, TIMES, BUDGET = 24, 5, 4, 62


def answer(response: pb.PredictResponse) -> bytes:
    """What was released, without the receipt."""
    kept = pb.PredictResponse()
    kept.CopyFrom(response)
    kept.ClearField("receipt")
    return kept.SerializeToString()


def check_one_budget_over_retries(server: Server) -> None:
    """Many ids, more than the budget covers, each sent four times in mixed order over three connections: the rows
    answered are those of twelve ids, each charged once and answered alike each time.
    """
    caller = server.new_key(budget=BUDGET, defences=(("gaussian_noise", (("sigma", 0.2),)),))
    requests = [caller.request(inputs(ROWS, seed)) for seed in range(IDS)] * TIMES
    random.Random(0).shuffle(requests)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(24))
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        stubs = [OracleStub(stack.enter_context(grpc.insecure_channel(server.address, options))) for _ in range(3)]

        def send(number: int, request: pb.PredictRequest) -> pb.PredictResponse | None:
            try:
                return stubs[number % 3].Predict(request, metadata=caller.metadata, timeout=60)
            except grpc.RpcError as error:
                if refused(error).reason != "BUDGET_SPENT":
                    raise
                return None

        responses = list(pool.map(send, range(len(requests)), requests))
    answers: dict[bytes, list[pb.PredictResponse]] = {}
    for request, response in zip(requests, responses, strict=True):
        if response is not None:
            answers.setdefault(request.request_id, []).append(response)
    assert len(answers) * ROWS <= BUDGET, "more was answered than the budget covers"
    assert len(answers) == BUDGET // ROWS
    for again in answers.values():
        assert sorted(each.receipt.rows_charged for each in again) == [0] * (TIMES - 1) + [ROWS]
        assert len({answer(each) for each in again}) == 1
        assert len({each.receipt.sequence for each in again}) == 1
    usage = caller.usage()
    assert (usage.spent, usage.budget_left) == (60, 2)


def test_a_budget_is_not_stretched_by_retries(server: Server) -> None:
    check_one_budget_over_retries(server)


EVERYTHING_IS_A_RETRY = """
import oracle_server.charging as module
async def begin(self):
    self._retry = module.Charge(0, 0, 0)
module.Charging.begin = begin
"""


def test_a_server_that_takes_new_ids_for_retries_is_noticed(start: Start) -> None:
    with pytest.raises(AssertionError, match="more was answered than the budget covers"):
        check_one_budget_over_retries(start(before=EVERYTHING_IS_A_RETRY))


# Ids


def _tensor(rows: np.ndarray, **changed: object) -> pb.PredictRequest:
    request = pb.PredictRequest(inputs=encode(rows))
    if "shape" in changed:
        request.inputs.shape[:] = changed["shape"]  # type: ignore[index]
    return request


OTHERS: dict[str, tuple[Callable[[np.ndarray], pb.PredictRequest], str]] = {
    "the same bytes in another shape": (lambda rows: _tensor(rows, shape=(4, 1, 6, 8)), "BAD_INPUT"),
    "the same bytes as more rows": (lambda rows: _tensor(rows, shape=(8, 1, 4, 6)), "BAD_INPUT"),
    "the same values in another dtype": (lambda rows: _tensor(rows.astype(np.float64)), "BAD_INPUT"),
    "the same bytes for another model": (lambda rows: pb.PredictRequest(model="other", inputs=encode(rows)), "OTHER"),
    "the rows in another order": (lambda rows: _tensor(rows[::-1].copy()), "ID_REUSED"),
    "the same rows and one more": (lambda rows: _tensor(np.concatenate([rows, rows[:1]])), "ID_REUSED"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_paid_id_buys_nothing_else(server: Server, name: str) -> None:
    """Refused, whatever the refusal; no row is charged, and the retry that was paid for is still free."""
    caller, rows = server.new_key(budget=4), inputs(4)
    paid = caller.request(rows)
    first = caller.send(paid)
    make, reason = OTHERS[name]
    other = make(rows)
    other.request_id = paid.request_id
    before = server.books()
    with pytest.raises(grpc.RpcError) as caught:
        caller.send(other)
    told = refused(caught.value)
    assert told.reason is not None
    assert told.reason.startswith(reason)
    assert told.rows_charged == 0
    assert server.books() == before
    again = caller.send(paid)
    assert (answer(again), again.receipt.rows_charged, again.receipt.spent) == (answer(first), 0, 4)


def test_the_ids_of_another_key_are_fresh_ids(server: Server) -> None:
    """What a key is told of an id that another has used, with these bytes or others, is what it is told of any id."""
    rows, others = inputs(4), inputs(4, 1)
    victim = server.new_key()
    used = victim.request(rows).request_id
    victim.predict(rows, used)
    for sent in (rows, others):
        guess, fresh = server.new_key(budget=4), server.new_key(budget=4)
        told, wanted = guess.predict(sent, used), fresh.predict(sent, secrets.token_bytes(16))
        assert answer(told) == answer(wanted)
        for field in ("rows_charged", "spent", "budget_left"):
            assert getattr(told.receipt, field) == getattr(wanted.receipt, field)
        victims = server.new_key(budget=3)  # too little: refused, in the same words
        sentence = "4 rows asked and 3 of 3 left: ask for fewer, or for a key with a larger budget"
        for request_id in (used, secrets.token_bytes(16)):
            refusal = ("RESOURCE_EXHAUSTED", "BUDGET_SPENT", sentence)
            assert_refused(server, lambda v=victims, i=request_id, s=sent: v.predict(s, i), *refusal)
    assert victim.predict(rows, used).receipt.rows_charged == 0, "and the victim's retry is still its own"


# Cut off before the receipt


def cut_off(caller: Caller, request: pb.PredictRequest, moment: random.Random) -> bool:
    """Send a request, all of it or the first part, and break the connection at some moment; whether all was sent."""
    headers = header_block("/mirage.v1.Oracle/Predict", (b"authorization", f"Bearer {caller.key}".encode()))
    data = call(headers, message(request.SerializeToString()))
    whole = moment.random() < 0.7
    with socket.create_connection(("127.0.0.1", caller.server.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # broken, not closed
        connection.sendall(data if whole else data[: moment.randrange(len(data))])
        time.sleep(moment.choice((0.0, 0.002, 0.02, 0.1)))
    return whole


def test_calls_that_are_cut_off_are_charged_once_or_not_at_all(server: Server) -> None:
    """Four keys break every connection before the receipt. What was charged is theirs for a free retry, what was not is
    charged at the retry, and the budget, which just covers it, is spent at the end: no answer came for nothing.
    """
    callers = [server.new_key(budget=4 * 12) for _ in range(4)]
    requests = {caller: [caller.request(inputs(4, seed)) for seed in range(12)] for caller in callers}
    moments = {caller: random.Random(number) for number, caller in enumerate(callers)}

    def evade(caller: Caller) -> list[bool]:
        return [cut_off(caller, request, moments[caller]) for request in requests[caller]]

    with ThreadPoolExecutor(4) as pool:
        whole = [each for sent in pool.map(evade, callers) for each in sent]
    for caller in callers:
        caller.usage()
    charged = {caller: server.books().rows.get(caller.key_id, 0) for caller in callers}
    retried = 0
    for caller in callers:
        first = [caller.send(request) for request in requests[caller]]
        retried += sum(response.receipt.rows_charged == 0 for response in first)
        assert sum(response.receipt.rows_charged for response in first) <= 4 * 12 - charged[caller]
        again = [caller.send(request) for request in requests[caller]]
        assert [answer(response) for response in again] == [answer(response) for response in first]
        assert all(response.receipt.rows_charged == 0 for response in again)
        usage = caller.usage()
        assert (usage.spent, usage.budget_left) == (48, 0)
        with pytest.raises(grpc.RpcError) as caught:
            caller.predict(inputs(1))
        assert refused(caught.value).reason == "BUDGET_SPENT"
    assert 0 < retried <= sum(whole) < len(whole), "some were charged without a receipt, and some never arrived"


# Two servers on copies of one ledger


COPY = (
    "the ledger {root}/ledger.db is a copy, or was put back from one: two servers on copies would each grant the whole"
    " budget. If the original will never serve again, start once with serve --adopt-ledger"
)


def copied(source: Path, target: Path) -> Path:
    """A copy of a server's folder as it lies on the disk, without what a running server says of itself."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("admin.sock", "server.json", "server.log"))
    return target


@pytest.fixture
def spent(start: Start) -> Server:
    """A server with a key of which nothing is left."""
    server = start()
    caller = server.new_key(budget=4)
    assert caller.predict(inputs(4)).receipt.budget_left == 0
    return server


@pytest.mark.parametrize("running", [True, False])
def test_a_copy_of_the_ledger_serves_nobody(forker: Forker, spent: Server, running: bool, tmp_path: Path) -> None:
    """Whether it was made beside the running server or after its end; the original serves on, or again."""
    if not running:
        spent.kill()
    copy = copied(spent.root, tmp_path / "copy")
    assert_does_not_start(forker, copy, COPY)
    if not running:
        spent.start()
    assert spent.new_key().predict(inputs(1)).receipt.spent == 1


def test_a_copy_from_before_the_spending_serves_nobody(forker: Forker, start: Start, tmp_path: Path) -> None:
    """The copy that would pay: taken while all of the budget was left."""
    server = start()
    caller = server.new_key(budget=4)
    copy = copied(server.root, tmp_path / "copy")
    assert caller.predict(inputs(4)).receipt.budget_left == 0
    assert_does_not_start(forker, copy, COPY)
    with closing(SqliteLedger(ledger_path(copy), adopt=True)) as adopted:
        assert adopted.usage(caller.key_id).spent == 0, "the control: once adopted, it has the whole budget"


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_the_ledger_under_another_name_is_held(
    forker: Forker, spent: Server, root: Path, link: str, tmp_path: Path
) -> None:
    ledger = root / "ledger.db"
    if link == "symbolic":
        ledger.symlink_to(spent.root / "ledger.db")
    else:
        ledger.hardlink_to(spent.root / "ledger.db")
    sentence = "the ledger beside {root}/ledger.db is in use by another server: stop that one, or choose another --root"
    assert_does_not_start(forker, root, sentence)
    assert spent.new_key().predict(inputs(1)).receipt.spent == 1


def test_a_folder_that_moves_is_the_same_ledger(forker: Forker, spent: Server) -> None:
    spent.kill()
    moved = spent.root.rename(spent.root.with_name(f"{spent.root.name}m"))
    with closing(Server(forker, moved)) as server:
        (spending,) = server.books().rows.values()
        assert spending == 4
