"""An inversion network by hand, command by command: a user asks, an attacker inverts the answers, both compare."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from attacker.cli import main as attacker
from attacker.released import read_answers
from referee.cli import main as referee
from tests.attacker.conftest import Make
from tests.serving import Server, inputs

TRAIN = ("inversion_network", "--set", "epochs=2", "--set", "width=2", "--set", "batch_size=16")


@pytest.fixture
def public(tmp_path: Path) -> Path:
    (tmp_path / "public").mkdir()
    np.save(tmp_path / "public" / "images.npy", inputs(40, seed=1))
    return tmp_path / "public"


def ask(server: Server, key: str, tmp_path: Path, photos: np.ndarray) -> tuple[int, str]:
    np.save(tmp_path / "photos.npy", photos)
    words = ["ask", str(tmp_path / "photos.npy"), "--address", server.address, "--out", str(tmp_path / "asked")]
    done = CliRunner().invoke(attacker, words, env={"MIRAGE_KEY": key})
    return done.exit_code, done.output


def test_answers_of_one_key_are_inverted_with_another(
    server: Server, attack: Make, public: Path, tmp_path: Path
) -> None:
    user = server.new_key(top_k=2, budget=10)
    for _ in range(2):  # the second time out of the journal
        status, said = ask(server, user.key, tmp_path, inputs(5))
        assert status == 0, said
        assert user.usage().spent == 5
    answers = read_answers(tmp_path / "asked" / "answers.npz")
    assert np.isfinite(answers).sum(1).tolist() == [2] * 5
    run = attack(*TRAIN, "--public", str(public), "--given", str(tmp_path / "asked" / "answers.npz"), top_k=2)
    status, said = run.finish()
    assert status == 0, said
    told = json.loads((run.out / "run.json").read_text())
    assert (told["rows"], run.caller.usage().spent) == (40, 40)
    compared = CliRunner().invoke(referee, ["compare", str(run.out), "--photos", str(tmp_path / "photos.npy")])
    assert compared.exit_code == 0, compared.output
    assert "PSNR" in compared.output
    for wrong, sentence in (("asked/answers.npz", "holds no photos (N, C, H, W)"), ("one.npy", "holds 1 photos")):
        np.save(tmp_path / "one.npy", inputs(1))
        compared = CliRunner().invoke(referee, ["compare", str(run.out), "--photos", str(tmp_path / wrong)])
        assert compared.exit_code == 1
        assert sentence in compared.output
    words = ["invert", str(run.out / "inversion_network.pt"), "--given", str(tmp_path / "asked" / "answers.npz")]
    assert CliRunner().invoke(attacker, [*words, "--out", str(tmp_path / "again.npz")]).exit_code == 0
    with np.load(tmp_path / "again.npz") as again, np.load(run.out / "reconstructions.npz") as first:
        np.testing.assert_allclose(again["images"], first["images"][-1], atol=1e-6)


def test_asking_costs_nothing_when_it_is_refused(server: Server, tmp_path: Path) -> None:
    user = server.new_key(budget=3)
    for photos, sentence in (
        (inputs(4), "budget"),
        (inputs(2)[:, :, 1:], "resize them"),
        (inputs(2) + 2, "scale them"),
    ):
        status, said = ask(server, user.key, tmp_path, photos)
        assert status == 1, said
        assert sentence in said
        assert len(said.strip().splitlines()) == 1
    assert user.usage().spent == 0
    status, said = ask(server, "", tmp_path, inputs(2))
    assert (status, said.strip()) == (1, "Error: no API key: put it into the environment as MIRAGE_KEY")


def test_a_buyer_compares_runs_as_they_are_written(attack: Make, public: Path) -> None:
    """The same model three times is no comparison, and the sentence comes from files that real runs wrote."""
    runs = [attack(*TRAIN, "--public", str(public), name=name) for name in ("suspect", "a")]
    for run in runs:
        status, said = run.finish()
        assert status == 0, said
    words = ["inspect", str(runs[0].out), *(word for _ in range(3) for word in ("--ordinary", str(runs[1].out)))]
    done = CliRunner().invoke(referee, words)
    assert done.exit_code == 1
    assert "are runs on the same model, linear/1" in done.output


def test_a_folder_without_images_is_named(attack: Make, tmp_path: Path) -> None:
    run = attack(*TRAIN, "--public", str(tmp_path))
    status, said = run.finish()
    assert status == 1
    assert f"{tmp_path} holds no images.npy" in said
    assert run.caller.usage().spent == 0
