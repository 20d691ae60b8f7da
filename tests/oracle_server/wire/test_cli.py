"""`oracle-server` as its user meets it: every command a process, with and without a server beside it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest

from oracle_server.victims.att import faces
from oracle_server.victims.splits import SPLIT_NAMES
from protos.codec import decode
from protos.mirage.v1 import admin_pb2
from tests.fixtures import Command, Start
from tests.serving import Caller, Server, assert_refused, inputs

TOKEN = re.compile(r"mirage_[0-9a-f]{16}_[0-9a-f]{64}\n")


def row(table: str, key_id: str) -> list[str]:
    """The cells of a key's line in what `keys list` and `usage` print."""
    (line,) = [line for line in table.splitlines() if key_id in line]
    return [cell.strip() for cell in line.strip("│").split("│")]


def parts(token: str) -> tuple[str, str]:
    assert TOKEN.fullmatch(token), token
    return token.strip(), token.split("_")[1]


# Keys


def test_a_key_made_before_the_server_starts(start: Start, command: Command) -> None:
    server = start()
    server.kill()
    status, said = command("keys", "create", "--root", server.root, "--model", "linear/1", "--access", "label")
    assert status == 0
    key, key_id = parts(said)
    server.start()
    answer = Caller(server, key, key_id).predict(inputs(3))
    assert decode(answer.labels).shape == (3,)


def test_keys_while_the_server_runs(server: Server, command: Command) -> None:
    """Made, used, listed, revoked: each takes effect at once."""
    words = ("keys", "create", "--root", server.root, "--model", "linear", "--label", "a friend", "--access", "scores")
    status, said = command(*words, "--top-k", 2, "--round-to", 0.01, "--budget", 40, "--rate", 500)
    assert status == 0
    key, key_id = parts(said)
    caller = Caller(server, key, key_id)
    caller.predict(inputs(7))
    for listing in (("keys", "list"), ("usage",), ("usage", key_id)):
        status, table = command(*listing, "--root", server.root)
        assert status == 0
        cells = row(table, key_id)
        capacity = f"{caller.usage().capacity_bits:,.0f}"
        assert cells[0] == key_id
        assert cells[1].startswith("linear/1: scores, top 2, rounded to 0.01")
        assert cells[2:] == ["valid", "7 of 40", capacity]
        assert "a friend" in table
        assert "not a measured leak" in table
        assert key not in table
    assert command("keys", "revoke", "--root", server.root, key_id) == (0, f"revoked {key_id}\n")
    sentence = "the API key was revoked: ask the operator for another"
    assert_refused(server, caller.describe, "UNAUTHENTICATED", "KEY_REVOKED", sentence)
    assert row(command("usage", "--root", server.root)[1], key_id)[2] == "revoked"


def test_keys_without_a_server(start: Start, command: Command) -> None:
    server = start()
    spent = server.new_key()
    spent.predict(inputs(5))
    server.kill()
    assert row(command("usage", "--root", server.root)[1], spent.key_id)[2:4] == ["valid", "5"]
    assert command("keys", "revoke", "--root", server.root, spent.key_id)[0] == 0
    server.start()
    sentence = "the API key was revoked: ask the operator for another"
    assert_refused(server, spent.describe, "UNAUTHENTICATED", "KEY_REVOKED", sentence)


def test_expiry_is_counted_from_now(server: Server, command: Command) -> None:
    words = ("keys", "create", "--root", server.root, "--model", "linear", "--access", "scores")
    _, key_id = parts(command(*words, "--expires-in", 3600)[1])
    (info,) = [k for k in server.admin.ListKeys(admin_pb2.ListKeysRequest()).keys if k.key_id == key_id]
    assert abs(info.contract.expires.ToNanoseconds() / 1e9 - time.time() - 3600) < 60
    _, expired = parts(command(*words, "--expires-in", -1)[1])
    assert row(command("usage", "--root", server.root)[1], expired)[2] == "expired"


def test_a_defence_with_its_parameters(server: Server, command: Command) -> None:
    words = ("keys", "create", "--root", server.root, "--model", "linear", "--access", "scores")
    said = command(*words, "--defence", "temperature:temperature=2", "--defence", "gaussian_noise:sigma=0.1")[1]
    key, key_id = parts(said)
    contract = Caller(server, key, key_id).describe().contract
    told = [(defence.name, dict(defence.parameters)) for defence in contract.defences]
    assert told == [("temperature", {"temperature": 2.0}), ("gaussian_noise", {"sigma": 0.1})]


