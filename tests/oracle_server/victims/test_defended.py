"""Defences in the one training loop: none is the baseline, each changes the model, and each model can be hosted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from defenses.training import TRAINING, Named, training_defence
from defenses.training.label_smoothing import LabelSmoothing
from oracle_server import cli_models
from oracle_server.models.repository import Repository
from oracle_server.victims import hosting
from oracle_server.victims.cache import key_of
from oracle_server.victims.defended import defence_of, epsilon_of, planned_epsilon
from oracle_server.victims.images import ImageSet
from oracle_server.victims.recipes import RECIPES
from oracle_server.victims.split import HANDED_OVER, Split
from oracle_server.victims.split_models import train_target
from oracle_server.victims.splits import rows_sha256
from oracle_server.victims.trained import Trained
from oracle_server.victims.training import CrossEntropy, train_victim
from protos import archive

STEPS = 4
OFF: dict[str, dict[str, float]] = {
    "none": {},
    "mid": {"beta": 0},
    "bido": {"lambda_x": 0, "lambda_y": 0},
    "label_smoothing": {"alpha": 0},
    "transfer": {"frozen": 0},
    "dp_sgd": {"noise": 0},
}
ON: dict[str, dict[str, float]] = {
    "mid": {"beta": 0.1, "width": 8},
    "bido": {"lambda_x": 0.5, "lambda_y": 0.5},
    "label_smoothing": {"alpha": -0.3},
    "transfer": {"frozen": 1},
    "dp_sgd": {"noise": 0.5, "delta": 0.01},
}
_OTHERS = (
    [(name, "cnn") for name in ON] + [(name, "conv_classifier") for name in ON] + [("mid", "mlp"), ("bido", "mlp")]
)
_HOSTED = [(name, "cnn") for name in ON] + [("mid", "conv_classifier"), ("mid", "mlp"), ("dp_sgd", "conv_classifier")]


def faces_of(people: int, each: int, side: int = 16) -> ImageSet:
    draws = np.random.default_rng(0)
    centres = draws.random((people, 1, 1, side, side), dtype=np.float32)
    images = 0.7 * centres + 0.3 * draws.random((people, each, 1, side, side), dtype=np.float32)
    return ImageSet(images.reshape(-1, 1, side, side), np.repeat(np.arange(people), each), "made", credit="made")


FACES = faces_of(6, 10)
ROWS = np.arange(60).reshape(6, 10)
SPLIT = Split(
    name="made",
    data=HANDED_OVER,
    private=(0, 1, 2),
    public=(3, 4, 5),
    target=tuple(ROWS[:3, :8].ravel().tolist()),
    test=tuple(ROWS[:3, 8:].ravel().tolist()),
    evaluations=(tuple(ROWS[:, :8].ravel().tolist()),),
    evaluation_test=tuple(ROWS[:, 8:].ravel().tolist()),
    published=tuple(ROWS[3:, :9].ravel().tolist()),
)


def named(name: str, parameters: dict[str, float]) -> Named:
    return name, tuple(sorted((key, float(value)) for key, value in parameters.items()))


def trained(cache: Path, defence: Named | None, architecture: str = "cnn", **changes: Any) -> Trained:
    return train_target(SPLIT, architecture, faces=FACES, defence=defence, max_steps=STEPS, cache=cache, **changes)


def weights(model: Trained) -> dict[str, torch.Tensor]:
    return model.module.state_dict()


def same(left: Trained, right: Trained) -> bool:
    ours, theirs = weights(left), weights(right)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_defence_has_a_strength_none_and_one_above() -> None:
    assert set(OFF) == set(TRAINING)
    assert set(ON) == set(TRAINING) - {"none"}


@pytest.mark.parametrize("name", TRAINING)
def test_strength_none_is_the_baseline(tmp_path: Path, name: str) -> None:
    baseline = trained(tmp_path / "a", None)
    model = trained(tmp_path / "b", named(name, OFF[name]))  # a cache of its own: it is trained, not found
    assert not model.cached
    assert model.key == baseline.key
    assert same(model, baseline)
    assert [entry.name for entry in model.folder.parent.iterdir()] == [model.key]  # and nothing was trained besides
    assert "defence" not in model.card


def test_the_key_of_an_undefended_model_is_made_of_these_and_of_nothing_else(tmp_path: Path) -> None:
    """Models in the caches of finished campaigns are found by it: a field more and all of them are trained again."""
    recipe = dataclasses.replace(RECIPES["cnn"], max_steps=STEPS)
    made_by = {
        "architecture": "cnn",
        "classes": 3,
        "code_version": 1,
        "data": "made",
        "data_sha256": FACES.sha256(),
        "device": "cpu",
        "input_shape": [1, 16, 16],
        "loss": "CrossEntropy(label_smoothing=0.0)",
        "people": [0, 1, 2],
        "recipe": dataclasses.asdict(recipe),
        "rows_sha256": rows_sha256(SPLIT.target),
        "seed": 0,
        "torch": torch.__version__,
    }
    assert trained(tmp_path, None).key == key_of(made_by)
    defended = trained(tmp_path, named("mid", ON["mid"]))
    assert defended.key == key_of(made_by | {"defence": "Mid(beta=0.1, width=8)"})
    assert defended.card["defended_by"] == "Mid(beta=0.1, width=8)"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ON)
def test_defended_models_are_trained_on_cuda(tmp_path: Path, name: str) -> None:
    model = trained(tmp_path, named(name, ON[name]), device="cuda")
    assert next(model.module.parameters()).is_cuda
    assert np.isfinite(model.card["training_loss"])
    assert not same(model, trained(tmp_path, None, device="cuda"))


@pytest.mark.parametrize(("name", "architecture"), _OTHERS)
def test_a_strength_above_changes_the_model(tmp_path: Path, name: str, architecture: str) -> None:
    defence = named(name, ON[name])
    model = trained(tmp_path, defence, architecture)
    baseline = trained(tmp_path, None, architecture)
    assert model.key != baseline.key
    assert not same(model, baseline)
    again = trained(tmp_path / "again", defence, architecture)
    assert same(model, again)
    assert again.key == model.key
    found = trained(tmp_path, defence, architecture)
    assert found.cached
    assert same(found, model)


@pytest.mark.parametrize(("name", "stronger"), [(n, p) for n, (p, *_) in ((n, list(v)) for n, v in ON.items())])
def test_the_strength_matters(tmp_path: Path, name: str, stronger: str) -> None:
    one, two = ON[name], ON[name] | {stronger: 2 * ON[name][stronger]}
    assert not same(trained(tmp_path, named(name, one)), trained(tmp_path, named(name, two)))


@pytest.mark.parametrize(("name", "architecture"), _HOSTED)
def test_a_defended_model_can_be_hosted(
    tmp_path: Path, name: str, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Import checks: one answer to one input, any batch size, rows apart, a gradient with respect to the input."""
    monkeypatch.setenv("MIRAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hosting, "split_named", lambda _: SPLIT)
    monkeypatch.setattr(hosting, "load", lambda _: FACES)
    defence, repository = named(name, ON[name]), Repository(tmp_path)
    card = hosting.train_and_host(architecture, "made", repository, name="m", max_steps=STEPS, defence=defence)
    model = trained(tmp_path / "cache", defence, architecture)
    assert model.cached
    x = torch.tensor(FACES.images[:5])
    with torch.no_grad():
        assert torch.allclose(archive.load(repository.archive(card))(x), model.module(x), atol=1e-5)
    assert f"trained with defence {name} " in card.description
    about = defence_of(repository, "m")
    assert about is not None
    assert about["name"] == name
    assert ON[name].items() <= about["parameters"].items()
    if name == "dp_sgd":
        assert about["epsilon"] == epsilon_of(model)
        assert f"epsilon {about['epsilon']:.4g}" in card.description
    assert about.get("start_rows") == (list(SPLIT.published) if name == "transfer" else None)


def test_an_undefended_model_says_nothing_of_defences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hosting, "split_named", lambda _: SPLIT)
    monkeypatch.setattr(hosting, "load", lambda _: FACES)
    card = hosting.train_and_host("cnn", "made", Repository(tmp_path), name="m", max_steps=STEPS)
    assert "defence" not in card.description
    assert defence_of(Repository(tmp_path), "m") is None


