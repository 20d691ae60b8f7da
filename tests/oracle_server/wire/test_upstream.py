"""Keys and contracts in front of models that run elsewhere: V2 servers on loopback, a function in the process."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from attacker.oracle import Oracle
from protos.codec import decode
from tests.serving import Caller, Forker, Server, assert_refused, inputs, refused
from tests.upstreams import Served, V2Server, probabilities, upstream

FUNCTION = """
import threading

import numpy as np

seen = set()


def scores(rows):
    seen.add(threading.current_thread().name)
    z = rows.reshape(len(rows), -1)[:, :5] * 4
    if (rows[:, 0, 0, 0] == -1).any():
        raise SystemExit("the secret of a neighbour")
    assert len({name for name in seen if name != "MainThread"}) < 2
    rows[:] = 0
    return z
"""
FAILED = "the model failed on this input: tell the operator"
SECRET = "the secret of a neighbour"


def touchy(rows: np.ndarray) -> np.ndarray:
    """Probabilities, but for rows whose first pixel is 0 to 0.3: no answer of any use, one of four."""
    p, first = probabilities(rows), rows[:, 0, 0, 0]
    if (first == 0).any():
        raise ValueError(SECRET)
    if (first == np.float32(0.1)).any():
        return p[:, :4]
    p[first == np.float32(0.2)] = np.nan
    p[first == np.float32(0.3)] = 0.3
    return p


def marked(first: float, rows: int = 2) -> np.ndarray:
    made = inputs(rows)
    made[:, 0, 0, 0] = np.maximum(made[:, 0, 0, 0], np.float32(0.4))
    made[-1, 0, 0, 0] = first
    return made


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[V2Server]:
    """Serves `plain`, `touchy`, and `logits`, which takes four rows at once and no raw contents."""
    logs = Served(lambda rows: np.log(probabilities(rows)) + 3, outputs=(("z", "FP32", (-1, 5)),), typed=True, most=4)
    with upstream(plain=Served(), touchy=Served(touchy), logits=logs) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(forker: Forker, models: Path, elsewhere: V2Server) -> Iterator[Server]:
    """Beside `linear`, which it hosts itself: three models of `elsewhere`, and a function."""
    root = Path(tempfile.mkdtemp(prefix="mr"))
    shutil.copytree(models / "models" / "linear", root / "models" / "linear")
    (root / "mine.py").write_text(FUNCTION)
    said = (
        f"plain={elsewhere.url('plain')}",
        f"touchy={elsewhere.url('touchy')}",
        f"logits/7={elsewhere.url('logits')}?contents=typed&batch=4&outputs=logits",
        f"mine=python:{root}/mine.py:scores?shape=1,8,6&range=-1,1",
    )
    options = [word for one in said for word in ("--upstream", one)]
    with contextlib.closing(Server(forker, root, "--batch", "16", "--max-rows", "64", *options)) as server:
        yield server


def scores(caller: Caller, rows: np.ndarray) -> np.ndarray:
    return decode(caller.predict(rows).scores)


def assert_failed(caller: Caller, rows: np.ndarray) -> None:
    """The call fails with the fixed sentence, charged as any whose pass had begun, and tells nothing else."""
    before = caller.usage().spent
    with pytest.raises(grpc.RpcError) as caught:
        caller.predict(rows)
    told = refused(caught.value)
    assert (told.code, told.reason, told.sentence, told.rows_charged) == ("INTERNAL", "MODEL_FAILED", FAILED, len(rows))
    assert (told.figures, told.retry_after) == ({}, None)
    assert SECRET.encode() not in b"".join(str(pair).encode() for pair in caught.value.trailing_metadata())
    assert caller.usage().spent == before + len(rows)


# What leaves


def test_scores_are_the_upstreams_own(proxy: Server, elsewhere: V2Server) -> None:
    rows = inputs(20)
    for name in ("plain", "logits"):
        asked = elsewhere.models[name].asked
        before = len(asked)
        caller = proxy.new_key(model=name)
        response = caller.predict(rows)
        np.testing.assert_allclose(decode(response.scores), probabilities(rows), rtol=1e-5)
        assert (response.receipt.rows_charged, response.receipt.spent) == (20, 20)
        assert np.array_equal(np.concatenate(asked[before:]), rows)
        assert max(map(len, asked[before:])) == (4 if name == "logits" else 16)


def test_the_card_says_what_is_known_and_not_where(proxy: Server, elsewhere: V2Server) -> None:
    described = proxy.new_key(model="logits").describe()
    card = described.card
    assert (card.name, card.version, card.kind, list(card.input_shape)) == ("logits", "7", "neural", [1, 8, 6])
    assert (card.classes, card.archive_bytes, card.archive_sha256, card.deterministic) == (5, 0, b"", False)
    assert str(elsewhere.port).encode() not in described.SerializeToString()


def test_contracts_hold_in_front_of_it(proxy: Server) -> None:
    rows = inputs(30)
    p = probabilities(rows)
    label = proxy.new_key("label", "plain").predict(rows)
    assert decode(label.labels).tolist() == p.argmax(axis=1).tolist()
    assert {field.name for field, _ in label.ListFields()} == {"labels", "receipt"}
    top = proxy.new_key(model="plain", top_k=2, round_to=0.01).predict(rows).top_k
    order = np.argsort(-np.rint(p / 0.01), axis=1, kind="stable")[:, :2]
    assert np.array_equal(decode(top.indices), order)
    np.testing.assert_allclose(
        decode(top.values), np.take_along_axis(np.rint(p / 0.01) * 0.01, order, axis=1), atol=1e-12
    )


def test_defences_and_detections_work_in_front_of_it(proxy: Server) -> None:
    rows = inputs(10)
    noisy = (("keyed_noise", (("sigma", 0.05),)),)
    first, again = (scores(proxy.new_key(model="plain", defences=noisy), rows) for _ in range(2))
    assert np.array_equal(first, again)
    assert 1e-3 < abs(first - probabilities(rows)).max() < 0.5
    watched = (("fingerprints", "suspend", (("alike", 5.0), ("past", 50.0))),)
    caller = proxy.new_key("label", "plain", detections=watched)
    caller.predict(np.repeat(rows[:1], 10, 0))
    assert_refused(
        proxy,
        lambda: caller.predict(rows[:1]),
        "PERMISSION_DENIED",
        "KEY_SUSPENDED",
        "the API key is suspended: ask the operator to reinstate it",
    )


def test_the_attackers_client_is_served_as_by_any_other(proxy: Server, tmp_path: Path) -> None:
    caller = proxy.new_key(model="plain")
    with contextlib.closing(Oracle(proxy.address, caller.key)) as oracle:
        oracle.begin(tmp_path / "run", {"method": "a test"})
        answer = oracle.query(inputs(5))
        np.testing.assert_allclose(answer.scores, probabilities(inputs(5)), rtol=1e-5)
        assert oracle.spent == caller.usage().spent == 5


def test_a_function_of_the_operators_own(proxy: Server) -> None:
    """Of rows of its own, in one thread, whoever asks: it writes into what it is given, and fails when asked by two."""
    rows = 2 * inputs(8) - 1
    z = rows.reshape(8, -1)[:, :5] * 4.0
    expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    callers = [proxy.new_key(model="mine") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda caller: scores(caller, rows), callers):
            np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert_failed(callers[0], marked(-1.0))
    np.testing.assert_allclose(scores(callers[0], rows), expected, rtol=1e-5)


# What reaches it


def test_what_is_refused_never_reaches_it(proxy: Server, elsewhere: V2Server) -> None:
    asked = elsewhere.models["plain"].asked
    caller, spent = proxy.new_key(model="plain"), proxy.new_key(model="plain", budget=1)
    other = proxy.new_key()
    before = len(asked)
    for bad in (inputs(2) + 1, inputs(2, shape=(1, 8, 7)), inputs(65), inputs(2) * np.nan):
        with pytest.raises(grpc.RpcError) as caught:
            caller.predict(bad)
        assert refused(caught.value).code == "INVALID_ARGUMENT"
    for refuse in (lambda: spent.predict(inputs(2)), lambda: other.send(other.request(inputs(1), model="plain"))):
        with pytest.raises(grpc.RpcError):
            refuse()
    assert len(asked) == before
    caller.predict(inputs(2))
    assert len(asked) == before + 1, "the negative control"


def test_there_is_nothing_to_download(proxy: Server) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        proxy.new_key("weights", "plain")
    assert refused(caught.value).reason == "BAD_CONTRACT"
    with pytest.raises(grpc.RpcError) as caught:
        list(proxy.new_key(model="plain").download())
    assert refused(caught.value).reason == "NOT_IN_CONTRACT"


# When it fails


@pytest.mark.parametrize("first", [0.0, 0.1, 0.2, 0.3])
def test_an_answer_of_no_use_fails_its_own_caller(proxy: Server, first: float) -> None:
    """Refused with a text, of another shape, no number, no distribution."""
    caller = proxy.new_key(model="touchy")
    assert_failed(caller, marked(first))
    np.testing.assert_allclose(scores(caller, marked(0.5)), probabilities(marked(0.5)), rtol=1e-5)
