"""The committed stubs are what the committed protocol gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path("protos/mirage/v1")
STUBS = [
    *(f"{name}_pb2{ending}" for name in ("admin", "oracle", "tensor") for ending in (".py", ".pyi")),
    "admin_pb2_grpc.py",
    "oracle_pb2_grpc.py",
]


@pytest.fixture(scope="module")
def generated(repository_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stubs")
    outs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    sources = sorted(str(path.relative_to(repository_root)) for path in (repository_root / FOLDER).glob("*.proto"))
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *outs, *sources], cwd=repository_root, check=True)
    return out / FOLDER


def different(committed: Path, generated: Path) -> set[str]:
    """Names of stubs that are missing on one side or differ in a byte; tensor.proto has no service, so no grpc stub."""
    sides = [
        {path.name: path.read_bytes() for path in folder.glob("*_pb2*") if path.name != "tensor_pb2_grpc.py"}
        for folder in (committed, generated)
    ]
    return {name for name in sides[0] | sides[1] if sides[0].get(name) != sides[1].get(name)}


def test_the_stubs_are_up_to_date(generated: Path, repository_root: Path) -> None:
    assert {path.name for path in (repository_root / FOLDER).glob("*_pb2*")} == set(STUBS)
    assert different(repository_root / FOLDER, generated) == set(), "run: make proto"


def test_a_stale_stub_is_found(generated: Path, repository_root: Path, tmp_path: Path) -> None:
    for name in STUBS[1:]:
        (tmp_path / name).write_bytes((repository_root / FOLDER / name).read_bytes())
    (tmp_path / "oracle_pb2.pyi").write_text("# edited by hand\n")
    assert different(tmp_path, generated) == {STUBS[0], "oracle_pb2.pyi"}
