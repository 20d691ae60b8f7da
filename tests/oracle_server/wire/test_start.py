"""When the server does not start: one sentence, status 1, and nothing left behind."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch

from tests.fixtures import Start
from tests.hosted import plant
from tests.serving import Forker, Process, Server, inputs


def serve(forker: Forker, root: Path, *options: object, before: str = "") -> Process:
    words = ["serve", "--root", root, "--port", "0", "--device", "cpu", *options]
    return forker.start("oracle_server", words, log=root / "server.log", before=before)


def said(process: Process) -> list[str]:
    """What a process printed, without its log and that of the gRPC core."""
    return [line for line in process.log.splitlines() if " INFO " not in line and not re.match(r"[EWI]\d{4} ", line)]


def assert_does_not_start(forker: Forker, root: Path, sentence: str, *options: object, before: str = "") -> None:
    """The command ends with one sentence, status 1, and leaves neither address nor socket behind."""
    process = serve(forker, root, *options, before=before)
    assert process.wait() == 1
    assert said(process) == [f"Error: {sentence.format(root=root)}"]
    assert not (root / "server.json").exists()
    assert not (root / "admin.sock").exists()


def vouch(folder: Path) -> None:
    """Write the hash of the archive that lies in a model's folder into its card."""
    card = json.loads((folder / "card.json").read_text())
    card["archive_sha256"] = hashlib.sha256((folder / "model.pt2").read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


def test_port_in_use(forker: Forker, root: Path, server: Server) -> None:
    sentence = f"cannot listen on 127.0.0.1:{server.port}: is the port in use? choose another --port"
    assert_does_not_start(forker, root, sentence, "--port", server.port)


def test_second_server_on_a_ledger(forker: Forker, start: Start) -> None:
    server = start()
    process = serve(forker, server.root)
    assert process.wait() == 1
    lock = server.root / "ledger.lock"
    sentence = f"the ledger beside {lock} is in use by another server: stop that one, or choose another --root"
    assert process.log.splitlines()[-1] == f"Error: {sentence}"
    assert server.new_key().predict(inputs(1)).receipt.spent == 1  # the first one lost nothing by it


def test_ledger_of_a_newer_schema(forker: Forker, root: Path) -> None:
    with closing(sqlite3.connect(root / "ledger.db")) as ledger:
        ledger.execute("PRAGMA user_version = 99")
    before = (root / "ledger.db").read_bytes()
    sentence = (
        "the ledger {root}/ledger.db has schema 99 and this version reads up to 2:"
        " install the mirage-range that wrote it, or a newer one"
    )
    assert_does_not_start(forker, root, sentence)
    with closing(sqlite3.connect(root / "ledger.db")) as ledger:
        assert ledger.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    assert len(before) == (root / "ledger.db").stat().st_size


def test_ledger_that_is_none(forker: Forker, root: Path) -> None:
    (root / "ledger.db").write_bytes(b"not a database, but as long as the header of one" * 10)
    sentence = (
        "cannot use the ledger {root}/ledger.db: file is not a database; check the disk and the file's permissions"
    )
    assert_does_not_start(forker, root, sentence)


def test_no_model(forker: Forker, root: Path) -> None:
    shutil.rmtree(root / "models")
    sentence = "no model below {root}/models: make one with oracle-server train or import"
    assert_does_not_start(forker, root, sentence)


def test_archive_that_is_not_its_cards(forker: Forker, root: Path, models: Path) -> None:
    """A good archive, but another one: not what keys were made for."""
    shutil.copy(models / "models" / "fails" / "1" / "model.pt2", root / "models" / "linear" / "1")
    sentence = (
        "{root}/models/linear/1/model.pt2 is not the archive of its card (SHA-256 differs): import the model again"
    )
    assert_does_not_start(forker, root, sentence)


def test_crafted_archive(forker: Forker, root: Path) -> None:
    """An archive that would run code when torch loads it, with a card that vouches for it: it never reaches torch."""
    folder = root / "models" / "linear" / "1"
    flag = root / "ran"
    plant(folder / "model.pt2", flag)
    vouch(folder)
    process = serve(forker, root)
    assert process.wait() == 1
    (line,) = said(process)
    assert line.startswith("Error: model.pt2: ")
    assert "is a pickle, which can run code" in line
    assert not flag.exists()
    with contextlib.suppress(Exception):  # the control: torch alone runs it, whatever it makes of the result
        torch.export.load(folder / "model.pt2")
    assert flag.exists()


def test_card_that_cannot_be_read(forker: Forker, root: Path) -> None:
    card = root / "models" / "linear" / "1" / "card.json"
    card.write_text(card.read_text()[:-20])
    process = serve(forker, root)
    assert process.wait() == 1
    assert process.log.startswith(f"Error: {card} is no model card (")
    assert process.log.endswith("): import the model again\n")


MISSING_ROW = "import oracle_server.threat_model as t; del t.POLICY['{}']"


@pytest.mark.parametrize(
    "rpc", ["/mirage.v1.Oracle/Download", "/mirage.v1.Admin/Audit", "/grpc.health.v1.Health/Watch"]
)
def test_rpc_without_a_row_in_the_policy_table(forker: Forker, root: Path, rpc: str) -> None:
    sentence = f"no row in the policy table for {rpc}: add one to POLICY"
    assert_does_not_start(forker, root, sentence, before=MISSING_ROW.format(rpc))


def test_reflection_without_a_row_in_the_policy_table(forker: Forker, root: Path) -> None:
    rpc = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    sentence = f"no row in the policy table for {rpc}: add one to POLICY"
    assert_does_not_start(forker, root, sentence, "--reflection", before=MISSING_ROW.format(rpc))


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "example.org"])
def test_plain_text_beyond_loopback(forker: Forker, root: Path, host: str) -> None:
    sentence = (
        f"{host} is not a loopback address: keys do not travel in plain text, give --tls-certificate and --tls-key"
        " (or --plain-text-beyond-loopback, behind something that encrypts)"
    )
    assert_does_not_start(forker, root, sentence, "--host", host)


@pytest.mark.parametrize("option", ["--tls-certificate", "--tls-key"])
def test_half_of_a_tls_pair(forker: Forker, root: Path, option: str) -> None:
    (root / "some.pem").write_text("x")
    process = serve(forker, root, option, root / "some.pem")
    assert process.wait() == 2
    assert process.log.splitlines()[-1] == "Error: --tls-certificate and --tls-key go together"


def test_tls_files_that_are_none(forker: Forker, root: Path) -> None:
    (root / "some.pem").write_text("x")
    process = serve(forker, root, "--tls-certificate", root / "some.pem", "--tls-key", root / "some.pem")
    assert process.wait() == 1
    sentence = (
        f"Error: {root}/some.pem and {root}/some.pem are no PEM certificate and its private key without a password"
    )
    assert process.log.splitlines()[-1].startswith(sentence)


@pytest.mark.parametrize("option", ["--threads", "--batch", "--max-rows"])
def test_numbers_that_make_no_sense(forker: Forker, root: Path, option: str) -> None:
    process = serve(forker, root, option, "0")
    assert process.wait() == 2
    assert process.log.splitlines()[-1] == "Error: --threads, --batch and --max-rows must be at least 1"


def test_root_with_a_long_path(forker: Forker, root: Path) -> None:
    long = root / ("x" * 100)
    shutil.copytree(root / "models", long / "models")
    process = serve(forker, long)
    assert process.wait() == 1
    sentence = f"Error: the path {long}/admin.sock is too long for a Unix socket: choose a shorter --root"
    assert process.log.splitlines()[-1] == sentence
