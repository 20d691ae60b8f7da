"""`oracle-server audit`: the log as a table, and its chain from the receipts of callers to the last line."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from protos.codec import digest, encode
from tests.fixtures import Command, Start
from tests.serving import Forker, inputs


def test_audit_is_a_table_of_every_charge(start: Start, command: Command, tmp_path: Path) -> None:
    server = start("linear", "other")
    one, two = server.new_key(), server.new_key("weights", model="other")
    began = time.time()
    requests = [one.request(inputs(n, n)) for n in (3, 1, 64)]
    for request in (*requests, requests[0]):  # the last one is a retry, which is not charged
        one.send(request)
    assert list(two.download())
    rows = [(one, "Predict", "linear/1", 3), (one, "Predict", "linear/1", 1), (one, "Predict", "linear/1", 64)]
    rows += [(two, "Download", "other/1", 0)]
    for name in ("running.parquet", "stopped.parquet"):
        assert command("audit", "--root", server.root, "--out", name) == (0, f"4 lines in {name}\n")
        table = pq.read_table(tmp_path / name).to_pylist()
        assert [line["sequence"] for line in table] == [1, 2, 3, 4]
        assert [(line["key_id"], line["rpc"], line["model"], line["rows"]) for line in table] == [
            (caller.key_id, *rest) for caller, *rest in rows
        ]
        assert [line["request_id"] for line in table[:3]] == [request.request_id for request in requests]
        tensor = encode(inputs(3, 3))
        assert table[0]["digest"] == digest(str((tensor.dtype, *tensor.shape)).encode(), tensor.data)
        assert all(began - 1 <= line["time"].timestamp() <= time.time() for line in table)
        server.kill()


def test_audit_of_nothing(start: Start, command: Command, tmp_path: Path) -> None:
    assert command("audit", "--root", start().root, "--out", "empty.parquet") == (0, "0 lines in empty.parquet\n")
    assert pq.read_table(tmp_path / "empty.parquet").num_rows == 0


def test_receipts_vouch_for_the_log(start: Start, command: Command) -> None:
    server = start()
    caller = server.new_key()
    request = caller.request(inputs(3))
    receipts = [caller.send(request).receipt, caller.predict(inputs(1)).receipt, caller.send(request).receipt]
    assert len(receipts[0].head) == 32
    assert (receipts[2].sequence, receipts[2].head) == (1, receipts[0].head), "a retry's receipt is for the first line"
    heads = [f"{receipt.sequence}:{receipt.head.hex()}" for receipt in receipts]
    verify = ("audit", "--verify", "--root", server.root)
    options = [word for head in heads for word in ("--head", head)]
    whole = f"the chain of 2 lines is whole; its head is {heads[1]}\n"
    assert command(*verify, *options) == (0, whole), "while the server runs"
    wrong = f"2:{receipts[0].head.hex()}"
    assert command(*verify, "--head", wrong) == (
        1, "line 2 is not the one whose head was given out\nError: the log is not what was written: 1 findings\n",
    )  # fmt: skip
    server.kill()
    assert command(*verify, *options) == (0, whole), "and after it was killed"
    server.start()
    third = caller.predict(inputs(1)).receipt
    assert command(*verify, "--head", heads[0], "--head", f"3:{third.head.hex()}")[0] == 0
    server.kill()
    with closing(sqlite3.connect(server.root / "ledger.db")) as connection, connection:
        connection.execute("DELETE FROM log WHERE sequence = 3")
    status, said = command(*verify)
    assert (status, said.splitlines()[0]) == (1, "line 3 is cut off at the end")
    status, said = command(*verify, "--head", "three")
    assert (status, said.splitlines()[-1]) == (
        2, "Error: Invalid value for '--head': 'three' is no NUMBER:HEX, the sequence and head of a receipt",
    )  # fmt: skip


def test_a_server_does_not_go_on_with_a_log_that_was_cut(start: Start, forker: Forker) -> None:
    server = start()
    caller = server.new_key(budget=2)
    caller.predict(inputs(2))
    server.kill()
    with closing(sqlite3.connect(server.root / "ledger.db")) as connection, connection:
        connection.execute("DELETE FROM log")
        connection.execute("UPDATE keys SET spent = 0")
    words = ["serve", "--root", server.root, "--port", 0, "--device", "cpu"]
    process = forker.start("oracle_server", words, log=server.root / "again.log")
    assert process.wait() == 1
    assert process.log.splitlines()[-1] == (
        "Error: the log has lost or changed its line 1: see oracle-server audit --verify;"
        " serve --adopt-ledger takes the log as it is now"
    )


def test_the_audit_key_may_live_elsewhere(start: Start, command: Command, tmp_path: Path) -> None:
    key = tmp_path / "vault" / "mirage.key"
    server = start(options=("--audit-key", str(key)))
    server.new_key().predict(inputs(3))
    assert not (server.root / "audit.key").exists()
    verify = ("audit", "--verify", "--root", server.root)
    assert command(*verify, "--audit-key", key)[0] == 0
    sentence = f"Error: there is no audit key {server.root}/audit.key: name its file with --audit-key\n"
    assert command(*verify) == (1, sentence)
    server.kill()
    assert command("keys", "create", "--root", server.root, "--model", "linear", "--access", "label")[0] == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "say what to do: --out FILE, --verify, or both"),
        (("--out", "log.parquet", "--head", "1:00"), "--head belongs to --verify"),
    ],
)
def test_wrong_words(command: Command, root: Path, words: tuple[str, ...], sentence: str) -> None:
    status, said = command("audit", "--root", root, *words)
    assert (status, said.splitlines()[-1]) == (2, f"Error: {sentence}")
