"""The split of chest X-rays keeps patients whole, and its public part is published under the data set's terms."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from oracle_server.cli import main
from oracle_server.victims import chest_xray
from oracle_server.victims.chest_xray import CREDIT, FINDINGS, TERMS
from oracle_server.victims.data import DATA, DATA_ROOT_VARIABLE
from oracle_server.victims.images import ImagesUnavailableError
from oracle_server.victims.patient_splits import finding_split, patient_split
from oracle_server.victims.publish import private_images_in
from oracle_server.victims.splits import SPLIT_NAMES, Split, load, split_named
from tests.oracle_server.victims.chest_miniature import PRIVATE, PUBLIC, miniature, rows

NAME = "chestxray14-findings"
SINGLE = [row for row in rows() if row.found in FINDINGS]
FOUND = np.array([FINDINGS.index(row.found) for row in SINGLE])
PATIENTS = np.array([row.patient for row in SINGLE])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniature(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def _named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(root))


def mixed(split: Split, patients: NDArray[np.int64]) -> list[tuple[str, str]]:
    """Pairs of parts that share a patient and must not; `private` are all images of private findings."""

    def who(split_rows: tuple[int, ...] | list[int]) -> set[int]:
        return set(patients[list(split_rows)].tolist())

    lists = {
        "target": who(split.target),
        "first": who(split.evaluations[0]),
        "second": who(split.evaluations[1]),
        "evaluation_test": who(split.evaluation_test),
        "published": who(split.published),
        "private": who(np.flatnonzero(np.isin(FOUND, split.private)).tolist()),
    }
    apart = [*itertools.combinations(("target", "first", "second", "evaluation_test"), 2)]
    apart += [("private", "published"), ("evaluation_test", "published")]
    return [(left, right) for left, right in apart if lists[left] & lists[right]]


def test_the_findings_with_most_images_are_private() -> None:
    split = split_named(NAME)
    assert (split.private, split.public, split.data) == (PRIVATE, PUBLIC, "chestxray14")
    assert f"{NAME}[-s<seed>]" in SPLIT_NAMES
    everything = np.bincount(FOUND)
    assert min(everything[list(PRIVATE)]) > max(everything[list(PUBLIC)])
    beside = [sum(name in row.found.split("|") for row in rows()) for name in FINDINGS]
    assert min(beside[finding] for finding in PUBLIC) > min(beside[finding] for finding in PRIVATE)  # it counts alone


@pytest.mark.parametrize("seed", range(20))
def test_patients_are_whole(seed: int) -> None:
    split = finding_split(NAME, FOUND, PATIENTS, seed)
    assert mixed(split, PATIENTS) == []
    assert set(split.test) <= set(split.evaluation_test)
    assert set(FOUND[list(split.target)]) == set(FOUND[list(split.test)]) == set(PRIVATE)
    assert set(FOUND[list(split.published)]) == set(PUBLIC)
    for seen in (*split.evaluations, split.evaluation_test):
        assert set(FOUND[list(seen)]) == {*PRIVATE, *PUBLIC}


def test_row_by_row_they_would_be_mixed() -> None:
    """The control: the same rule for rows, each as a patient of its own."""
    split = finding_split(NAME, FOUND, np.arange(len(FOUND)), 0)
    assert {("target", "evaluation_test"), ("target", "first"), ("private", "published")} <= set(mixed(split, PATIENTS))


def test_shares_are_of_patients() -> None:
    """500 patients for each of fourteen findings with two images each, so that every share is exact."""
    patients = np.repeat(np.arange(7000), 2)
    findings = patients % 14
    split = finding_split(NAME, findings, patients, 3)
    private = split.private
    assert (private, split.public) == (tuple(range(8)), tuple(range(8, 14)))  # ties go to the first
    assert [len(split.target), len(split.test)] == [8 * 500, 8 * 100]
    assert [len(seen) for seen in (*split.evaluations, split.evaluation_test)] == [14 * 200, 14 * 200, 14 * 100]
    assert len(split.published) == 6 * 900


def test_rows_follow_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_named(NAME)
    assert split.sha256() == split_named(f"{NAME}-s0").sha256() == finding_split("other", FOUND, PATIENTS, 0).sha256()
    other = split_named(f"{NAME}-s1")
    assert (other.private, other.public) == (split.private, split.public)
    assert set(other.target) != set(split.target)
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(miniature(tmp_path, "Data_Entry_2017_v2020.csv", folders=0)))
    assert split_named(NAME).sha256() == split.sha256()  # wherever the files lie


def test_splitting_opens_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in chest_xray.entries(miniature(tmp_path)):
        entry.path.write_bytes(b"")
    expected = split_named(NAME).sha256()
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path))
    assert split_named(NAME).sha256() == expected
    with pytest.raises(ImagesUnavailableError, match="cannot read the photo"):
        load(split_named(NAME))


@pytest.mark.parametrize(
    "name", ["chestxray14", "chestxray14-findings-k3", "chestxray14-same", "chestxray14-findings-s"]
)
def test_names_outside_the_grammar_are_refused(name: str) -> None:
    assert patient_split(name) is None
    with pytest.raises(ValueError, match=f"unknown split '{name}': choose one of"):
        split_named(name)


def test_too_few_findings_or_patients_are_refused() -> None:
    with pytest.raises(ValueError, match="the images show 8 findings: it needs 8 private ones and one to publish"):
        finding_split(NAME, FOUND[np.isin(FOUND, PRIVATE)], PATIENTS[np.isin(FOUND, PRIVATE)], 0)
    few = (FOUND != 13) | np.isin(PATIENTS, PATIENTS[FOUND == 13][:2])
    with pytest.raises(ValueError, match=r"no image of Hernia is left for .*: it needs more patients"):
        finding_split(NAME, FOUND[few], PATIENTS[few], 0)
    one = np.where(FOUND == 13, 999, PATIENTS)  # images there are, but of one patient
    with pytest.raises(ValueError, match="no image of Hernia is left for"):
        finding_split(NAME, FOUND, one, 0)


def test_the_command_publishes_only_under_the_terms(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "public"
    command = ["publish", NAME, "--data-root", str(root), "--out", str(out)]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1
    assert "the data set chestxray14 has terms of use (Cite the CVPR 2017 paper" in refused.output
    assert "--accept-terms" in refused.output
    assert not out.exists()
    published = CliRunner().invoke(main, [*command, "--accept-terms"])
    assert (published.exit_code, published.output) == (0, f"published {NAME} to {out}\n")
    split, images = split_named(NAME), np.load(out / "images.npy", allow_pickle=False)
    assert images.shape == (len(split.published), 1, 64, 64)
    assert set((images.mean((1, 2, 3)) * 255 // 10).astype(int).tolist()) == set(PUBLIC)  # by their grey
    assert private_images_in(out, split, DATA["chestxray14"]()) == []
    card = json.loads((out / "card.json").read_text())
    assert (card["split"], card["data"], card["terms_accepted"]) == (NAME, "chestxray14", True)
    assert (card["credit"], card["terms"]) == (CREDIT, TERMS)


def test_the_command_says_where_the_data_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = str(tmp_path / "public")
    monkeypatch.setenv(DATA_ROOT_VARIABLE, "")
    said = CliRunner().invoke(main, ["publish", NAME, "--out", out])
    assert (said.exit_code, f"set {DATA_ROOT_VARIABLE} (or --data-root)" in said.output) == (1, True)
    said = CliRunner().invoke(main, ["publish", NAME, "--out", out, "--data-root", str(tmp_path)])
    assert (said.exit_code, "ChestX-ray14 is missing: put" in said.output) == (1, True)