REFUSED = {
    "an unknown model": (
        ("keys", "create", "--model", "nobody", "--access", "label"),
        "no model 'nobody' here; there is fails/1, linear/1, other/1",
    ),
    "a contract that contradicts itself": (
        ("keys", "create", "--model", "linear", "--access", "label", "--top-k", "2"),
        "top_k has no meaning with access=label: leave it out or use scores",
    ),
    "more of the top than there is": (
        ("keys", "create", "--model", "linear", "--access", "scores", "--top-k", "6"),
        "top_k=6 is more than the model's 5 classes",
    ),
    "a negative budget": (
        ("keys", "create", "--model", "linear", "--access", "scores", "--budget", "-1"),
        "budget=-1 must not be negative",
    ),
    "revoking an unknown key": (("keys", "revoke", "5f0c"), "there is no key '5f0c': see oracle-server keys list"),
    "usage of an unknown key": (("usage", "5f0c"), "there is no key '5f0c': see oracle-server keys list"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("running", [True, False])
def test_refused_with_a_sentence(server: Server, start: Start, command: Command, name: str, running: bool) -> None:
    words, sentence = REFUSED[name]
    root = server.root
    if not running:
        stopped = start("linear", "other", "fails")
        stopped.kill()
        root = stopped.root
    assert command(*words, "--root", root) == (1, f"Error: {sentence}\n")


def test_wrong_words(command: Command) -> None:
    for words, sentence in {
        ("keys", "create", "--model", "m", "--access", "everything"): "'everything' is not one of",
        ("keys", "create", "--model", "m", "--access", "scores", "--defence", "x:y=z"): "write name:parameter=value",
        ("import", "a:b", "--name", "n", "--input-shape", "1xx2"): "--input-shape 1xx2 is no shape",
    }.items():
        status, said = command(*words)
        assert status == 2
        assert sentence in said
        assert "Traceback" not in said


# Models


FACTORY = """
import torch
from torch import nn

def make():
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).eval()

def broken():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Softmax(1)).eval()
"""


def test_import_of_a_users_own_model(start: Start, command: Command, tmp_path: Path) -> None:
    """From a factory in the working directory, then from the archive that this made; both are served."""
    server = start()
    server.kill()
    (tmp_path / "mine.py").write_text(FACTORY)
    words = ("--root", server.root, "--input-shape", "1,3,4", "--range", "-1", "1", "--deterministic")
    status, said = command("import", "mine:make", "--name", "own", *words, "--description", "a model of mine")
    assert status == 0, said
    assert re.fullmatch(r"own/1: 52 parameters, 4 classes, sha256 [0-9a-f]{64}\n", said)
    archive = server.root / "models" / "own" / "1" / "model.pt2"
    status, again = command("import", archive, "--name", "own", "--version", "2", *words)
    assert again == said.replace("own/1", "own/2")
    server.start()
    rows = inputs(5, shape=(1, 3, 4)) * 2 - 1
    answers = [server.new_key(model=f"own/{version}").predict(rows) for version in (1, 2)]
    assert answers[0].scores == answers[1].scores
    card = server.new_key(model="own/1").describe().card
    assert (card.low, card.high, card.deterministic, card.description) == (-1, 1, True, "a model of mine")


def test_import_that_is_refused_leaves_nothing(start: Start, command: Command, tmp_path: Path) -> None:
    server = start()
    (tmp_path / "mine.py").write_text(FACTORY)
    for source, name, sentence in (
        ("mine", "new", "'mine' names no model: give package:factory, or the path of a .pt2 file"),
        ("mine:nothing", "new", "cannot make a model with mine:nothing: module 'mine' has no attribute 'nothing'"),
        ("mine:FACTORY", "new", "cannot make a model with mine:FACTORY: module 'mine' has no attribute 'FACTORY'"),
        ("no.such:thing", "new", "cannot make a model with no.such:thing: No module named 'no'"),
        ("mine:broken", "new", "the outputs are probabilities: return logits, the server applies the softmax itself"),
        ("absent.pt2", "new", "there is no file absent.pt2"),
        ("mine:make", "linear", "model linear/1 is there already: choose another --version"),
    ):
        words = ("--root", server.root, "--name", name, "--input-shape", "1,3,4")
        assert command("import", source, *words) == (1, f"Error: {sentence}\n")
    assert [path.name for path in (server.root / "models").iterdir()] == ["linear"]


def test_train_hosts_a_model_of_faces(command: Command, tmp_path: Path) -> None:
    status, said = command("train", "softmax_regression", "--root", tmp_path / "o", "--split", "att30")
    assert status == 0, said
    assert "softmax_regression-att30/1: softmax_regression on att30: test error 0.0" in said
    folder = tmp_path / "o" / "models" / "softmax_regression-att30" / "1"
    card = json.loads((folder / "card.json").read_text())
    assert (card["input_shape"], card["classes"]) == ([1, 112, 92], 30)
    assert {"split", "sha256"} <= set(json.loads((folder / "split.json").read_text()))
    words = ("train", "softmax_regression", "--root", tmp_path / "o", "--split")
    status, said = command(*words, "nix")
    assert (status, said.strip()) == (1, f"Error: unknown split 'nix': choose one of {', '.join(SPLIT_NAMES)}")


def test_publish_writes_public_people_only(command: Command, tmp_path: Path) -> None:
    status, said = command("publish", "att30", "--out", "public")
    assert status == 1
    assert said.endswith("publish it with --accept-terms\n")
    assert not (tmp_path / "public").exists()
    assert command("publish", "att30", "--out", "public", "--accept-terms") == (0, "published att30 to public\n")
    images = np.load(tmp_path / "public" / "images.npy")
    assert images.shape == (100, 1, 112, 92)
    known = faces()
    published = {image.tobytes() for image in images}
    assert published == {image.tobytes() for image in known.images[known.labels >= 30]}


@pytest.mark.parametrize("name", ["serve", "train", "import", "publish", "keys", "usage", "audit"])
def test_help_shows_an_example(command: Command, name: str) -> None:
    groups = [("keys", "create"), ("keys", "list"), ("keys", "revoke")] if name == "keys" else [(name,)]
    for words in groups:
        status, said = command(*words, "--help")
        assert status == 0
        assert f"Example: oracle-server {' '.join(words)}" in said


def test_a_server_that_is_starting(start: Start, command: Command) -> None:
    """It holds the ledger and does not answer yet: one sentence, not the transport's words."""
    server = start()
    (server.root / "admin.sock").unlink()
    sentence = f"the server at {server.root} does not answer on its socket: it is starting or stopping, try again"
    assert command("keys", "list", "--root", server.root) == (1, f"Error: {sentence}\n")
