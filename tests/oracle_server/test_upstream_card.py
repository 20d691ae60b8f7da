"""The card of a model that runs elsewhere: learnt at the first start, kept at later ones, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from oracle_server.capacity import capacity_bits
from oracle_server.contracts import contract_message
from oracle_server.errors import Reason, Refusal
from oracle_server.ledger import SqliteLedger
from oracle_server.models.card import Card
from oracle_server.models.proxied import ProxiedModel
from oracle_server.models.repository import Repository
from oracle_server.operator import Operator
from oracle_server.threat_model import Access, Contract
from oracle_server.upstream import Upstream
from oracle_server.upstream_models import connect
from protos.mirage.v1 import admin_pb2 as pb

CARD = Card("m", "1", (3,), 0.0, 1.0, 4, 0, 0, "", "", upstream="probabilities")


def model_of(tmp_path: Path, source: str, facts: str = "?shape=2,3") -> Callable[..., ProxiedModel]:
    """`connect` to a function whose source is `source`, in the repository below `tmp_path`."""
    (tmp_path / "mine.py").write_text(f"import numpy as np\n\ndef scores(rows):\n    {source}\n")
    said = Upstream.parse(f"mine=python:{tmp_path}/mine.py:scores{facts}")
    return lambda: connect(said, Repository(tmp_path), 8, 1 << 20)


UNIFORM = "return np.full((len(rows), 4), 0.25)"


@pytest.mark.parametrize(
    ("source", "facts", "outputs"),
    [
        (UNIFORM, "", "probabilities"),
        ("return np.full((len(rows), 4), 0.5)", "", "logits"),
        ("return -np.ones((len(rows), 4)) / 4", "", "logits"),
        (UNIFORM, "&outputs=logits", "logits"),
    ],
)
def test_what_its_outputs_are(tmp_path: Path, source: str, facts: str, outputs: str) -> None:
    model = model_of(tmp_path, source, f"?shape=2,3&range=-1,2&description=A+forest{facts}")()
    card = Repository(tmp_path).card("mine/1")
    assert model.card == card
    assert (card.input_shape, card.low, card.high, card.classes, card.upstream) == ((2, 3), -1, 2, 4, outputs)
    assert (card.kind, card.archive_bytes, card.archive_sha256, card.deterministic) == ("neural", 0, "", False)
    assert card.description == "A forest"
    assert [path.name for path in (tmp_path / "models" / "mine" / "1").iterdir()] == ["card.json"]
    assert str(tmp_path) not in (tmp_path / "models" / "mine" / "1" / "card.json").read_text(), "no address on a card"


def test_later_starts_need_no_facts_and_what_has_changed_is_a_new_version(tmp_path: Path) -> None:
    first = model_of(tmp_path, UNIFORM, "?shape=2,3&range=-1,2")()
    assert model_of(tmp_path, UNIFORM, "")().card == first.card
    for source, facts, said in [
        (UNIFORM, "?range=0,2", "low -1.0 and has 0.0 now"),
        (UNIFORM, "?shape=6", "input_shape (2, 3) and has (6,) now"),
        ("return np.full((len(rows), 5), 0.2)", "", "classes 4 and has 5 now"),
        ("return np.ones((len(rows), 4))", "", "upstream probabilities and has logits now"),
    ]:
        with pytest.raises(ValueError, match="serve what has changed as a new version") as caught:
            model_of(tmp_path, source, facts)()
        assert said in str(caught.value)
    assert Repository(tmp_path).card("mine/1") == first.card


@pytest.mark.parametrize(
    ("source", "facts", "sentence"),
    [
        (UNIFORM, "", "is a function: say what a row is, ?shape=1,112,92 for example"),
        ("return rows.sum(axis=1)[:, 0]", "?shape=2,3", "answered 5 rows with [5]: scores (N, C) are needed, C >= 2"),
        ("return np.ones((len(rows), 1))", "?shape=2,3", "scores (N, C) are needed, C >= 2"),
        ("return np.ones((1, 4))", "?shape=2,3", "answered 5 rows with [1, 4]"),
        ("return np.full((len(rows), 4), np.nan)", "?shape=2,3", "what is no number to rows inside the range"),
        ("raise SystemExit(3)", "?shape=2,3", "failed on 5 rows (SystemExit: 3)"),
        ("raise KeyError('weights')", "?shape=2,3", "failed on 5 rows (KeyError: 'weights')"),
        ("return ['a', 'b'] * len(rows)", "?shape=2,3", "failed on 5 rows (ValueError:"),
        ("return rows[:, 9]", "?shape=2,3", "failed on 5 rows (IndexError:"),
    ],
)
def test_what_no_contract_fits(tmp_path: Path, source: str, facts: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        model_of(tmp_path, source, facts)()
    assert sentence in str(caught.value)
    assert not (tmp_path / "models").exists()


def test_a_full_pass_is_tried_before_anybody_is_served(tmp_path: Path) -> None:
    model = model_of(tmp_path, "assert len(rows) < 8, 'too many rows'; " + UNIFORM)()
    with pytest.raises(ValueError, match="the upstream of mine/1 failed on a batch of 8 rows: too many rows"):
        model.warm_up()
    small = model_of(tmp_path, "assert len(rows) < 8, 'too many rows'; " + UNIFORM, "?batch=7")()
    small.warm_up()
    assert small.batch == 7


def test_the_name_of_a_model_that_is_hosted_here(tmp_path: Path) -> None:
    own = Card("mine", "1", (2, 3), 0.0, 1.0, 4, 1, 7, "00" * 32, "2.14.1")
    Repository(tmp_path).add(b"archive", own)
    with pytest.raises(FileExistsError, match="mine/1 is hosted here already: choose another name"):
        model_of(tmp_path, UNIFORM)()


@pytest.mark.parametrize(
    "wrong", [{"upstream": "labels"}, {"archive_bytes": 7}, {"kind": "tree"}, {"deterministic": True}]
)
def test_cards_that_contradict_themselves(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="upstream"):
        replace(CARD, **wrong)


def test_no_archive_bounds_the_capacity_and_none_can_be_downloaded(tmp_path: Path, ledger: SqliteLedger) -> None:
    rows = 10**9
    label = Contract(Access.LABEL)
    assert capacity_bits(label, CARD, rows) == pytest.approx(2 * rows)
    hosted = replace(CARD, upstream="", archive_bytes=100)
    assert capacity_bits(label, hosted, rows) < 2 * rows / 1000, "the negative control"
    repository = Repository(tmp_path)
    repository.add(None, CARD)
    operator = Operator(ledger, repository)
    for access in Access:
        request = pb.CreateKeyRequest(model="m/1", contract=contract_message(Contract(access)))
        if access is Access.WEIGHTS:
            with pytest.raises(Refusal, match="m/1 runs elsewhere and has no archive to download") as caught:
                operator.create_key(request)
            assert caught.value.reason is Reason.BAD_CONTRACT
        else:
            assert operator.create_key(request).key_id
    assert math.isfinite(operator.list_keys(pb.ListKeysRequest()).keys[0].usage.capacity_bits)
