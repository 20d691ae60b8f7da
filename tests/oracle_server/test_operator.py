"""The operator's calls, on the ledger itself; tests/oracle_server/wire makes them through a running server."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from oracle_server.audit import write_parquet
from oracle_server.capacity import capacity_bits
from oracle_server.contracts import contract_message
from oracle_server.errors import Reason, Refusal
from oracle_server.ledger import Entry, Key, SqliteLedger
from oracle_server.models.card import Card
from oracle_server.models.repository import Repository
from oracle_server.operator import Operator, OperatorError, admin_socket, ledger_path, open_operator
from oracle_server.threat_model import Access, Contract
from protos.mirage.v1 import admin_pb2 as pb
from protos.mirage.v1 import oracle_pb2

CARD = Card("m", "1", (1, 8, 6), 0.0, 1.0, 5, 245, 2_000, "00" * 32, "2.14.1")
LABEL = contract_message(Contract(Access.LABEL, budget=7))


@pytest.fixture
def root() -> Iterator[Path]:
    """A server's folder with a short path, which hosts versions 1, 9 and 10 of the model m."""
    folder = Path(tempfile.mkdtemp(prefix="mo"))
    (folder / "archive").write_bytes(b"archive")
    for version in ("1", "9", "10"):
        Repository(folder).add(folder / "archive", replace(CARD, version=version))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def operator(ledger: SqliteLedger, root: Path) -> Operator:
    return Operator(ledger, Repository(root))


def spend(ledger: SqliteLedger, key: Key, *rows: int) -> None:
    for n, count in enumerate(rows):
        request_id = n.to_bytes(16, "big")
        ledger.charge(ledger.reserve(key, request_id, count), "Predict", b"d" * 32).result(timeout=60)


def test_a_new_key_is_in_the_ledger_as_a_hash(operator: Operator, ledger: SqliteLedger, tmp_path: Path) -> None:
    contract = Contract(Access.SCORES, top_k=2, round_to=0.1, budget=100)
    request = pb.CreateKeyRequest(label="Ada", model="m/1", contract=contract_message(contract))
    made = operator.create_key(request)
    prefix, key_id, secret = made.key.split("_")
    assert (prefix, key_id, len(secret)) == ("mirage", made.key_id, 64)
    key = ledger.key(key_id)
    assert key is not None
    assert (key.label, key.model, key.contract, key.revoked) == ("Ada", "m/1", contract, None)
    assert key.secret_sha256 == hashlib.sha256(secret.encode()).digest()
    ledger.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("ledger*"))
    assert key.secret_sha256 in kept
    assert secret.encode() not in kept
    assert bytes.fromhex(secret) not in kept


def test_keys_differ_and_a_name_alone_means_its_newest_version(operator: Operator, ledger: SqliteLedger) -> None:
    made = [operator.create_key(pb.CreateKeyRequest(model="m", contract=LABEL)) for _ in range(20)]
    assert len({key.key for key in made}) == len({key.key_id for key in made}) == 20
    assert {key.model for key in ledger.all_keys()} == {"m/10"}


def scores(**fields: object) -> oracle_pb2.Contract:
    return oracle_pb2.Contract(access=oracle_pb2.Contract.ACCESS_SCORES, **fields)


NOISE = oracle_pb2.Defence(name="gaussian_noise", parameters={"variance": 0.1})
REFUSED = [
    ("m", scores(top_k=6), Reason.BAD_CONTRACT, "top_k=6 is more than the model's 5 classes"),
    ("m", scores(round_to=2), Reason.BAD_CONTRACT, "round_to=2.0 must lie in [1e-15, 1]"),
    ("m", scores(features=["latent"]), Reason.BAD_CONTRACT, "features belong to feature models"),
    ("m", scores(budget=2**64 - 1), Reason.BAD_CONTRACT, "budget=18446744073709551615 must be a whole number"),
    ("m", scores(defences=[NOISE]), Reason.BAD_CONTRACT, "gaussian_noise has no parameter 'variance'"),
    ("m", oracle_pb2.Contract(), Reason.BAD_CONTRACT, "access must be one of weights, scores, label"),
    ("n", scores(), Reason.NO_MODEL, "no model 'n' here; there is m/1, m/10, m/9"),
    ("m/2", scores(), Reason.NO_MODEL, "no model 'm/2' here"),
    ("", scores(), Reason.NO_MODEL, "no model '' here"),
]


@pytest.mark.parametrize(("model", "contract", "reason", "sentence"), REFUSED)
def test_a_key_that_cannot_be_kept_is_refused(
    model: str,
    contract: oracle_pb2.Contract,
    reason: Reason,
    sentence: str,
    operator: Operator,
    ledger: SqliteLedger,
) -> None:
    with pytest.raises(Refusal) as caught:
        operator.create_key(pb.CreateKeyRequest(model=model, contract=contract))
    assert caught.value.reason is reason
    assert sentence in caught.value.sentence
    assert ledger.all_keys() == []


def test_without_a_model_the_sentence_says_how_to_get_one(ledger: SqliteLedger, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="there is none yet: see oracle-server train and import"):
        Operator(ledger, Repository(tmp_path)).create_key(pb.CreateKeyRequest(model="m", contract=LABEL))


def test_the_list_shows_contract_usage_and_capacity(operator: Operator, ledger: SqliteLedger) -> None:
    made = operator.create_key(pb.CreateKeyRequest(label="Ada", model="m/1", contract=LABEL))
    key = ledger.key(made.key_id)
    assert key is not None
    spend(ledger, key, 2, 3)
    (info,) = operator.list_keys(pb.ListKeysRequest()).keys
    assert (info.key_id, info.label, info.model, info.contract) == (made.key_id, "Ada", "m/1", LABEL)
    assert (info.usage.spent, info.usage.budget_left, info.usage.downloads) == (5, 2, 0)
    assert info.usage.capacity_bits == capacity_bits(key.contract, CARD, 5)
    assert info.created.ToNanoseconds() == pytest.approx(key.created * 1e9, rel=1e-9)
    assert not info.HasField("revoked")


