"""The metrics of a real server, as a scraper sees them: they count what was asked, and tell of no key and no answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import torch

from protos.mirage.v1 import admin_pb2
from tests.fixtures import Start
from tests.hosted import softmax_regression
from tests.metered import METERED, change, figures, foreign, scrape, until
from tests.serving import Caller, Server, inputs

ORACLE, ADMIN = "/mirage.v1.Oracle", "/mirage.v1.Admin"
PREDICT, LIVE = f"{ORACLE}/Predict", "/inference.GRPCInferenceService/ServerLive"
MODELS = "linear/1", "fails/1", "slow/1"


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(grpc.RpcError):
        call()


# They count


def test_what_was_asked_is_what_is_counted(metered: Server) -> None:
    """Calls of every kind, most of them under a key that gets labels."""
    label, weights = metered.new_key("label"), metered.new_key("weights")
    spent, slow = metered.new_key("label", budget=2), metered.new_key("label", rate=1e-3)
    revoked, fails = metered.new_key("label"), metered.new_key("label", model="fails")
    stranger = Caller(metered, label.key[:-4] + "0000", label.key_id)

    def calls() -> None:
        label.describe()
        label.usage()
        for rows in (1, 2, 16, 40):  # the last in three passes
            label.predict(inputs(rows))
        again = label.request(inputs(3), bytes(16))
        for _ in range(3):  # the second and the third are retries
            label.send(again)
        refused(lambda: label.send(label.request(inputs(3) / 2, bytes(16))))
        refused(lambda: label.predict(inputs(2) + 1))
        refused(lambda: label.predict(inputs(65)))
        refused(lambda: label.raw(PREDICT, b"\xff"))
        refused(lambda: label.send(label.request(inputs(1), model="other")))
        refused(lambda: list(label.download()))
        list(weights.download())
        refused(stranger.describe)
        refused(lambda: metered.channel.unary_unary(PREDICT)(b"", timeout=30))
        metered.admin.RevokeKey(admin_pb2.RevokeKeyRequest(key_id=revoked.key_id))
        refused(revoked.usage)
        spent.predict(inputs(2))
        refused(lambda: spent.predict(inputs(1)))
        slow.predict(inputs(2))
        refused(lambda: slow.predict(inputs(2)))
        refused(lambda: fails.predict(np.zeros((1, 1, 8, 6), np.float32)))  # charged: it was asked
        refused(lambda: metered.admin.RevokeKey(admin_pb2.RevokeKeyRequest(key_id="none")))
        metered.channel.unary_unary(LIVE)(b"", timeout=30)

    seen = change(metered, calls)
    requests = {
        (f"{ORACLE}/Describe", "OK"): 1,
        (f"{ORACLE}/Describe", "UNAUTHENTICATED"): 1,
        (f"{ORACLE}/Usage", "OK"): 1,
        (f"{ORACLE}/Usage", "UNAUTHENTICATED"): 1,
        (f"{ORACLE}/Download", "OK"): 1,
        (f"{ORACLE}/Download", "PERMISSION_DENIED"): 1,
        (f"{ADMIN}/RevokeKey", "OK"): 1,
        (f"{ADMIN}/RevokeKey", "NOT_FOUND"): 1,
        (LIVE, "OK"): 1,
        (PREDICT, "OK"): 9,
        (PREDICT, "ALREADY_EXISTS"): 1,
        (PREDICT, "INVALID_ARGUMENT"): 3,
        (PREDICT, "PERMISSION_DENIED"): 1,
        (PREDICT, "UNAUTHENTICATED"): 1,
        (PREDICT, "RESOURCE_EXHAUSTED"): 2,
        (PREDICT, "INTERNAL"): 1,
    }
    reasons = {
        (f"{ORACLE}/Describe", "BAD_KEY"): 1,
        (f"{ORACLE}/Usage", "KEY_REVOKED"): 1,
        (f"{ORACLE}/Download", "NOT_IN_CONTRACT"): 1,
        (f"{ADMIN}/RevokeKey", "NO_SUCH_KEY"): 1,
        (PREDICT, "MALFORMED"): 1,
        (PREDICT, "BAD_INPUT"): 1,
        (PREDICT, "TOO_MANY_ROWS"): 1,
        (PREDICT, "OTHER_MODEL"): 1,
        (PREDICT, "NO_KEY"): 1,
        (PREDICT, "ID_REUSED"): 1,
        (PREDICT, "BUDGET_SPENT"): 1,
        (PREDICT, "SLOW_DOWN"): 1,
        (PREDICT, "MODEL_FAILED"): 1,
    }
    assert {name[1:]: count for name, count in seen.items() if name[0] == "mirage_requests_total"} == {
        (f"rpc={rpc}", f"status={status}"): count for (rpc, status), count in requests.items()
    }
    assert {name[1:]: count for name, count in seen.items() if name[0] == "mirage_refusals_total"} == {
        (f"reason={reason}", f"rpc={rpc}"): count for (rpc, reason), count in reasons.items()
    }
    linear, failing = "model=linear/1", "model=fails/1"
    new, retried = 1 + 2 + 16 + 40 + 3 + 2 + 2, 3 + 3
    assert seen["mirage_charged_rows_total", linear] == new
    assert seen["mirage_charged_rows_total", failing] == 1
    assert seen["mirage_retries_total", linear] == 2
    assert seen["mirage_batch_rows_sum", linear] == new + retried
    assert seen["mirage_batch_rows_count", linear] == seen["mirage_forward_seconds_count", linear] == 9 + 2
    assert seen["mirage_batch_rows_bucket", "le=+Inf", linear] == 11
    assert seen["mirage_batch_rows_bucket", "le=4.0", linear] == 7  # rows 1, 2, 3, 3, 3, 2, 2
    assert seen["mirage_queue_seconds_count", linear] == 9
    assert seen["mirage_ledger_commit_seconds_count",] == 4 + 1 + 1 + 2 + 1  # each on its own, the download's too
    assert figures(metered)["mirage_waiting_rows", linear] == 0


def test_who_waits_and_who_leaves(metered: Server) -> None:
    caller = metered.new_key("label", model="slow")
    waiting, left = (
        ("mirage_waiting_rows", "model=slow/1"),
        ("mirage_requests_total", f"rpc={PREDICT}", "status=CANCELLED"),
    )
    before = figures(metered).get(left, 0)
    calls = [caller.stub.Predict.future(caller.request(inputs(64)), metadata=caller.metadata) for _ in range(3)]
    until(lambda: figures(metered)[waiting] >= 64)
    for call in calls:
        call.cancel()
    until(lambda: figures(metered).get(left) == before + 3)
    until(lambda: figures(metered)[waiting] == 0)


def test_scraped_under_load(metered: Server) -> None:
    """Every scrape is whole, and no count goes down."""
    caller = metered.new_key("label")
    before = last = figures(metered)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(caller.predict, inputs(2)) for _ in range(400)]
        while not all(call.done() for call in calls):
            now = figures(metered)
            assert all(now[name] >= last[name] for name in last if not name[0].startswith("mirage_waiting"))
            last = now
    assert all(call.result().receipt.rows_charged == 2 for call in calls)
    for name, count in (("charged_rows_total", 800), ("batch_rows_sum", 800), ("queue_seconds_count", 400)):
        name = f"mirage_{name}", "model=linear/1"
        assert figures(metered)[name] - before[name] == count


def test_answers_are_the_same_with_and_without(metered: Server, server: Server) -> None:
    def answers(of: Server) -> list[bytes]:
        found = []
        for access in ("label", "scores"):
            response = of.new_key(access).predict(inputs(20, 5))
            response.ClearField("receipt")
            found.append(response.SerializeToString(deterministic=True))
        return found

    assert answers(metered) == answers(server)


# They tell nothing


def of_one_label() -> tuple[np.ndarray, np.ndarray]:
    """Rows of which `linear` is sure, and others of the same label of which it is not."""
    some = inputs(4000)
    with torch.no_grad():
        scores = softmax_regression()(torch.from_numpy(some)).softmax(1).numpy()
    chosen = some[scores.argmax(1) == 1][np.argsort(-scores[scores.argmax(1) == 1].max(1))]
    return chosen[:5], chosen[-5:]


def test_no_key_label_or_score_is_in_a_scrape(metered: Server) -> None:
    caller = metered.new_key("label")
    labels = caller.predict(inputs(8)).labels
    assert labels
    text = scrape(metered)
    assert foreign(text, MODELS) == set()
    for secret in (caller.key, caller.key_id, caller.key.rpartition("_")[2]):
        assert secret not in text
        assert secret.encode().hex() not in text


def by_content(server: Server, access: str) -> bool:
    """Whether figures other than times depend on what was answered to as many rows."""
    caller = server.new_key(access)
    some = [*of_one_label(), inputs(5, 9)]
    changes = [change(server, lambda rows=rows: caller.predict(rows)) for rows in some]  # type: ignore[misc]
    assert changes[0]["mirage_charged_rows_total", "model=linear/1"] == 5
    return any(one != changes[0] for one in changes)


@pytest.mark.parametrize("access", ["label", "scores"])
def test_figures_do_not_depend_on_answers(metered: Server, access: str) -> None:
    assert not by_content(metered, access)


TELLING = """
import oracle_server.answering as answering
from oracle_server.prometheus import Prometheus
release, told, init = answering.release, [], Prometheus.__init__
def remember(self, *arguments):
    init(self, *arguments)
    told.append(self)
Prometheus.__init__ = remember
def telling(logits, *more):
    released = release(logits, *more)
    {telling}
    return released
answering.release = telling
"""


def test_metrics_that_tell_are_noticed(start: Start) -> None:
    """The control: one counts under a name that is none of ours, one counts what it should not."""
    named = start(options=METERED, before=TELLING.format(telling="told[0].calls('label %d' % logits[0].argmax())"))
    named.new_key("label").predict(inputs(1))
    assert len(foreign(scrape(named), MODELS)) == 1
    counted = start(
        options=METERED, before=TELLING.format(telling="told[0].retried('linear/1') if logits.max() > 2 else 0")
    )
    assert by_content(counted, "label")
