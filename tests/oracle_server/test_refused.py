"""Laws 1, 3 and 4: what is refused reaches no model, costs nothing, and is told in fixed words."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from oracle_server import service as service_module
from oracle_server.errors import DOMAIN, Reason, Refusal
from oracle_server.inputs import largest_batch
from oracle_server.models.card import Card
from oracle_server.threat_model import Access, Contract
from protos.codec import decode, encode
from protos.mirage.v1 import oracle_pb2 as pb
from protos.mirage.v1 import tensor_pb2
from tests.world import ARCHIVE, CARD, MAX_ROWS, World, inputs, request_id, world

CONTRACT = Contract(Access.SCORES, budget=12, rate=8.0)


def request(rows: np.ndarray | tensor_pb2.Tensor, name: bytes = request_id(1), model: str = "") -> pb.PredictRequest:
    tensor = encode(rows) if isinstance(rows, np.ndarray) else rows
    return pb.PredictRequest(model=model, request_id=name, inputs=tensor)


def row(*values: float) -> np.ndarray:
    return np.float32([values])


DTYPES = "float32, uint8 or float16 rows"
WANTED = f"send a batch of {DTYPES} of shape [3]"
BAD = [
    (request(inputs(1), b"x" * 15), Reason.BAD_INPUT, "the request id has 15 bytes: send 16 to 64"),
    (request(inputs(1), b"x" * 65), Reason.BAD_INPUT, "the request id has 65 bytes: send 16 to 64"),
    (request(inputs(1), b""), Reason.BAD_INPUT, "the request id has 0 bytes"),
    (pb.PredictRequest(request_id=request_id(1)), Reason.BAD_INPUT, f"inputs have dtype unknown: send {DTYPES}"),
    (request(inputs(1).astype(float)), Reason.BAD_INPUT, f"inputs have dtype float64: send {DTYPES} of shape [3]"),
    (request(inputs(1)[:, :2]), Reason.BAD_INPUT, f"inputs have shape [1, 2]: {WANTED}"),
    (request(inputs(1)[0]), Reason.BAD_INPUT, f"inputs have shape [3]: {WANTED}"),
    (request(inputs(1)[..., None]), Reason.BAD_INPUT, f"inputs have shape [1, 3, 1]: {WANTED}"),
    (request(np.array(1, dtype=np.float32)), Reason.BAD_INPUT, f"inputs have shape []: {WANTED}"),
    (request(inputs(1, 0)), Reason.BAD_INPUT, "the batch is empty: send at least one row"),
    (request(inputs(1, 6)), Reason.TOO_MANY_ROWS, "6 rows in one request: send at most 5"),
    (
        request(tensor_pb2.Tensor(dtype=1, shape=[2, 3], data=bytes(12))),
        Reason.BAD_INPUT,
        "tensor header asks for 24 bytes but 12 came",
    ),
    (request(row(0, float("nan"), 1)), Reason.BAD_INPUT, "inputs hold a value that is not finite"),
    (request(row(0, float("inf"), 1)), Reason.BAD_INPUT, "inputs hold a value that is not finite"),
    (request(row(0, float("-inf"), 1)), Reason.BAD_INPUT, "inputs hold a value that is not finite"),
    (
        request(row(0, 1.5, 1)),
        Reason.BAD_INPUT,
        "inputs lie in [0, 1.5]: values outside [0, 1] are not answered",
    ),
    (request(row(0, 1.5, 1).astype(np.float16)), Reason.BAD_INPUT, "inputs lie in [0, 1.5]: values outside [0, 1]"),
    (request(row(0, float("-nan"), 1).astype(np.float16)), Reason.BAD_INPUT, "inputs hold a value that is not finite"),
    (request(row(0, 0, 0).astype(np.int64)), Reason.BAD_INPUT, "inputs have dtype int64: send float32, uint8 or"),
    (
        request(tensor_pb2.Tensor(dtype=4, shape=[1, 3], data=bytes(4))),
        Reason.BAD_INPUT,
        "tensor header asks for 3 bytes but 4 came",
    ),
    (
        request(row(-0.25, 0.5, 1)),
        Reason.BAD_INPUT,
        "inputs lie in [-0.25, 1]: values outside [0, 1] are not answered",
    ),
    (request(inputs(1), model="other"), Reason.OTHER_MODEL, "this key is for the model m/1 and no other"),
    (request(inputs(1), model="m/2"), Reason.OTHER_MODEL, "this key is for the model m/1 and no other"),
]


def state(w: World) -> tuple[int, int, int, float]:
    """What a refused call must leave as it is: passes of the model, rows spent, lines of the log, the rate's bucket."""
    level, _ = w.answering._rates._buckets.get("k", (CONTRACT.rate, 0))
    return w.model.passes, w.ledger.usage("k").spent, len(list(w.ledger.entries())), level


async def check_refused(w: World, call: Callable[[], Awaitable[object]], reason: Reason, sentence: str) -> None:
    """The call is refused, in these words, and nothing has changed by it."""
    before = state(w)
    outcome = await call()
    await w.answering.drain()
    assert isinstance(outcome, Refusal), outcome
    assert outcome.reason is reason
    assert sentence in outcome.sentence
    assert outcome.charged == 0
    assert state(w) == before


async def check_bad_inputs(w: World) -> None:
    for bad, reason, sentence in BAD:
        await check_refused(w, lambda: w.send(bad), reason, sentence)  # noqa: B023
    budget = CONTRACT.budget or 0
    for n in range(budget):  # every row is still there
        w.answering._rates._buckets.clear()
        assert isinstance(await w.ask(request_id(100 + n), n), pb.PredictResponse)


