"""`attacker prior` as it is typed: train, show, import, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch
from click.testing import CliRunner
from torch import nn

from attacker.cli import main
from attacker.priors.prior import load_prior, sha256_of_prior
from referee import fence
from tests.attacker.prior_cases import SHAPE, bars
from tests.serving import Forker, Process

TINY = ["--set", "width=2", "--set", "latent=3", "--set", "components=2", "--quiet"]


@pytest.fixture
def public(tmp_path: Path) -> Path:
    folder = tmp_path / "public"
    folder.mkdir()
    np.save(folder / "images.npy", bars())
    return folder


def says(*words: object) -> str:
    done = CliRunner().invoke(main, ["prior", *map(str, words)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


def refuses(*words: object) -> str:
    done = CliRunner().invoke(main, ["prior", *map(str, words)], env={"COLUMNS": "200"})
    assert done.exit_code == 1, done.output
    sentence = done.output.strip()  # a progress bar leaves an empty line
    assert sentence.startswith("Error: ")
    assert "\n" not in sentence
    return sentence


def test_train_then_show(public: Path, tmp_path: Path) -> None:
    out = tmp_path / "priors" / "vae"
    said = says("train", "vae", "--public", public, "--out", out, "--set", "steps=5", *TINY)
    assert "3 numbers, 2 Gaussian(s)" in said
    sheet = (out / "samples.png").read_bytes()
    (out / "samples.png").unlink()
    assert says("show", out) == said
    assert sha256_of_prior(out) in said
    assert str(out / "samples.png") in said.replace("│\n│", "")
    assert (out / "samples.png").read_bytes() == sheet
    assert "seed" in said
    assert "dcgan" in says("kinds")


def test_a_training_that_is_stopped_or_killed_goes_on(public: Path, tmp_path: Path, forker: Forker) -> None:
    words = ["prior", "train", "vae", "--public", public, "--set", "steps=200", *TINY]

    def start(out: Path) -> Process:
        return forker.start("attacker", [*words, "--out", out], log=tmp_path / "log", folder=tmp_path, environment={})

    def wait_for(change: float, process: Process) -> float:
        """Until a checkpoint newer than `change` is there; when it was written."""
        state = tmp_path / "stopped" / "training.pt"
        while process.poll() is None:
            if state.exists() and state.stat().st_mtime_ns > change:
                break
            time.sleep(0.01)
        return float(state.stat().st_mtime_ns)

    assert start(tmp_path / "whole").wait() == 0
    stopped = tmp_path / "stopped"
    process = start(stopped)
    first = wait_for(0, process)
    process.kill(signal.SIGINT)
    assert process.wait() == 1
    assert f"Error: stopped; the same command resumes the training in {stopped}" in process.log
    process = start(stopped)
    wait_for(first, process)
    process.kill(signal.SIGKILL)
    process.wait()
    assert not (stopped / "card.json").exists()
    assert start(stopped).wait() == 0
    assert sha256_of_prior(stopped) == sha256_of_prior(tmp_path / "whole")
    assert len(json.loads((stopped / "training.json").read_text())["seconds"]) == 4


def test_what_cannot_be_trained_is_one_sentence(public: Path, tmp_path: Path) -> None:
    out = tmp_path / "prior"
    assert "there is pca, vae, dcgan, style" in refuses("train", "flow", "--public", public, "--out", out)
    assert "vae has the parameters latent" in refuses(
        "train", "vae", "--public", public, "--out", out, "--set", "depth=3"
    )
    assert "holds no images.npy" in refuses("train", "pca", "--public", tmp_path, "--out", out)
    assert "holds no image prior" in refuses("show", public)
    says("train", "pca", "--public", public, "--out", out, "--quiet")
    assert "holds another prior (pca): choose another --out" in refuses(
        "train", "pca", "--public", public, "--out", out, "--seed", 1
    )


def test_behind_the_fence(public: Path, tmp_path: Path) -> None:
    """A vae fits its codes with scikit-learn, which carries data sets and may count cores with a process of its own."""
    data = Path(sklearn.__file__).parent / "datasets" / "data"
    words = ["prior", "train", "vae", "--public", public, "--out", tmp_path / "prior", "--set", "steps=2", *TINY]
    done = subprocess.run(
        [sys.executable, fence.__file__, data, "--", "attacker", *words],
        capture_output=True,
        env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "prior" / "card.json").exists()


class Theirs(nn.Module):
    """A user's generator (N, 3) -> (N, 1, 17, 16) between -1 and 1."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.dense, self.scale = nn.Linear(3, 17 * 16), scale

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.scale * self.dense(z).unflatten(1, SHAPE).tanh()