def test_the_list_may_be_of_a_few_keys(operator: Operator) -> None:
    made = [operator.create_key(pb.CreateKeyRequest(model="m/1", contract=LABEL)).key_id for _ in range(3)]

    def listed(*key_ids: str) -> list[str]:
        return [info.key_id for info in operator.list_keys(pb.ListKeysRequest(key_ids=key_ids)).keys]

    assert listed(made[2], made[0], "nobody") == [made[0], made[2]]
    assert listed("nobody") == []
    assert listed() == made


@pytest.mark.parametrize("model", ["*", "m/*", "*/1", "../models/m", "m/../m/1", "m/"])
def test_a_model_is_found_by_its_name_and_by_no_pattern(operator: Operator, model: str) -> None:
    with pytest.raises(Refusal, match="no model"):
        operator.create_key(pb.CreateKeyRequest(model=model, contract=LABEL))


def test_a_model_that_was_taken_away_leaves_its_keys_in_the_list(operator: Operator, root: Path) -> None:
    operator.create_key(pb.CreateKeyRequest(model="m/1", contract=LABEL))
    shutil.rmtree(root / "models" / "m" / "1")
    (info,) = operator.list_keys(pb.ListKeysRequest()).keys
    assert info.model == "m/1"
    assert not info.HasField("usage")


def test_revoking(operator: Operator) -> None:
    key_id = operator.create_key(pb.CreateKeyRequest(model="m", contract=LABEL)).key_id
    operator.revoke_key(pb.RevokeKeyRequest(key_id=key_id))
    first = operator.list_keys(pb.ListKeysRequest()).keys[0].revoked
    operator.revoke_key(pb.RevokeKeyRequest(key_id=key_id))
    assert operator.list_keys(pb.ListKeysRequest()).keys[0].revoked == first
    with pytest.raises(Refusal, match="there is no key 'x': see oracle-server keys list") as caught:
        operator.revoke_key(pb.RevokeKeyRequest(key_id="x"))
    assert caught.value.reason is Reason.NO_SUCH_KEY


class Paged(SqliteLedger):
    """Gives the log three lines at a time, so that a short log has pages."""

    def entries(self, after: int = 0, limit: int = 3) -> Iterator[Entry]:
        return super().entries(after, limit)


def test_the_audit_gives_every_line_once_and_ends_as_parquet(tmp_path: Path, root: Path) -> None:
    with closing(Paged(tmp_path / "paged.db")) as ledger:
        operator = Operator(ledger, Repository(root))
        request = pb.CreateKeyRequest(model="m/1", contract=contract_message(Contract(Access.LABEL)))
        key = ledger.key(operator.create_key(request).key_id)
        assert key is not None
        spend(ledger, key, 1, 2, 3, 4, 5, 6, 7)
        batches = list(operator.audit(pb.AuditRequest()))
        assert [len(batch.entries) for batch in batches] == [3, 3, 1]
        later = [entry for batch in operator.audit(pb.AuditRequest(after_sequence=5)) for entry in batch.entries]
        assert [entry.rows for entry in later] == [6, 7]
    assert write_parquet(batches, tmp_path / "log.parquet") == 7
    assert [path.name for path in tmp_path.glob("log*")] == ["log.parquet"]
    lines = pq.read_table(tmp_path / "log.parquet").to_pylist()
    assert [line["rows"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    assert [line["sequence"] for line in lines] == list(range(1, 8))
    last = batches[-1].entries[-1]
    assert (last.rpc, last.model, last.key_id) == ("Predict", "m/1", key.key_id)
    assert lines[-1]["time"].timestamp() == pytest.approx(last.time.ToNanoseconds() / 1e9, abs=1e-5)
    assert {name: lines[-1][name] for name in ("request_id", "digest", "rpc", "model", "key_id")} == {
        name: getattr(last, name) for name in ("request_id", "digest", "rpc", "model", "key_id")
    }


def test_commands_work_on_the_ledger_while_no_server_runs(root: Path) -> None:
    with open_operator(root) as operator:
        assert isinstance(operator, Operator)
        key_id = operator.create_key(pb.CreateKeyRequest(model="m", contract=LABEL)).key_id
    with open_operator(root) as operator:
        assert [info.key_id for info in operator.list_keys(pb.ListKeysRequest()).keys] == [key_id]


def revoke_nobody(root: Path) -> None:
    with open_operator(root) as operator:
        operator.revoke_key(pb.RevokeKeyRequest(key_id="x"))


def test_refusals_come_out_as_one_sentence(root: Path) -> None:
    for _ in range(2):  # the ledger was closed again
        with pytest.raises(OperatorError, match=r"^there is no key 'x': see oracle-server keys list$"):
            revoke_nobody(root)


def test_a_server_that_holds_the_ledger_and_does_not_answer(root: Path) -> None:
    with closing(SqliteLedger(ledger_path(root))), pytest.raises(OperatorError, match="does not answer on its socket"):
        revoke_nobody(root)


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    assert admin_socket(Path("/r")) == Path("/r/admin.sock")
    with pytest.raises(OperatorError, match="too long for a Unix socket: choose a shorter --root"):
        admin_socket(tmp_path / ("x" * 100))
    admin_socket(Path("/") / ("é" * 44))
    with pytest.raises(OperatorError, match="too long"):
        admin_socket(Path("/") / ("é" * 45))  # bytes count, not letters
