"""Advice on a small model of digits through the real processes, run twice; and what is refused before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from oracle_server.models.importing import Draft, host
from oracle_server.models.repository import Repository
from oracle_server.operator import open_operator
from oracle_server.victims.digits import digits
from oracle_server.victims.recipes import Recipe
from oracle_server.victims.training import train_victim
from protos.mirage.v1 import admin_pb2
from referee.advise import advise
from referee.advise_offers import OFFERS
from referee.cell import find
from referee.cli_advise import advise_command

CLASSES, OF_EACH, ROWS = 5, 30, 40


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a server's root that hosts `mine`, private photos of five digits, and others as public images."""
    folder = tmp_path_factory.mktemp("owner")
    images = digits()
    private = [500 * digit + number for digit in range(CLASSES) for number in range(OF_EACH)]
    public = [500 * digit + number for digit in range(5, 10) for number in range(20)]
    recipe = Recipe(epochs=30, batch_size=25, learning_rate=0.01)
    trained = train_victim("softmax_regression", images, private, range(CLASSES), recipe=recipe)
    host(trained.module, Repository(folder / "root"), Draft("mine", "1", (1, 32, 32), deterministic=True))
    for name, rows in (("private", private), ("public", public)):
        (folder / name).mkdir()
        np.save(folder / name / "images.npy", images.images[rows])
    np.save(folder / "private/labels.npy", images.labels[private])
    return folder


def call(owner: Path, out: Path, **changes: object):
    given = {"private": owner / "private", "public": owner / "public", "root": owner / "root", "out": out}
    return advise("mine", **(given | {"rows": ROWS, "mirror": False, "command": "", "device": "cpu"} | changes))  # type: ignore[arg-type]


@pytest.mark.slow
def test_advice_on_a_hosted_model_and_the_same_again(owner, tmp_path, monkeypatch):
    monkeypatch.setattr("referee.advise.OFFERS", (OFFERS[0], OFFERS[2]))  # a process for each cell takes its time
    before, said = sorted(path.relative_to(owner) for path in owner.rglob("*")), []
    _, campaign = call(owner, tmp_path / "out", private_images=False, say=said.append, jobs=2)
    assert sum(line.startswith("cell ") for line in said) == 4
    assert any("of held-out photos among 5 classes; chance is 0.200" in line for line in said)
    assert sorted(path.relative_to(owner) for path in owner.rglob("*")) == before  # the owner's root stays as it is

    cells = {path.name: find(path) for path in (tmp_path / "out/referee/cells").iterdir()}
    assert len(cells) == 4
    for cell in cells.values():
        assert cell is not None
        assert cell.status == "done", cell.sentence
        assert cell.counts_equal
        assert 0 < cell.rows_ledger <= ROWS * CLASSES
    with open_operator(tmp_path / "out/victim") as operator:
        keys = operator.list_keys(admin_pb2.ListKeysRequest()).keys
    assert len(keys) == len(cells)
    assert all(key.HasField("revoked") for key in keys)
    assert {key.label: key.usage.spent for key in keys} == {cell.name: cell.rows_ledger for cell in cells.values()}

    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["said"].keys() == {"take", "caution", "full", "label"}
    assert campaign.first[0].paragraphs[0] == summary["said"]["take"]
    figures = {figure["name"]: figure["value"] for figure in summary["figures"]}
    assert figures["advise/chance"] == 1 / CLASSES
    assert figures["advise/evaluation_accuracy"] > 0.6
    assert f"advise/full/{ROWS}/recognised" in figures
    page = (tmp_path / "out/report.html").read_text()
    assert "data:image" not in page
    assert page.index("Which contract to take") < page.index("Contracts and methods")

    again: list[str] = []
    call(owner, tmp_path / "out", say=again.append)
    assert not any("cell" in line or "server" in line for line in again)
    assert "data:image" in (tmp_path / "out/report.html").read_text()
    assert json.loads((tmp_path / "out/summary.json").read_text()) == summary


def test_refusals_come_before_anything_is_written(owner, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(LookupError, match="no model 'yours' here; there is mine/1"):
        advise("yours", **{name: owner / name for name in ("private", "public", "root")}, out=out, command="")
    with pytest.raises(ValueError, match="are private photos"):
        call(owner, out, public=owner / "private")
    with pytest.raises(ValueError, match="must be at least 16"):
        call(owner, out, rows=3)
    with pytest.raises(ValueError, match=r"lies in .*private, which no attacker may open"):
        call(owner, owner / "private" / "out")
    assert not out.exists()
    assert not (owner / "private" / "out").exists()


def spoiled(owner: Path, folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    folder.mkdir()
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    return folder


def test_no_advice_where_the_evaluation_network_cannot_tell_the_classes_apart(owner, tmp_path):
    noise = np.random.default_rng(0).random((CLASSES * 4, 1, 32, 32), np.float32)
    private = spoiled(owner, tmp_path / "noise", noise, np.repeat(np.arange(CLASSES), 4))
    with pytest.raises(ValueError, match=r"no advice: the evaluation network recognises only .* more photos"):
        call(owner, tmp_path / "out", private=private)
    assert not (tmp_path / "out").exists()


def test_no_advice_where_the_classes_are_not_the_models_outputs(owner, tmp_path):
    images, labels = (np.load(owner / "private" / name) for name in ("images.npy", "labels.npy"))
    private = spoiled(owner, tmp_path / "turned", images, (labels + 1) % CLASSES)
    with pytest.raises(ValueError, match=r"mine/1 itself recognises only .* class i is the model's output i"):
        call(owner, tmp_path / "out", private=private)


def test_a_folder_with_something_else_is_left_alone(owner, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        call(owner, tmp_path)
    (tmp_path / "out/referee").mkdir(parents=True)
    (tmp_path / "out/referee/advise.json").write_text(json.dumps({"model": "other/1"}))
    with pytest.raises(ValueError, match="advice on another model"):
        call(owner, tmp_path / "out")


def test_the_command_ends_with_a_sentence(owner, tmp_path):
    words = ["yours", "--out", str(tmp_path / "out")]
    words += [word for name in ("private", "public", "root") for word in (f"--{name}", str(owner / name))]
    ended = CliRunner().invoke(advise_command, words)
    assert ended.exit_code == 1
    assert "Error: no model 'yours' here; there is mine/1" in ended.output
    assert "Example: referee advise" in CliRunner().invoke(advise_command, ["--help"]).output
