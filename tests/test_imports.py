"""Who may import whom, as pyproject.toml says, checked by import-linter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PLANTED = {
    "attacker/attacks/planted.py": "def peek():\n    from oracle_server import threat_model",
    "attacker/planted.py": "import referee",
    "attacker/priors/planted.py": "from protos.inference import codec",
    "oracle_server/ledger/planted.py": "from attacker.oracle import Oracle",
    "protos/planted.py": "from defenses import response",
    "defenses/response/planted.py": "import protos.codec as codec",
}


def lint(folder: Path) -> tuple[int, str]:
    """Exit status and report of import-linter for the packages in a folder."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_roles_import_as_the_contracts_say(repository_root: Path) -> None:
    status, report = lint(repository_root)
    assert status == 0, report
    assert "4 kept, 0 broken" in report


@pytest.fixture
def copied(repository_root: Path, tmp_path: Path) -> Path:
    """The packages and their rules, somewhere else."""
    rules = tomllib.loads((repository_root / "pyproject.toml").read_text())["tool"]["importlinter"]
    for package in rules["root_packages"]:
        shutil.copytree(repository_root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository_root / "pyproject.toml", tmp_path)
    return tmp_path


def test_planted_imports_are_found(copied: Path) -> None:
    for path, source in PLANTED.items():
        (copied / path).write_text(source + "\n")
    status, report = lint(copied)
    assert status == 1, report
    assert "0 kept, 4 broken" in report
    for line in (
        "attacker.attacks.planted -> oracle_server.threat_model (l.2)",
        "attacker.planted -> referee (l.1)",
        "attacker.priors.planted -> protos.inference.codec (l.1)",
        "oracle_server.ledger.planted -> attacker.oracle (l.1)",
        "protos.planted -> defenses.response (l.1)",
        "defenses.response.planted -> protos.codec (l.1)",
    ):
        assert line in report