def test_the_loop_uses_the_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule that is defined and never passed would train with hard labels to the end."""
    seen: list[tuple[float, float]] = []
    loss = LabelSmoothing.loss

    def recorded(self: LabelSmoothing, module: Any, inputs: Any, labels: Any, progress: float) -> Any:
        seen.append((progress, self.share(progress)))
        return loss(self, module, inputs, labels, progress)

    hard = trained(tmp_path, None)
    monkeypatch.setattr(LabelSmoothing, "loss", recorded)
    soft = trained(tmp_path, named("label_smoothing", {"alpha": -0.3}))
    assert [progress for progress, _ in seen] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [share for _, share in seen] == pytest.approx([0, 0, 0, -0.3])
    assert not same(hard, soft)
    monkeypatch.setattr(LabelSmoothing, "share", lambda *_: 0.0)  # the control: without its ramp it is the baseline
    assert same(hard, trained(tmp_path / "control", named("label_smoothing", {"alpha": -0.3})))


@pytest.mark.parametrize(
    ("defence", "to_the_end"),
    [(None, False), (("label_smoothing", (("alpha", -0.3),)), True), (("label_smoothing", (("alpha", 0.3),)), False)],
)
def test_patience_does_not_end_a_schedule(tmp_path: Path, defence: Named | None, to_the_end: bool) -> None:
    recipe = dataclasses.replace(RECIPES["softmax_regression"], epochs=30, patience=2, learning_rate=1e-9)
    against = None if defence is None else training_defence(*defence)
    options: dict[str, Any] = {"recipe": recipe, "defence": against, "cache": tmp_path}
    model = train_victim("softmax_regression", FACES, SPLIT.target, SPLIT.private, **options)
    assert (model.card["epochs"] == 30) == to_the_end


def test_frozen_blocks_are_those_of_public_people(tmp_path: Path) -> None:
    model = trained(tmp_path, named("transfer", {"frozen": 2}))
    recipe = dataclasses.replace(RECIPES["cnn"], max_steps=STEPS)
    public = train_victim("cnn", FACES, SPLIT.published, SPLIT.public, recipe=recipe, cache=tmp_path)
    assert public.cached  # the start is an entry of its own, which all strengths share
    ours, theirs = weights(model), weights(public)
    kept = {name for name in ours if torch.equal(ours[name], theirs[name])}
    frozen = {name for name in ours if name.startswith(("features.0.", "features.1."))}
    assert kept == frozen | {name for name in kept if name.endswith("num_batches_tracked")}
    assert any(name.endswith("running_mean") for name in frozen)
    assert model.card["rows"] == list(SPLIT.target)
    assert model.card["start_rows"] == list(SPLIT.published)


@pytest.mark.parametrize(
    ("architecture", "defence", "sentence"),
    [
        ("cnn", ("transfer", {"frozen": 4}), "frozen=4, but Cnn has 3 blocks of features"),
        ("softmax_regression", ("transfer", {"frozen": 1}), "SoftmaxRegression has 0 blocks"),
        ("softmax_regression", ("mid", {"beta": 1}), "SoftmaxRegression has no hidden layers"),
        ("softmax_regression", ("bido", {"lambda_x": 1, "lambda_y": 1}), "SoftmaxRegression has no hidden layers"),
        (
            "autoencoder",
            ("dp_sgd", {"noise": 1, "delta": 0.01}),
            "the pre-training of StackedAutoencoder is not private",
        ),
        ("cnn", ("dp_sgd", {"noise": 1, "delta": 0.1}), r"delta=0\.1 must be below 1/N"),
    ],
)
def test_refused_before_anything_is_trained(
    tmp_path: Path, architecture: str, defence: tuple[str, dict[str, float]], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        trained(tmp_path, named(*defence), architecture)
    assert not list(tmp_path.iterdir())


def test_no_public_people_no_transfer(tmp_path: Path) -> None:
    alone = dataclasses.replace(SPLIT, public=(), published=())
    with pytest.raises(ValueError, match="split made publishes nobody else to learn from first"):
        train_target(alone, "cnn", faces=FACES, defence=("transfer", (("frozen", 1.0),)), cache=tmp_path)


def test_a_defence_beside_another_loss_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has a loss of its own"):
        trained(tmp_path, ("mid", (("beta", 0.1),)), loss=CrossEntropy(label_smoothing=0.1))
    assert not trained(tmp_path, ("none", ()), loss=CrossEntropy(label_smoothing=0.1)).cached


def test_epsilon_is_known_without_training(tmp_path: Path) -> None:
    defence = named("dp_sgd", ON["dp_sgd"])
    model = trained(tmp_path, defence)
    recipe = dataclasses.replace(RECIPES["cnn"], max_steps=STEPS)
    assert planned_epsilon(defence, recipe, len(SPLIT.target)) == pytest.approx(epsilon_of(model))
    assert model.card["defence"]["steps"] == STEPS
    assert model.card["defence"]["rows"] == 24
    assert planned_epsilon(("mid", (("beta", 0.1),)), recipe, 24) is None
    assert epsilon_of(trained(tmp_path, None)) is None


def said(root: Path, *words: str) -> tuple[int, str]:
    (train,) = (command for command in cli_models.MODEL_COMMANDS if command.name == "train")
    done = CliRunner().invoke(train, ["cnn", "--root", str(root), *words])
    return done.exit_code, done.output


def test_a_defence_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def recorded(*_: Any, **options: Any) -> Any:
        calls.append(options)
        raise ValueError("enough")

    monkeypatch.setattr(cli_models, "train_and_host", recorded)
    for words, sentence in (
        (("--defence", "mit:beta=1"), "there is no training defence 'mit'; there is none, mid"),
        (("--defence", "mid:gamma=1"), "defence mid has no parameter 'gamma'; it has beta, width"),
        (("--defence", "mid:beta"), "--defence mid:beta: write name:parameter=value"),
        (("--defence", "mid:beta=1", "--joint", "attacker.decoder:Decoder"), "leave --defence out"),
    ):
        status, output = said(tmp_path, *words)
        assert status != 0
        assert sentence in output
    assert not calls
    said(tmp_path, "--defence", "mid:width=8,beta=0.01")
    assert calls[0]["defence"] == ("mid", (("beta", 0.01), ("width", 8.0)))
    said(tmp_path)
    assert calls[1]["defence"] is None