def test_inputs_are_checked_before_anything_is_charged() -> None:
    async def scenario() -> None:
        async with world(CONTRACT) as w:
            await check_bad_inputs(w)

    asyncio.run(scenario())


def test_inputs_that_nobody_checks_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        service_module, "decode_inputs", lambda request, card, most: decode(request.inputs, request.data)
    )

    async def scenario() -> None:
        async with world(CONTRACT) as w:
            with pytest.raises(AssertionError):
                await check_bad_inputs(w)

    asyncio.run(scenario())


def test_the_borders_of_the_range_are_legal() -> None:
    async def scenario() -> None:
        async with world(Contract(Access.LABEL)) as w:
            assert isinstance(await w.send(request(row(0, 1, 0.5))), pb.PredictResponse)
            assert isinstance(await w.send(request(inputs(1, MAX_ROWS), b"y" * 64)), pb.PredictResponse)

    asyncio.run(scenario())


def test_budget_queue_rate_and_used_ids_cost_nothing() -> None:
    async def scenario() -> None:
        async with world(CONTRACT) as w:
            assert isinstance(await w.ask(request_id(1), 1, 5), pb.PredictResponse)
            w.scheduler._waiting = 1000
            await check_refused(
                w, lambda: w.ask(request_id(2), 1), Reason.QUEUE_FULL, "the queue of this model is full"
            )
            w.scheduler._waiting = 0
            w.answering._rates._buckets["k"] = (0.0, w.answering._rates._clock() + 1000)
            await check_refused(w, lambda: w.ask(request_id(2), 1), Reason.SLOW_DOWN, "this key may ask for 8 rows")
        async with world(Contract(Access.SCORES, budget=6)) as w:
            assert isinstance(await w.ask(request_id(1), 1, 5), pb.PredictResponse)
            words = "2 rows asked and 1 of 6 left: ask for fewer, or for a key with a larger budget"
            await check_refused(w, lambda: w.ask(request_id(2), 1, 2), Reason.BUDGET_SPENT, words)
            words = "this request id was used for other bytes: take a new id"
            await check_refused(w, lambda: w.ask(request_id(1), 2, 1), Reason.ID_REUSED, words)
            del w.hosted["m/1"]
            words = "the model m/1 of this key is not served here: tell the operator"
            await check_refused(w, lambda: w.ask(request_id(2), 1), Reason.NO_MODEL, words)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("contract", "kind"),
    [
        (Contract(Access.LABEL), "labels"),
        (Contract(Access.SCORES), "scores"),
        (Contract(Access.SCORES, top_k=2), "top_k"),
        (Contract(Access.WEIGHTS), "scores"),
    ],
)
def test_an_answer_holds_one_kind_and_a_receipt(contract: Contract, kind: str) -> None:
    async def scenario() -> None:
        async with world(contract) as w:
            response = await w.ask(request_id(1), 1, 2)
            assert isinstance(response, pb.PredictResponse)
            assert {field.name for field, _ in response.ListFields()} == {kind, "receipt"}
            assert (response.receipt.rows_charged, response.receipt.sequence) == (2, 1)

    asyncio.run(scenario())


def test_a_download_is_logged_before_its_first_chunk() -> None:
    async def scenario() -> None:
        async with world(Contract(Access.WEIGHTS, budget=0)) as w:
            chunks = []
            async for chunk in w.service.download(pb.DownloadRequest(), w.key):
                assert w.ledger.usage("k").downloads == 1
                chunks.append(chunk)
            assert b"".join(chunk.data for chunk in chunks) == ARCHIVE
            assert [chunk.sha256.hex() for chunk in chunks] == [""] * (len(chunks) - 1) + [CARD.archive_sha256]
            (entry,) = w.ledger.entries()
            assert (entry.rpc, entry.rows, entry.digest.hex()) == ("Download", 0, CARD.archive_sha256)

    asyncio.run(scenario())


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_travels_with_its_reason_and_figures(reason: Reason) -> None:
    refusal = Refusal(reason, "why", charged=3, retry_after=1.5, figures={"left": 2})
    status = status_pb2.Status.FromString(refusal.details())
    assert (status.code, status.message) == (reason.code.value[0], "why")
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain) == (reason.name, DOMAIN)
    assert dict(info.metadata) == {"rows_charged": "3", "left": "2"}
    assert retry.retry_delay.ToNanoseconds() == 1_500_000_000
    assert len(status_pb2.Status.FromString(Refusal(reason, "why").details()).details) == 1
    assert re.fullmatch(r"[A-Z_]+", reason.name)


@pytest.mark.parametrize("classes", [5, 10_000])
@pytest.mark.parametrize("message", [5_000, 100_000, 4 << 20])
def test_the_largest_batch_fits_into_a_message_both_ways(message: int, classes: int) -> None:
    card = Card("m", "1", (1, 112, 92), 0, 1, classes, 0, 0, "", "")
    rows = largest_batch(card, message, most=500)
    if rows > 1:
        asked = request(np.zeros((rows, 1, 112, 92), dtype=np.float32), b"x" * 64)
        scores = np.zeros((rows, classes))
        top = pb.TopK(indices=encode(scores.astype(np.int64)), values=encode(scores))
        assert max(asked.ByteSize(), pb.PredictResponse(top_k=top).ByteSize()) <= message
    assert 1 <= rows <= 500