def export(module: nn.Module, path: Path, *shape: int, free: bool = True) -> Path:
    batch = ({0: torch.export.Dim("batch", min=1)},) if free else None
    torch.export.save(torch.export.export(module, (torch.zeros(2, *shape),), dynamic_shapes=batch), path)
    return path


def test_a_generator_of_ones_own(public: Path, tmp_path: Path) -> None:
    theirs = Theirs()
    back = nn.Sequential(nn.Flatten(), nn.Linear(17 * 16, 3))
    file, encoder = export(theirs, tmp_path / "g.pt2", 3), export(back, tmp_path / "e.pt2", *SHAPE)
    out = tmp_path / "prior"
    words = ("import", file, "--out", out, "--low", -1, "--encoder", encoder, "--public", public)
    said = says(*words)
    assert "(1, 17, 16) from -1 to 1" in said
    prior = load_prior(out)
    z, x = torch.randn(5, 3), bars(5)
    torch.testing.assert_close(prior.decode(z), theirs(z))
    torch.testing.assert_close(prior.encode(x), back(torch.from_numpy(x)))
    assert len(prior.card.public_sha256) == 64
    assert {"card.json", "samples.png"} < {path.name for path in out.iterdir()}
    assert says(*words) == said  # the same again is left as it is
    other = export(Theirs(), tmp_path / "other.pt2", 3)
    assert "holds another prior (imported)" in refuses("import", other, "--out", out, "--low", -1)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".import")]


def test_a_generator_that_is_none_is_one_sentence(public: Path, tmp_path: Path) -> None:
    out, good = tmp_path / "prior", export(Theirs(), tmp_path / "g.pt2", 3)
    assert "makes pixels from -" in refuses("import", good, "--out", out)  # between 0 and 1 is the default
    assert "--low 1 must be below --high 1" in refuses("import", good, "--out", out, "--low", 1)
    infinite = export(Theirs(float("inf")), tmp_path / "inf.pt2", 3)
    assert "not finite" in refuses("import", infinite, "--out", out)
    fixed = export(Theirs(), tmp_path / "fixed.pt2", 3, free=False)
    assert "a prior maps float32 codes (N, m), N free" in refuses("import", fixed, "--out", out, "--low", -1)
    classifier = export(nn.Linear(3, 2), tmp_path / "c.pt2", 3)
    assert "a prior maps float32 codes (N, m)" in refuses("import", classifier, "--out", out)
    assert "the encoder of this generator maps images (1, 17, 16) to codes (3,)" in refuses(
        "import", good, "--out", out, "--low", -1, "--encoder", good
    )
    (tmp_path / "text.pt2").write_text("no archive")
    assert "text.pt2" in refuses("import", tmp_path / "text.pt2", "--out", out)
    np.save(public / "images.npy", np.zeros((3, 1, 8, 8), np.float32))
    assert "the generator makes (1, 17, 16)" in refuses("import", good, "--out", out, "--low", -1, "--public", public)
    assert not out.exists()


def row(said: str, name: str) -> str:
    """What a table says of `name`."""
    found = (line.strip("│").split("│") for line in said.splitlines())
    return next(cells[1].strip() for cells in found if cells[0].strip() == name)


class Layers(nn.Module):
    """A user's synthesis (N, 3, 4) -> (N, 1, 17, 16) between -1 and 1; wide codes for layers of their own leave it."""

    def __init__(self, beyond: float = 0.0) -> None:
        super().__init__()
        self.dense, self.beyond = nn.Linear(12, 17 * 16), beyond

    def forward(self, style: torch.Tensor) -> torch.Tensor:
        apart = (style[:, :1] - style[:, 1:]).abs().sum((1, 2))
        return (self.dense(style.flatten(1)).tanh() + self.beyond * apart[:, None]).unflatten(1, SHAPE)


