"""The attacker speaks `mirage.v1.Oracle` and nothing else: not in its source, not in its process, not on the wire."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.attacker.conftest import Make
from tests.fixtures import Start
from tests.open_inference import infer, request
from tests.serving import Server, inputs

OTHER = re.compile(r"protos[./]inference|open_inference|GRPCInferenceService|ModelInfer|triton|kserve", re.IGNORECASE)


def mentions(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.py") if OTHER.search(path.read_text()))


def test_no_file_of_the_attacker_mentions_another(repository_root: Path, tmp_path: Path) -> None:
    assert mentions(repository_root / "attacker") == []
    for number, line in enumerate(("from protos import inference", "from protos.inference import codec")):
        (tmp_path / f"planted{number}.py").write_text(line)
    assert mentions(tmp_path) == ["planted1.py"]
    assert "open_inference.py" in mentions(repository_root / "oracle_server")


LOADED = """
import importlib, pkgutil, sys, attacker
def found():
    return [name for name in sys.modules if name.startswith(("protos.inference", "tritonclient"))]
for module in pkgutil.walk_packages(attacker.__path__, "attacker."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
assert {"protos.mirage.v1.oracle_pb2", "attacker.attacks.mi_face"} <= set(sys.modules)
assert not found(), found()
import protos.inference.codec
assert found(), "the negative control"
"""


def test_no_process_of_the_attacker_holds_another(repository_root: Path) -> None:
    command = [sys.executable, "-c", LOADED]
    done = subprocess.run(command, cwd=repository_root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


RECORD = """
import oracle_server.guard as guard
admit = guard.Guard._admit
def told(self, rpc, *more):
    print(f"a call of {rpc}.", flush=True)
    return admit(self, rpc, *more)
guard.Guard._admit = told
"""


def called(server: Server) -> set[str]:
    """Every call at the port so far; those at the operator's socket are the test's own."""
    return {rpc for rpc in re.findall(r"a call of (\S+)\.$", server.process.log, re.MULTILINE) if "Admin" not in rpc}


def test_no_run_of_the_attacker_calls_another(start: Start, attack: Make) -> None:
    server = start(before=RECORD)
    for run in (
        attack("numeric", "--set", "max_steps=2", at=server, name="scores"),
        attack("mi_face", "--set", "max_steps=5", at=server, name="weights", access="weights"),
    ):
        status, said = run.finish()
        assert status == 0, said
    assert called(server) == {f"/mirage.v1.Oracle/{call}" for call in ("Describe", "Predict", "Download")}
    infer(server.new_key(), request(inputs(1)))  # the negative control
    assert "/inference.GRPCInferenceService/ModelInfer" in called(server)
