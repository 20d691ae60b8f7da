"""An upstream that is not there, goes, comes back or is too slow; and what `serve --upstream` refuses to start with."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from protos.codec import decode
from tests.fixtures import Command, Start
from tests.serving import Caller, assert_refused, inputs, new_root, refused
from tests.upstreams import Served, V2Server, probabilities, upstream

ROWS = inputs(3)


@pytest.fixture
def elsewhere() -> Iterator[V2Server]:
    with upstream(m=Served()) as server:
        yield server


def failed(caller: Caller, request_id: bytes) -> int:
    """Rows charged for a call that fails with the model."""
    with pytest.raises(grpc.RpcError) as caught:
        caller.predict(ROWS, request_id)
    told = refused(caught.value)
    sentence = "the model failed on this input: tell the operator"
    assert (told.code, told.reason, told.sentence) == ("INTERNAL", "MODEL_FAILED", sentence)
    assert told.rows_charged is not None
    return told.rows_charged


def answered(caller: Caller, request_id: bytes) -> int:
    """Rows charged for a call under an id, asked until the upstream answers it."""
    deadline, response = time.monotonic() + 20, None
    while response is None and time.monotonic() < deadline:
        with contextlib.suppress(grpc.RpcError):
            response = caller.predict(ROWS, request_id)
    assert response is not None
    np.testing.assert_allclose(decode(response.scores), probabilities(ROWS), rtol=1e-5)
    return response.receipt.rows_charged


def test_it_goes_and_comes_back(start: Start, elsewhere: V2Server) -> None:
    """What fails meanwhile is charged as any pass that began; its retry is free, and answered afterwards."""
    server = start(options=("--upstream", f"mine={elsewhere.url('m')}"))
    caller, other = server.new_key(model="mine"), server.new_key()
    assert answered(caller, b"a" * 16) == 3
    elsewhere.stop()
    assert failed(caller, b"b" * 16) == 3
    assert failed(caller, b"b" * 16) == 0
    assert other.predict(ROWS).receipt.rows_charged == 3
    assert caller.describe().card.classes == 5
    elsewhere.start()
    assert answered(caller, b"b" * 16) == 0
    assert caller.usage().spent == server.books().rows[caller.key_id] == 6
    said = [line for line in server.process.log.splitlines() if "mine/1" in line]
    assert [("does not answer" in line, "answers again" in line) for line in said if "serving" not in line] == [
        (True, False), (False, True)
    ]  # fmt: skip
    assert server.kill() == -9


def test_one_that_hangs_holds_up_its_own_callers_alone(start: Start, elsewhere: V2Server) -> None:
    server = start(options=("--upstream", f"mine={elsewhere.url('m')}?timeout=1.5"))
    caller, other = server.new_key(model="mine"), server.new_key()
    asked, go = threading.Event(), threading.Event()

    def hang(rows: np.ndarray) -> np.ndarray:
        asked.set()
        go.wait(20)
        return probabilities(rows)

    elsewhere.models["m"].answer = hang
    request = caller.request(ROWS, b"a" * 16)
    call = caller.stub.Predict.future(request, metadata=caller.metadata, timeout=30)
    assert asked.wait(20)
    assert other.predict(ROWS).receipt.rows_charged == 3
    assert not call.done()
    assert refused(call.exception()).reason == "MODEL_FAILED"
    go.set()
    assert answered(caller, b"a" * 16) == 0


def test_one_that_is_not_there_takes_no_other_with_it(start: Start, elsewhere: V2Server) -> None:
    """Its keys are told, at no cost; once it is there, the server is started again."""
    said = ("--upstream", f"mine={elsewhere.url('m')}?timeout=0.3")
    server = start(options=said)
    caller = server.new_key(model="mine")
    sentence = "the model mine/1 cannot be served at present: tell the operator"
    elsewhere.stop()
    server.kill()
    server.start()
    for call in (caller.describe, lambda: caller.predict(ROWS)):
        assert_refused(server, call, "FAILED_PRECONDITION", "MODEL_UNAVAILABLE", sentence)
    assert server.new_key().predict(ROWS).receipt.rows_charged == 3
    assert re.search(r"not serving mine/1: grpc://127.0.0.1:\d+/m does not answer \(DEADLINE", server.process.log)
    elsewhere.start()
    server.kill()
    server.start()
    assert answered(caller, b"a" * 16) == 3


def test_a_card_alone_makes_the_server_ask_nobody(start: Start, elsewhere: V2Server, tmp_path: Path) -> None:
    """Where an upstream is, or what code it is, is said on the command line and nowhere else."""
    first = start(options=("--upstream", f"mine={elsewhere.url('m')}"))
    server = start()
    shutil.copytree(first.root / "models" / "mine", server.root / "models" / "mine")
    before = len(elsewhere.models["m"].asked)
    server.kill()
    server.start()
    caller = server.new_key(model="mine")
    sentence = "the model mine/1 cannot be served at present: tell the operator"
    assert_refused(server, lambda: caller.predict(ROWS), "FAILED_PRECONDITION", "MODEL_UNAVAILABLE", sentence)
    assert "mine/1 is a model that runs elsewhere: say where, --upstream mine/1=ADDRESS" in server.process.log
    assert len(elsewhere.models["m"].asked) == before


def test_another_oracle_server_is_one(start: Start, tmp_path: Path) -> None:
    """A process of its own, with a key of its own that lies in a file; killed, and started again."""
    behind = start()
    upper = behind.new_key()
    key = tmp_path / "key"
    key.write_text(upper.key + "\n")
    said = f"mine=grpc://{behind.address}/linear?key-file={key}&timeout=5"
    server = start("other", options=("--batch", "8", "--upstream", said))
    caller, rounded = server.new_key(model="mine"), server.new_key(model="mine", round_to=0.05)
    found = decode(rounded.predict(ROWS).scores)
    np.testing.assert_allclose(found, np.rint(probabilities(ROWS) / 0.05) * 0.05, atol=1e-9)
    assert upper.usage().spent > 3, "the probe and the full pass before the start"
    assert upper.key not in server.process.log
    port = behind.port
    behind.kill()
    assert failed(caller, b"b" * 16) == 3
    behind.start(port)
    assert answered(caller, b"b" * 16) == 0
    key.write_text("mirage_" + upper.key_id + "_" + "0" * 64)
    server.kill()
    server.start()
    assert "UNAUTHENTICATED: " in server.process.log
    label = behind.new_key("label")
    key.write_text(label.key)
    server.kill()
    server.start()
    assert "its output label is INT64: scores are needed" in server.process.log


@pytest.mark.parametrize(
    ("said", "status", "sentence"),
    [
        (["mine"], 1, "write NAME=grpc://HOST:PORT/MODEL, or NAME=python:package.module:function"),
        (["mine=python:json:dumps", "mine/1=python:json:loads"], 2, "--upstream mine/1 is there twice"),
    ],
)
def test_what_it_does_not_start_with(command: Command, root: Path, said: list[str], status: int, sentence: str) -> None:
    words = [word for one in said for word in ("--upstream", one)]
    found, printed = command("serve", "--root", root, "--port", 0, *words)
    assert (found, sentence in printed) == (status, True), printed
    assert "Traceback" not in printed


def test_the_name_of_a_model_that_is_hosted_here_starts_nothing(command: Command, models: Path) -> None:
    """Neither in its place, nor without it."""
    root = new_root(models, "linear", "other")
    try:
        words = ("--upstream", "linear=python:json:dumps?shape=3")
        status, printed = command("serve", "--root", root, "--port", 0, *words)
    finally:
        shutil.rmtree(root)
    assert status == 1
    assert printed.splitlines()[-1].startswith("Error: linear/1 is hosted here already: choose another name")
    assert "serving" not in printed


def test_an_upstream_alone_that_does_not_answer(command: Command, tmp_path: Path) -> None:
    words = ("--upstream", "mine=grpc://127.0.0.1:1/m?timeout=0.2")
    status, printed = command("serve", "--root", tmp_path / "new", "--port", 0, *words)
    assert status == 1
    assert "Error: grpc://127.0.0.1:1/m does not answer (DEADLINE_EXCEEDED: " in printed
    assert "Traceback" not in printed
