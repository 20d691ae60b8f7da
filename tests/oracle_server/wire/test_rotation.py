"""A key gets a new secret: which secrets are accepted when, and that nothing else of the key changes."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from oracle_server.guard import _is_secret_of
from oracle_server.ledger import Flag, Key, SqliteLedger
from protos.mirage.v1 import admin_pb2
from tests.fixtures import Command, Start
from tests.serving import Caller, Server, assert_refused, inputs, refused

UNKNOWN = ("UNAUTHENTICATED", "BAD_KEY", "the API key is not known here: check it, or ask the operator for one")
REVOKED = ("UNAUTHENTICATED", "KEY_REVOKED", "the API key was revoked: ask the operator for another")
HOUR = 3600.0


def rotate(caller: Caller, overlap: float) -> Caller:
    """The same key with a new secret."""
    request = admin_pb2.RotateKeyRequest(key_id=caller.key_id, overlap=overlap)
    return Caller(caller.server, caller.server.admin.RotateKey(request).key, caller.key_id)


def info(caller: Caller) -> admin_pb2.KeyInfo:
    (found,) = caller.server.admin.ListKeys(admin_pb2.ListKeysRequest(key_ids=[caller.key_id])).keys
    return found


def test_both_secrets_are_one_key_during_the_overlap(server: Server) -> None:
    """One contract, one budget, one count; what was asked with one secret is a retry with the other."""
    old = server.new_key(budget=10, top_k=2)
    old.predict(inputs(3), b"r" * 16)
    before = info(old)
    new = rotate(old, HOUR)
    assert new.key != old.key
    assert new.key.rpartition("_")[0] == old.key.rpartition("_")[0]
    assert new.predict(inputs(3), b"r" * 16).receipt.rows_charged == 0
    assert new.predict(inputs(4, seed=1)).receipt.spent == 7
    assert old.predict(inputs(2, seed=2)).receipt.spent == 9
    assert old.usage() == new.usage()
    told = assert_refused(server, lambda: new.predict(inputs(2)), "RESOURCE_EXHAUSTED", "BUDGET_SPENT", sentence_of(1))
    assert told.figures == {"asked": 2, "left": 1, "budget": 10}
    after = info(old)
    assert 0 < after.former_until.ToNanoseconds() / 1e9 - time.time() <= HOUR
    for message in (before, after):
        message.ClearField("former_until")
        message.ClearField("usage")
    assert after == before


def sentence_of(left: int) -> str:
    return f"2 rows asked and {left} of 10 left: ask for fewer, or for a key with a larger budget"


def test_no_other_secret_is_accepted_during_the_overlap(server: Server) -> None:
    old = server.new_key()
    new = rotate(old, HOUR)
    name = old.key.rpartition("_")[0]
    for secret in ("", secrets.token_hex(32), old.key[-64:][::-1], new.key[-64:-1], old.key[-64:] + new.key[-64:]):
        assert_refused(server, Caller(server, f"{name}_{secret}", old.key_id).describe, *UNKNOWN)


def test_without_an_overlap_the_old_secret_ends_at_once(server: Server) -> None:
    """It is then a wrong secret as any other; no answer tells that it was right once."""
    old = server.new_key()
    new = rotate(old, 0.0)
    assert_refused(server, old.describe, *UNKNOWN)
    new.describe()
    assert not info(new).HasField("former_until")


def test_the_old_secret_ends_with_the_overlap(server: Server) -> None:
    old = server.new_key()
    new = rotate(old, 1.5)
    until = info(old).former_until.ToNanoseconds() / 1e9
    old.describe()
    time.sleep(max(0.0, until - time.time()))
    assert_refused(server, old.describe, *UNKNOWN)
    new.describe()
    assert not info(new).HasField("former_until")


def test_a_rotation_during_an_overlap_ends_the_oldest_secret(server: Server) -> None:
    first = server.new_key()
    second = rotate(first, HOUR)
    answer = server.admin.RotateKey(admin_pb2.RotateKeyRequest(key_id=first.key_id, overlap=HOUR))
    assert answer.dropped
    third = Caller(server, answer.key, first.key_id)
    assert_refused(server, first.describe, *UNKNOWN)
    second.describe()
    third.describe()
    rotate(third, 0.0).describe()
    for old in (first, second, third):
        assert_refused(server, old.describe, *UNKNOWN)
    assert not server.admin.RotateKey(admin_pb2.RotateKeyRequest(key_id=first.key_id, overlap=0.0)).dropped


def test_a_rotation_survives_a_kill(start: Start) -> None:
    server = start()
    old, ended = server.new_key(budget=5), server.new_key()
    old.predict(inputs(2))
    new, fresh = rotate(old, HOUR), rotate(ended, 0.0)
    server.kill()
    server.start()
    assert old.predict(inputs(1)).receipt.spent == 3
    assert new.predict(inputs(1)).receipt.spent == 4
    assert_refused(server, ended.describe, *UNKNOWN)
    fresh.describe()


def test_a_revoked_key_has_no_secret_that_helps(server: Server) -> None:
    old = server.new_key()
    new = rotate(old, HOUR)
    server.admin.RevokeKey(admin_pb2.RevokeKeyRequest(key_id=old.key_id))
    for caller in (old, new):
        assert_refused(server, caller.describe, *REVOKED)
    with pytest.raises(grpc.RpcError) as caught:
        rotate(new, 0.0)
    told = f"the key {old.key_id} was revoked: make another, oracle-server keys create"
    assert refused(caught.value).sentence == told
    for caller in (old, new):
        assert_refused(server, caller.describe, *REVOKED)


@pytest.mark.parametrize("overlap", [-1.0, float("nan"), float("inf"), 366 * 24 * HOUR])
def test_an_overlap_that_makes_no_sense_changes_nothing(server: Server, overlap: float) -> None:
    caller = server.new_key()
    with pytest.raises(grpc.RpcError) as caught:
        rotate(caller, overlap)
    assert refused(caught.value).sentence == f"overlap={overlap} must lie in [0, 31536000] seconds"
    caller.describe()
    assert not info(caller).HasField("former_until")


def test_neither_secret_is_kept_anywhere(server: Server) -> None:
    old = server.new_key()
    new = rotate(old, HOUR)
    for caller in (old, new):
        caller.predict(inputs(1))
        secret = caller.key.rpartition("_")[2].encode()
        for path in server.root.rglob("*"):
            if path.is_file():
                assert secret not in path.read_bytes(), path


def test_flags_and_budget_outlive_a_rotation(ledger: SqliteLedger, make_key: Callable[..., Key]) -> None:
    key = make_key(budget=7)
    ledger.add_key(key)
    ledger.charge(ledger.reserve(key, b"id", 3), "Predict", bytes(32)).result()
    ledger.flag(Flag("k", "distances", "suspend", row=2, time=5.0))
    assert ledger.rotate("k", b"new", until=9.0)
    assert ledger.key("k") == replace(key, secret_sha256=b"new", former_sha256=bytes(32), former_until=9.0)
    assert [flag.detector for flag in ledger.flags("k")] == ["distances"]
    assert ledger.usage("k").spent == 3
    assert not ledger.rotate("nobody", b"new", until=9.0)


def test_when_a_secret_is_a_keys(make_key: Callable[..., Key]) -> None:
    """The very moment at which the overlap ends belongs to what follows it."""
    old, new = (hashlib.sha256(secret).digest() for secret in (b"old", b"new"))
    key = replace(make_key(), secret_sha256=new, former_sha256=old, former_until=100.0)
    assert [_is_secret_of(key, "old", now) for now in (0.0, 99.999, 100.0, 1e9)] == [True, True, False, False]
    assert all(_is_secret_of(key, "new", now) for now in (0.0, 100.0, 1e9))
    assert not _is_secret_of(key, "other", 0.0)
    assert not _is_secret_of(None, "new", 0.0)


# On the command line


def test_the_command(server: Server, command: Command, tmp_path: Path) -> None:
    old = server.new_key()
    words = ("keys", "rotate", "--root", server.root, old.key_id)
    status, said = command(*words, "--overlap", 60)
    assert status == 0
    printed, note = sorted(said.splitlines(), key=lambda line: " " in line)
    assert note == "the old secret is accepted for 60 s more"
    Caller(server, printed, old.key_id).describe()
    old.describe()
    assert "old secret accepted until 20" in command("keys", "list", "--root", server.root)[1]
    out = tmp_path / "key"
    status, said = command(*words, "--overlap", 0, "--out", out)
    assert status == 0
    assert f"the key {old.key_id} is in {out}" in said
    assert "the old secret is refused from now on, the one before it no more" in said
    assert "mirage_" not in said
    assert out.stat().st_mode & 0o777 == 0o600
    new = Caller(server, out.read_text().strip(), old.key_id)
    new.describe()
    assert command(*words, "--out", out) == (
        1,
        f"Error: {out} exists and is not overwritten: choose another name, or remove it\n",
    )
    new.describe()  # a key that could not be told was not made
    unknown = "there is no key 'nobody': see oracle-server keys list"
    assert command("keys", "rotate", "--root", server.root, "nobody", "--out", tmp_path / "other") == (
        1,
        f"Error: {unknown}\n",
    )
    assert not (tmp_path / "other").exists()


def test_a_new_key_goes_into_a_file(server: Server, command: Command, tmp_path: Path) -> None:
    out = tmp_path / "key"
    words = ("keys", "create", "--root", server.root, "--model", "linear/1", "--access", "label", "--out", out)
    status, said = command(*words)
    assert status == 0
    key = out.read_text().strip()
    key_id = key.split("_")[1]
    assert said == f"the key {key_id} is in {out}\n"
    assert out.stat().st_mode & 0o777 == 0o600
    Caller(server, key, key_id).describe()
    keys = len(server.admin.ListKeys(admin_pb2.ListKeysRequest()).keys)
    assert command(*words)[0] == 1
    assert len(server.admin.ListKeys(admin_pb2.ListKeysRequest()).keys) == keys
    assert out.read_text().strip() == key
