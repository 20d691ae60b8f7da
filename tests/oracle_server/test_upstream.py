"""Models that run elsewhere, without the wire: what --upstream may say, and how answers become what is released."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle_server.models.card import Card
from oracle_server.models.proxied import Away, ProxiedModel
from oracle_server.sources import named
from oracle_server.threat_model import Access, Contract, release
from oracle_server.upstream import Upstream

SCORES = Contract(Access.SCORES)
CARD = Card("m", "1", (3,), 0.0, 1.0, 4, 0, 0, "", "", upstream="probabilities")
ADDRESS = "grpc://127.0.0.1:8001/m"


def proxied(answers: np.ndarray, outputs: str = "probabilities") -> ProxiedModel:
    """An upstream that answers row i of a pass with row i of `answers`, whatever it is asked."""
    card = replace(CARD, classes=answers.shape[-1], upstream=outputs)
    return ProxiedModel(card, lambda rows: answers[: len(rows)], batch=8)


def rows_of(n: int) -> np.ndarray:
    return np.full((n, 3), 0.5, np.float32)


# What leaves


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), min_size=1, max_size=5))
def test_probabilities_are_released_as_they_are(weights: list[list[float]]) -> None:
    """Zeros stay zeros, ties stay ties, and whatever is larger stays larger."""
    p = np.array(weights) + np.array([1.0, 0, 0, 0])
    p = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
    (logits,) = proxied(p).logits([rows_of(len(p))])
    scores = release(logits, SCORES).scores
    assert scores is not None
    exact = p / p.sum(axis=1, keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(scores, exact, rtol=1e-12, atol=0)
    assert np.array_equal(release(logits, Contract(Access.LABEL)).labels, p.argmax(axis=1))


def test_the_smallest_difference_decides_a_label() -> None:
    """Of the two most likely of a thousand classes; their logarithms in float32 are the same number."""
    p = np.full((2, 1000), 0.9978 / 998, np.float32)
    low, high = np.float32(0.0011), np.nextafter(np.float32(0.0011), np.float32(1))
    p[0, [3, 7]], p[1, [3, 7]] = (low, high), (high, low)
    assert np.log(low) == np.log(high)
    (logits,) = proxied(p).logits([rows_of(2)])
    labels = release(logits, Contract(Access.LABEL)).labels
    assert labels is not None
    assert labels.tolist() == [7, 3]


def test_logits_are_handed_on() -> None:
    z = np.array([[-3.0, 800.0, 0.25, -800.0]])
    (logits,) = proxied(z, "logits").logits([rows_of(1)])
    assert np.array_equal(logits, z)


@pytest.mark.parametrize(
    "bad",
    [
        [0.5, 0.5, 0.5, 0.5],
        [0.2, 0.2, 0.2, 0.2],
        [1.2, -0.2, 0.0, 0.0],
        [np.nan, 1.0, 0.0, 0.0],
        [np.inf, 0.0, 0.0, 0.0],
        [np.inf, -np.inf, 0.0, 1.0],
        [1e300, 0.0, 0.0, 0.0],
    ],
)
def test_what_is_no_distribution_fails_its_own_request(bad: list[float]) -> None:
    good = [0.1, 0.2, 0.3, 0.4]
    first, second, third = proxied(np.array([good, bad, good, good])).logits([rows_of(1), rows_of(2), rows_of(1)])
    assert np.isfinite(first).all()
    assert np.isfinite(third).all()
    assert not np.isfinite(second[0]).any()


def test_half_precision_sums_to_one_nearly() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(1000), 20).astype(np.float16)
    (logits,) = proxied(p).logits([rows_of(20)])
    assert (p.sum(axis=1, dtype=np.float64) != 1).any()
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("shape", [(1, 4), (3, 4), (2, 3), (2, 4, 1), (2,), ()])
def test_an_answer_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    model = ProxiedModel(CARD, lambda rows: np.full(shape, 0.25), batch=8)
    with pytest.raises(ValueError, match=r"an answer has shape .* instead of \[2, 4\]"):
        model.logits([rows_of(2)])


def test_an_upstream_that_is_away_is_asked_once_a_pass(caplog: pytest.LogCaptureFixture) -> None:
    """And not once for each request of it: that would take as long again for each; the log says it once."""
    calls: list[int] = []

    def ask(rows: np.ndarray) -> np.ndarray:
        calls.append(len(rows))
        if len(calls) < 3:
            raise Away("grpc://there does not answer")
        return np.full((len(rows), 4), 0.25)

    model = ProxiedModel(CARD, ask, batch=8)
    for _ in range(2):
        answers = model.logits([rows_of(2), rows_of(1)])
        assert [answer.shape for answer in answers] == [(2, 4), (1, 4)]
        assert np.isnan(np.concatenate(answers)).all()
    assert np.isfinite(model.logits([rows_of(2)])[0]).all()
    assert calls == [3, 3, 2]
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "m/1: grpc://there does not answer; its callers get MODEL_FAILED until it answers"
    ]


def test_rows_are_the_upstreams_own() -> None:
    """A function that writes into what it is given changes nobody's request."""

    def ask(rows: np.ndarray) -> np.ndarray:
        rows[:] = 0
        return np.full((len(rows), 4), 0.25)

    request = rows_of(2)
    request.flags.writeable = False
    ProxiedModel(CARD, ask, batch=8).logits([request])
    assert (request == 0.5).all()


