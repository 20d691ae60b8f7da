"""What is learnt from a V2 server's metadata and asked of it, with a real server of that protocol on loopback."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from oracle_server.certificates import new_authority
from oracle_server.models.proxied import Away
from oracle_server.upstream import Upstream
from oracle_server.upstream_v2 import V2Model
from tests.serving import inputs
from tests.tls import Files
from tests.upstreams import SHAPE, Served, V2Server, probabilities, upstream

ROWS = inputs(3)
INPUT = ("x", "FP32", (-1, *SHAPE))
OUTPUT = ("p", "FP32", (-1, 5))


@pytest.fixture
def server() -> Iterator[V2Server]:
    """Serves one model, `m`, that tests change."""
    with upstream(m=Served()) as server:
        yield server


def model(server: V2Server, facts: str = "", scheme: str = "grpc", host: str = "127.0.0.1") -> V2Model:
    return V2Model(Upstream.parse(f"mine={server.url('m', scheme, host)}?timeout=5{facts}"), 1 << 20)


def test_metadata_say_what_is_asked(server: V2Server) -> None:
    opened = model(server)
    assert (opened.shape, opened.batch) == (SHAPE, None)
    np.testing.assert_allclose(opened(ROWS), probabilities(ROWS), rtol=1e-6)
    (asked,) = server.models["m"].asked
    assert np.array_equal(asked, ROWS)


@pytest.mark.parametrize(
    ("datatype", "typed"), [("FP16", False), ("FP32", False), ("FP64", False), ("FP32", True), ("FP64", True)]
)
def test_every_precision_raw_and_typed(server: V2Server, datatype: str, typed: bool) -> None:
    served = server.models["m"]
    served.inputs, served.outputs = (("x", datatype, (-1, *SHAPE)),), (("p", datatype, (-1, 5)),)
    served.typed = typed
    answers = model(server, "&contents=typed" if typed else "")(ROWS)
    assert served.asked[0].dtype == answers.dtype == {"FP16": "f2", "FP32": "f4", "FP64": "f8"}[datatype]
    np.testing.assert_allclose(answers, probabilities(ROWS), atol=2e-3 if datatype == "FP16" else 1e-6)


@pytest.mark.parametrize(
    ("tensors", "facts", "shape", "batch"),
    [
        ((("x", "FP32", (1, *SHAPE)),), "", SHAPE, 1),
        ((("x", "FP32", (-1, -1, 8, 6)),), "&shape=1,8,6", SHAPE, None),
        ((("x", "", (-1, 48)),), "", (48,), None),
        ((("x", "FP32", (-1,)),), "&shape=1,8,6", SHAPE, None),
        ((("a", "FP64", (-1, 2)), INPUT), "&input=x", SHAPE, None),
        ((), "&input=any&shape=1,8,6", SHAPE, None),
    ],
)
def test_what_a_row_is(
    server: V2Server, tensors: tuple[object, ...], facts: str, shape: tuple[int, ...], batch: int | None
) -> None:
    server.models["m"].inputs = tensors  # type: ignore[assignment]
    opened = model(server, facts)
    assert (opened.shape, opened.batch) == (shape, batch)
    np.testing.assert_allclose(opened(ROWS.reshape(3, *shape)), probabilities(ROWS), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "facts", "sentence"),
    [
        ({"inputs": (("x", "FP32", (-1, 1, -1, 6)),)}, "", "does not say what a row is ([-1, 1, -1, 6])"),
        ({"inputs": (("x", "FP32", (-1,)),)}, "", "does not say what a row is ([-1]): add ?shape=1,112,92"),
        ({"inputs": (("x", "FP32", (4, 1, 8, 6)),)}, "", "takes exactly 4 rows at once"),
        ({"inputs": (("x", "UINT8", (-1, 1, 8, 6)),)}, "", "takes UINT8: only FP16, FP32, FP64 can be proxied"),
        ({"inputs": (("x", "FP16", (-1, 1, 8, 6)),)}, "&contents=typed", "takes FP16: only FP32, FP64"),
        ({"inputs": (INPUT, ("y", "FP32", (-1, 2)))}, "", "has the inputs x, y: choose one with ?input="),
        ({}, "&input=z", "has the inputs x: choose one with ?input=NAME"),
        ({"inputs": ()}, "", "does not say what its inputs are: add ?input=NAME"),
        ({"outputs": (OUTPUT, ("label", "INT64", (-1,)))}, "", "has the outputs p, label: choose one with ?output="),
    ],
)
def test_what_cannot_be_proxied(server: V2Server, change: dict[str, object], facts: str, sentence: str) -> None:
    for name, value in change.items():
        setattr(server.models["m"], name, value)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        model(server, facts)
    assert sentence in str(caught.value)
    assert not server.models["m"].asked


def test_one_of_several_outputs(server: V2Server) -> None:
    served = server.models["m"]
    served.outputs = (("label", "INT64", (-1, 5)), ("p", "FP64", (-1, 5)))
    np.testing.assert_array_equal(model(server, "&output=p")(ROWS), probabilities(ROWS))
    with pytest.raises(ValueError, match="its output label is INT64: scores are needed, FP16, FP32 or FP64"):
        model(server, "&output=label")(ROWS)
    served.outputs = ()
    opened = model(server)
    served.outputs = (("label", "INT64", (-1, 5)), ("p", "FP64", (-1, 5)))
    with pytest.raises(ValueError, match=r"it answered label, p: choose one with \?output=NAME"):
        opened(ROWS)


@pytest.mark.parametrize("said", [(3, 6), (3, 4), (-3, -5), (), (2**40, 2**40)])
def test_an_answer_that_is_not_as_long_as_it_says(server: V2Server, said: tuple[int, ...]) -> None:
    opened = model(server)
    server.models["m"].said = said
    with pytest.raises(ValueError, match="it answered 15 numbers for the shape"):
        opened(ROWS)
    server.models["m"].said = (3, 5)
    assert opened(ROWS).shape == (3, 5)


def test_the_key_goes_along_and_only_where_there_is_one(server: V2Server, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(" mirage_1_2 \nnot this\n")
    model(server, f"&key-file={file}")(ROWS)
    assert server.models["m"].keys == ["Bearer mirage_1_2"] * 2
    model(server)(ROWS)
    assert len(server.models["m"].keys) == 2
    for bad in ("", "\nsecond", "caf\u00e9", "a\x01"):
        file.write_text(bad)
        with pytest.raises(ValueError, match="holds no key in its first line"):
            model(server, f"&key-file={file}")


def test_errors_and_absence_are_told_apart(server: V2Server) -> None:
    opened = model(server, "&timeout=0.5")
    server.models["m"].most = 2
    with pytest.raises(ValueError, match="INVALID_ARGUMENT: at most 2 rows"):
        opened(ROWS)
    served = server.models.pop("m")
    with pytest.raises(Away, match="NOT_FOUND: no model m"):
        opened(ROWS)
    server.stop()
    with pytest.raises(Away, match=r"grpc://127.0.0.1:\d+/m does not answer \(UNAVAILABLE: "):
        opened(ROWS)
    with pytest.raises(Away, match=r"does not answer \(DEADLINE_EXCEEDED: "):
        model(server, "&timeout=0.3")
    server.models["m"] = served
    server.start()
    deadline, answers = time.monotonic() + 20, None
    while answers is None and time.monotonic() < deadline:  # the same channel finds its way back by itself
        with contextlib.suppress(Away):
            answers = opened(ROWS[:2])
    assert answers is not None


def test_who_is_too_slow_is_away(server: V2Server) -> None:
    opened, ends = model(server, "&timeout=0.3"), threading.Event()

    def slow(rows: np.ndarray) -> np.ndarray:
        ends.wait(30)
        return probabilities(rows)

    server.models["m"].answer = slow
    with pytest.raises(Away, match="DEADLINE_EXCEEDED"):
        opened(ROWS)
    ends.set()
    assert opened(ROWS).shape == (3, 5)


@pytest.mark.parametrize(
    "address", ["grpc://127.0.0.1:1", "grpc://127.0.0.1:1/", "grpc://127.0.0.1:1/m/1/2", "grpc:///m"]
)
def test_addresses_that_name_no_model(address: str) -> None:
    with pytest.raises(ValueError, match="write grpc://HOST:PORT/MODEL"):
        V2Model(Upstream.parse(f"mine={address}"), 1 << 20)


def test_rows_travel_in_plain_text_on_loopback_alone(server: V2Server) -> None:
    with pytest.raises(ValueError, match=r"is not on loopback and rows would travel in plain text: write grpcs://"):
        V2Model(Upstream.parse("mine=grpc://192.0.2.1:1/m"), 1 << 20)
    said = Upstream.parse("mine=grpc://192.0.2.1:1/m?timeout=0.05&plain-text-beyond-loopback=yes")
    with pytest.raises(Away):  # it was tried
        V2Model(said, 1 << 20)
    with pytest.raises(ValueError, match="has no use for ca="):
        model(server, "&ca=ca.pem")


def test_tls_to_who_shows_a_certificate_of_the_authority(tmp_path: Path) -> None:
    files = Files(tmp_path)
    pair = files.server.pem()
    with upstream(grpc.ssl_server_credentials([(pair[1], pair[0])]), m=Served()) as server:
        opened = model(server, f"&ca={tmp_path}/ca.pem", "grpcs", "localhost")
        np.testing.assert_allclose(opened(ROWS), probabilities(ROWS), rtol=1e-6)
        (tmp_path / "other.pem").write_bytes(new_authority(1).pem()[0])
        for facts in (f"&ca={tmp_path}/other.pem&timeout=0.5", "&timeout=0.5"):
            with pytest.raises(Away):
                model(server, facts, "grpcs", "localhost")
        with pytest.raises(ValueError, match="holds no PEM certificate"):
            model(server, f"&ca={tmp_path}/server-key.pem", "grpcs", "localhost")
