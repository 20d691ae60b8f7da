"""The committed stubs are what the committed protocols give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from protos.inference import apart

MIRAGE, INFERENCE = Path("protos/mirage/v1"), Path("protos/inference")
STUBS = {
    MIRAGE: [
        *(f"{name}_pb2{ending}" for name in ("admin", "oracle", "tensor") for ending in (".py", ".pyi")),
        "admin_pb2_grpc.py",
        "oracle_pb2_grpc.py",
    ],
    INFERENCE: ["open_inference_pb2.py", "open_inference_pb2.pyi", "open_inference_pb2_grpc.py"],
}


@pytest.fixture(scope="module")
def generated(repository_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stubs")
    outs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    found = [path for folder in STUBS for path in (repository_root / folder).glob("*.proto")]
    sources = sorted(str(path.relative_to(repository_root)) for path in found)
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *outs, *sources], cwd=repository_root, check=True)
    stub = out / INFERENCE / STUBS[INFERENCE][0]
    stub.write_text(apart(stub.read_text()))
    return out


def different(committed: Path, generated: Path) -> set[str]:
    """Names of stubs that are missing on one side or differ in a byte; tensor.proto has no service, so no grpc stub."""
    sides = [
        {path.name: path.read_bytes() for path in folder.glob("*_pb2*") if path.name != "tensor_pb2_grpc.py"}
        for folder in (committed, generated)
    ]
    return {name for name in sides[0] | sides[1] if sides[0].get(name) != sides[1].get(name)}


@pytest.mark.parametrize("folder", STUBS, ids=str)
def test_the_stubs_are_up_to_date(folder: Path, generated: Path, repository_root: Path) -> None:
    assert {path.name for path in (repository_root / folder).glob("*_pb2*")} == set(STUBS[folder])
    assert different(repository_root / folder, generated / folder) == set(), "run: make proto"


def test_a_stale_stub_is_found(generated: Path, repository_root: Path, tmp_path: Path) -> None:
    stubs = STUBS[MIRAGE]
    for name in stubs[1:]:
        (tmp_path / name).write_bytes((repository_root / MIRAGE / name).read_bytes())
    (tmp_path / "oracle_pb2.pyi").write_text("# edited by hand\n")
    assert different(tmp_path, generated / MIRAGE) == {stubs[0], "oracle_pb2.pyi"}


def test_a_stub_that_was_taken_apart_is_not_taken_apart_again(repository_root: Path) -> None:
    with pytest.raises(ValueError, match="not once"):
        apart((repository_root / INFERENCE / STUBS[INFERENCE][0]).read_text())