# What --upstream may say


def test_what_an_upstream_may_say() -> None:
    facts = "shape=3,64,64&range=-1,1.5&outputs=logits&input=a&output=b&batch=8&timeout=2.5&contents=typed"
    more = "description=a+b%26c&key-file=/k&ca=c.pem&plain-text-beyond-loopback=yes"
    assert Upstream.parse(f"mine/2={ADDRESS}?{facts}&{more}") == Upstream(
        "mine/2", ADDRESS, (3, 64, 64), (-1.0, 1.5), "logits", "a", "b", 8, 2.5, "typed", "a b&c", Path("/k"),
        Path("c.pem"), True,
    )  # fmt: skip
    assert Upstream.parse("mine=python:a.b:c") == Upstream("mine/1", "python:a.b:c")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mine", "write NAME=grpc://HOST:PORT/MODEL, or NAME=python:package.module:function"),
        (f"={ADDRESS}", "write NAME=grpc"),
        ("mine=http://127.0.0.1/m", "write NAME=grpc"),
        ("mine=", "write NAME=grpc"),
        (f"mine={ADDRESS}?shape", "write facts as"),
        (f"mine={ADDRESS}?shap=3", "shap is no fact, there is shape, range, outputs"),
        (f"mine={ADDRESS}?shape=3,0", "shape=3,0: give the shape of one row"),
        (f"mine={ADDRESS}?shape=a", "give the shape of one row"),
        (f"mine={ADDRESS}?range=1,0", "give the smallest and the largest legal value"),
        (f"mine={ADDRESS}?range=0", "give the smallest"),
        (f"mine={ADDRESS}?range=0,inf", "give the smallest"),
        (f"mine={ADDRESS}?range=nan,1", "give the smallest"),
        (f"mine={ADDRESS}?outputs=labels", "outputs=labels: choose logits or probabilities"),
        (f"mine={ADDRESS}?batch=0", "batch=0: give a number of rows"),
        (f"mine={ADDRESS}?batch=-1", "give a number of rows"),
        (f"mine={ADDRESS}?timeout=0", "give a number of seconds"),
        (f"mine={ADDRESS}?timeout=nan", "give a number of seconds"),
        (f"mine={ADDRESS}?plain-text-beyond-loopback=no", "choose yes"),
        ("mine=grpc://ada:secret@127.0.0.1:8001/m", "no secrets on a command line"),
    ],
)
def test_what_it_may_not_say(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Upstream.parse(text)
    assert sentence in str(caught.value)
    assert "secret@" not in str(caught.value)


# What `package.module:name` stands for


def test_a_name_in_a_module_or_in_a_file(tmp_path: Path) -> None:
    assert named("json:dumps").__module__ == "json"
    (tmp_path / "beside_upstream.py").write_text("word = 'beside'\n")
    (tmp_path / "of_upstream.py").write_text("from beside_upstream import word\n")
    assert named(f"{tmp_path}/of_upstream.py:word") == "beside"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("json", ValueError),
        ("json:", ValueError),
        (":dumps", ValueError),
        ("no_such_package.module:x", ImportError),
        ("/no/such/file.py:x", ImportError),
        ("json:nothing", AttributeError),
    ],
)
def test_what_names_nothing(source: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        named(source)
