"""`oracle-server train-table` and `import` of a tree: what becomes hosted, and one sentence for what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from oracle_server.models.repository import Repository
from tests.fixtures import Command

CSV = "smoker,age,diet\n" + "yes,30,meat\nno,41,none\nno,25,meat\nyes,62,none\n" * 5
SCHEMA = """
[table]
name = "survey"
response = "diet"
sensitive = ["smoker"]
[features.smoker]
kind = "nominal"
[features.age]
kind = "numeric"
[features.diet]
kind = "nominal"
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, Path, str, Path]:
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "a.toml").write_text(SCHEMA)
    return ("--csv", tmp_path / "a.csv", "--schema", tmp_path / "a.toml")


def test_a_table_of_ones_own_becomes_a_tree(command: Command, files: tuple[object, ...], tmp_path: Path) -> None:
    root = tmp_path / "root"
    status, said = command("train-table", "tree", *files, "--root", root, "--max-depth", 2)
    assert status == 0, said
    assert said.startswith("tree-survey/1: tree of survey")
    card = Repository(root).card("tree-survey")
    assert (card.kind, card.classes, card.input_shape) == ("tree", 2, (2,))
    assert [feature.name for feature in card.features] == ["smoker", "age"]
    assert sum(map(sum, card.confusion)) == 20
    status, said = command("train-table", "tree", *files, "--root", root, "--max-depth", 2)
    assert status == 1
    assert "tree-survey/1 is there already: choose another --version" in said


def test_a_priority_keeps_the_sensitive_feature_from_the_root(
    command: Command, files: tuple[object, ...], tmp_path: Path
) -> None:
    for name, options in (("plain", ()), ("guarded", ("--priority", 2))):
        status, said = command(
            "train-table", "tree", *files, "--root", tmp_path / "root", "--name", name, *options, "--max-depth", 1
        )
        assert status == 0, said
    paths = {
        name: Repository(tmp_path / "root").archive(Repository(tmp_path / "root").card(name)).read_text()
        for name in ("plain", "guarded")
    }
    assert '["smoker","' not in paths["guarded"]
    assert paths["plain"] != ""


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("a.csv", "age", "years"), "has no column 'age'"),
        (("a.csv", "41", "old"), "'old'"),
        (("a.toml", 'sensitive = ["smoker"]', "sensitive = []"), "sensitive"),
        (("a.toml", 'kind = "nominal"\n[features.age]', 'kind = "nominal"\nlevels = ["no"]\n[features.age]'), "'yes'"),
    ],
)
def test_files_that_do_not_fit(
    command: Command, files: tuple[object, ...], tmp_path: Path, change: tuple[str, str, str], sentence: str
) -> None:
    file, old, new = change
    path = tmp_path / file
    path.write_text(path.read_text().replace(old, new, 1))
    status, said = command("train-table", "tree", *files, "--root", tmp_path / "root")
    assert status == 1
    assert said.startswith("Error: ")
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "root" / "models").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("tree",), "name a table with --table, or give one with --csv and --schema"),
        (("tree", "--table", "none"), "no table 'none'; there is affairs601"),
        (("tree", "--table", "diabetes"), "is numeric: a classification tree needs classes"),
        (("tree", "--table", "steak"), "set MIRAGE_STEAK_CSV"),
        (("linear_regression", "--table", "affairs601"), "has classes: a linear regression needs numbers"),
    ],
)
def test_wrong_words(command: Command, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    status, said = command("train-table", *words, "--root", tmp_path / "root")
    assert status in (1, 2)
    assert sentence in said
    assert "Traceback" not in said
    assert not (tmp_path / "root" / "models").exists()