def test_a_layered_generator_of_ones_own(tmp_path: Path) -> None:
    one, other = nn.Sequential(nn.Linear(3, 4), nn.Tanh()), Layers()
    judge = nn.Sequential(nn.Flatten(), nn.Linear(17 * 16, 1))
    mapping, synthesis = export(one, tmp_path / "m.pt2", 3), export(other, tmp_path / "s.pt2", 3, 4)
    critic, out = export(judge, tmp_path / "c.pt2", *SHAPE), tmp_path / "prior"
    words = ("import", "--mapping", mapping, "--synthesis", synthesis, "--out", out, "--low", -1, "--critic", critic)
    said = says(*words)
    rows = [row(said, name) for name in ("layers", "encoder", "critic")]
    assert rows == ["3, each takes a code of its own", "no", "yes"]
    prior = load_prior(out)
    z, x = torch.randn(5, 3, 3), torch.from_numpy(bars(5))
    assert (prior.layers, prior.card.latent) == (3, 3)
    torch.testing.assert_close(prior.decode(z), other(one(z)))
    torch.testing.assert_close(prior.decode(z[:, 0]), other(one(z[:, :1]).expand(-1, 3, -1)))
    assert prior.critic is not None
    torch.testing.assert_close(prior.critic(x), judge(x))
    assert says(*words) == said
    assert says("show", out) == said
    assert "holds another prior (imported)" in refuses(*words[:-2])  # without the critic it is another


def test_a_critic_comes_with_a_plain_generator_too(tmp_path: Path) -> None:
    good = export(Theirs(), tmp_path / "g.pt2", 3)
    judge = export(nn.Sequential(nn.Flatten(), nn.Linear(17 * 16, 1)), tmp_path / "c.pt2", *SHAPE)
    words = ("import", good, "--low", -1, "--out", tmp_path / "prior")
    endless = nn.Linear(17 * 16, 1)
    nn.init.constant_(endless.bias, float("inf"))
    file = export(nn.Sequential(nn.Flatten(), endless), tmp_path / "endless.pt2", *SHAPE)
    assert "endless.pt2 says numbers that are not finite" in refuses(*words, "--critic", file)
    assert "the critic of this generator maps images (1, 17, 16) to one number each" in refuses(
        *words, "--critic", good
    )
    said = says(*words, "--critic", judge)
    assert (row(said, "layers"), row(said, "critic")) == ("1", "yes")
    assert load_prior(tmp_path / "prior").critic is not None


def test_parts_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    good = export(Theirs(), tmp_path / "g.pt2", 3)
    mapping, synthesis = export(nn.Linear(3, 4), tmp_path / "m.pt2", 3), export(Layers(), tmp_path / "s.pt2", 3, 4)
    end = ("--low", -1, "--out", tmp_path / "prior")
    one_form = "a generator is one FILE, or --mapping and --synthesis: name one of the two forms"
    assert one_form in refuses("import", good, "--mapping", mapping, *end)
    assert one_form in refuses("import", good, "--mapping", mapping, "--synthesis", synthesis, *end)
    assert "name the generator" in refuses("import", *end)
    assert "needs --synthesis, too" in refuses("import", "--mapping", mapping, *end)
    assert "needs --mapping, too" in refuses("import", "--synthesis", synthesis, *end)

    def both(one: Path, other: Path) -> str:
        return refuses("import", "--mapping", one, "--synthesis", other, *end)

    narrow = export(nn.Linear(3, 2), tmp_path / "n.pt2", 3)
    assert "n.pt2 gives styles of 2 numbers" in both(narrow, synthesis)
    assert "m.pt2 maps float32 (None, 3) to (None, 4): a synthesis takes" in both(mapping, mapping)
    assert "a mapping takes float32 codes (N, m), N free, to styles (N, d)" in both(synthesis, synthesis)
    fixed = export(Layers(), tmp_path / "fixed.pt2", 3, 4, free=False)
    assert "a synthesis takes float32 styles (N, L, d), N free" in both(mapping, fixed)
    single = nn.Sequential(nn.Flatten(), nn.Linear(4, 17 * 16), nn.Unflatten(1, SHAPE), nn.Tanh())
    assert "takes L=1 style" in both(mapping, export(single, tmp_path / "single.pt2", 1, 4))
    beyond = export(Layers(1.0), tmp_path / "beyond.pt2", 3, 4)  # only where layers have codes of their own
    assert "beyond.pt2 makes pixels from" in both(mapping, beyond)
    assert not (tmp_path / "prior").exists()


def test_a_run_is_handed_its_prior(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["run", "numeric", "--prior", str(tmp_path), "--out", str(tmp_path / "run")], env={"MIRAGE_KEY": "k"}
    )
    assert done.exit_code == 1
    assert "numeric uses no image prior: leave --prior out" in done.output
