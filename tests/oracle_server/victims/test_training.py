"""The training loop, its cache, and the figures of the two architectures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oracle_server.victims import training
from oracle_server.victims.augmentation import Augmentation
from oracle_server.victims.images import ImageSet
from oracle_server.victims.recipes import ARCHITECTURES, RECIPES, Recipe, Schedule
from oracle_server.victims.split_models import (
    evaluation_accuracy,
    random_split_errors,
    target_error,
    train_evaluation,
    train_target,
)
from oracle_server.victims.splits import SPLITS
from oracle_server.victims.trained import Epoch, Trained
from oracle_server.victims.training import CrossEntropy, train_victim

SPLIT = SPLITS["att40"]
ROWS, PEOPLE = SPLIT.target[:21], (0, 1, 2)
SHORT = {
    name: dataclasses.replace(
        recipe,
        epochs=2,
        batch_size=8,
        pretraining=recipe.pretraining and dataclasses.replace(recipe.pretraining, epochs=1),
    )
    for name, recipe in RECIPES.items()
}


def short(faces: ImageSet, cache: Path, architecture: str = "softmax_regression", **changes: object) -> Trained:
    options = {"recipe": SHORT[architecture], "cache": cache, **changes}
    return train_victim(architecture, faces, ROWS, PEOPLE, **options)  # type: ignore[arg-type]


def same_weights(left: Trained, right: Trained) -> bool:
    ours, theirs = left.module.state_dict(), right.module.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_same_seed_same_weights(faces: ImageSet, tmp_path: Path, architecture: str) -> None:
    torch.rand(3)  # the caller's generator must not matter
    first = short(faces, tmp_path / "a", architecture)
    before = torch.random.get_rng_state()
    again = short(faces, tmp_path / "b", architecture)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not first.cached
    assert not again.cached
    assert same_weights(first, again)
    assert not same_weights(first, short(faces, tmp_path, architecture, seed=1))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_same_seed_same_weights_on_cuda(faces: ImageSet, tmp_path: Path, architecture: str) -> None:
    first = short(faces, tmp_path / "a", architecture, device="cuda")
    assert same_weights(first, short(faces, tmp_path / "b", architecture, device="cuda"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_cache_hit_trains_nothing_and_gives_the_same_weights(
    faces: ImageSet, tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = short(faces, tmp_path, architecture)
    monkeypatch.setattr(training, "fit", None)
    hit = short(faces, tmp_path, architecture)
    assert hit.cached
    assert hit.card == json.loads((hit.folder / "card.json").read_text())
    assert same_weights(first, hit)
    assert not any(parameter.requires_grad for parameter in hit.module.parameters())
    assert not hit.module.training


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"loss": CrossEntropy(label_smoothing=0.1)},
        {"recipe": dataclasses.replace(SHORT["softmax_regression"], learning_rate=0.5)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_makes_the_model_changes_its_key(
    faces: ImageSet, tmp_path: Path, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = short(faces, tmp_path).key
    assert short(faces, tmp_path, **change).key != key
    other = ImageSet(1 - faces.images, faces.labels, faces.name)
    assert short(other, tmp_path).key != key
    monkeypatch.setattr(training, "CODE_VERSION", training.CODE_VERSION + 1)
    assert short(faces, tmp_path).key != key


def test_the_card_lists_what_the_model_has_seen(faces: ImageSet, tmp_path: Path) -> None:
    trained = short(faces, tmp_path)
    assert trained.folder == tmp_path / "victims" / trained.key
    assert trained.card["rows"] == list(ROWS)
    assert trained.card["data_sha256"] == faces.sha256()
    assert trained.card["torch"] == torch.__version__
    assert [entry.name for entry in trained.folder.parent.iterdir()] == [trained.key]  # nothing half-written


@pytest.mark.parametrize("damage", ["weights.pt", "card.json"])
def test_a_damaged_entry_is_trained_again(faces: ImageSet, tmp_path: Path, damage: str) -> None:
    first = short(faces, tmp_path)
    (first.folder / damage).write_bytes(b"{}")
    again = short(faces, tmp_path)
    assert not again.cached
    assert same_weights(first, again)
    assert short(faces, tmp_path).cached


def test_the_cache_is_where_the_environment_says(
    faces: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained_in() -> Path:
        return train_victim("softmax_regression", faces, ROWS, PEOPLE, recipe=SHORT["softmax_regression"]).folder

    monkeypatch.setenv("MIRAGE_CACHE", str(tmp_path / "named"))
    assert trained_in().is_relative_to(tmp_path / "named")
    monkeypatch.delenv("MIRAGE_CACHE")
    monkeypatch.chdir(tmp_path)
    assert trained_in().is_relative_to(tmp_path / ".cache" / "mirage")


def test_a_cache_that_cannot_be_written(faces: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="set MIRAGE_CACHE to a folder you own"):
        short(faces, tmp_path / "file")


def test_patience_counts_from_the_last_better_error(faces: ImageSet, tmp_path: Path) -> None:
    seen: list[Epoch] = []
    recipe = Recipe(epochs=500, batch_size=21, learning_rate=0.01, patience=5)
    trained = short(faces, tmp_path, recipe=recipe, progress=seen.append)
    assert [epoch.number for epoch in seen] == list(range(1, trained.card["epochs"] + 1))
    errors = [epoch.error for epoch in seen]
    assert errors.index(min(errors)) + 1 == len(seen) - 5 < 495


def test_a_defence_is_a_loss(faces: ImageSet, tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class SmallLogits:
        strength: float

        def __call__(self, module: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            value, logits = CrossEntropy()(module, inputs, labels)
            return value + self.strength * logits.square().mean(), logits

    def spread(strength: float) -> float:
        recipe = Recipe(epochs=40, batch_size=21, learning_rate=0.002)
        module = short(faces, tmp_path, recipe=recipe, loss=SmallLogits(strength)).module
        return float(module(torch.tensor(faces.images[:30])).abs().mean())

    assert 0 < spread(0.3) < 0.5 * spread(0.0)


def test_a_wrap_is_trained_as_a_whole_and_has_a_key_of_its_own(faces: ImageSet, tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Scaled:
        """The module with a learned factor behind it."""

        start: float

        def __call__(self, module: nn.Module, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
            assert (classes, input_shape) == (3, (1, 112, 92))
            whole = nn.Sequential(module, nn.Linear(3, 3, bias=False))
            nn.init.eye_(whole[1].weight).data.mul_(self.start)
            return whole

    alone, wrapped = short(faces, tmp_path), short(faces, tmp_path, wrap=Scaled(2.0))
    assert wrapped.key != alone.key != short(faces, tmp_path, wrap=Scaled(1.0)).key != wrapped.key
    assert "wrap" not in alone.card
    assert (wrapped.module.get_parameter("1.weight") - 2 * torch.eye(3)).abs().max() > 0
    hit = short(faces, tmp_path, wrap=Scaled(2.0))
    assert hit.cached
    assert same_weights(hit, wrapped)


@pytest.mark.parametrize(("max_steps", "epochs"), [(None, 5), (9, 3), (2, 1)])
def test_epochs_are_cut_to_the_steps(faces: ImageSet, tmp_path: Path, max_steps: int | None, epochs: int) -> None:
    """Three batches an epoch; a one-cycle schedule ends with the last of them."""
    seen: list[Epoch] = []
    recipe = Recipe(5, 8, 1e-3, schedule=Schedule.ONE_CYCLE, max_steps=max_steps)
    trained = short(faces, tmp_path, recipe=recipe, progress=seen.append)
    assert trained.card["epochs"] == len(seen) == epochs
    assert {epoch.total for epoch in seen} == {epochs}
    uncut = short(faces, tmp_path, recipe=dataclasses.replace(recipe, epochs=epochs, max_steps=None))
    assert same_weights(trained, uncut)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda f, c: train_victim("vgg", f, ROWS, PEOPLE, cache=c), "unknown architecture 'vgg': choose one of"),
        (lambda f, c: train_victim("cnn", f, [], PEOPLE, cache=c), "nothing to train on"),
        (lambda f, c: train_victim("cnn", f, ROWS, [0, 1], cache=c), r"not among the classes: \[2\]"),
        (lambda f, c: short(f, c, loss=lambda *_: None), "loss must be a frozen dataclass"),
        (lambda f, c: short(f, c, wrap=lambda *_: None), "wrap must be a frozen dataclass"),
        (lambda f, c: short(f, c, recipe=Recipe(9, 8, 1e38)), "diverged in epoch"),
        (lambda f, c: train_evaluation(SPLIT, 1, faces=f, cache=c), "has 1 evaluation networks: no number 1"),
        (lambda f, c: ARCHITECTURES["cnn"](3, (1, 12, 40)), "at least 16 pixels"),
        (lambda f, c: Recipe(0, 8, 0.1), "epochs must be above 0, not 0"),
        (lambda f, c: Recipe(1, 8, 0.1, momentum=1.0), r"momentum must be in \[0, 1\), not 1.0"),
        (lambda f, c: Recipe(1, 8, 0.1, weight_decay=-1.0), "weight_decay must not be below 0"),
        (lambda f, c: Recipe(1, 8, 0.1, patience=0), "patience must be at least 1"),
    ],
)
def test_bad_calls_get_a_sentence(
    faces: ImageSet, tmp_path: Path, call: Callable[[ImageSet, Path], object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        call(faces, tmp_path)
    assert not (tmp_path / "victims").exists()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_answer_does_not_depend_on_the_batch(faces: ImageSet, tmp_path: Path, architecture: str) -> None:
    module = short(faces, tmp_path, architecture).module
    images = torch.cat((torch.tensor(faces.images[:9]), torch.zeros(1, 1, 112, 92)))
    alone = torch.cat([module(image[None]) for image in images])
    torch.testing.assert_close(module(images), alone, atol=1e-5, rtol=0)
    images.requires_grad_(True)
    module(images)[:9].sum().backward()
    assert torch.isfinite(images.grad).all()
    assert images.grad[:9].abs().amax((1, 2, 3)).min() > 0


def test_augmentation_stays_legal_and_follows_its_generator(faces: ImageSet) -> None:
    images = torch.tensor(faces.images[:20])
    changed = Augmentation()(images, torch.Generator().manual_seed(3))
    assert changed.shape == images.shape
    assert 0 <= changed.min() < changed.max() <= 1
    assert torch.equal(changed, Augmentation()(images, torch.Generator().manual_seed(3)))
    assert (changed - images).abs().mean((1, 2, 3)).min() > 0.01
    still = Augmentation(*[0.0] * len(dataclasses.fields(Augmentation)))
    torch.testing.assert_close(still(images, torch.Generator()), images, atol=1e-4, rtol=0)
    mirror = dataclasses.replace(still, mirror=1.0)
    torch.testing.assert_close(mirror(images, torch.Generator()), images.flip(3), atol=1e-4, rtol=0)


def test_softmax_regression_lies_in_the_span_of_its_photos(faces: ImageSet, tmp_path: Path) -> None:
    trained = train_target(SPLIT, faces=faces, cache=tmp_path)
    assert target_error(trained, SPLIT, faces) <= 0.075  # the paper's, with seven photos of each person
    assert trained.card["training_error"] == 0
    weights = trained.module.get_parameter("linear.weight").double().numpy()
    photos = faces.images[list(SPLIT.target)].reshape(280, -1).astype(np.float64)
    basis = np.linalg.qr(photos.T)[0]
    assert np.linalg.norm(weights - weights @ basis @ basis.T) < 1e-4 * np.linalg.norm(weights)


def test_softmax_regression_over_random_splits(faces: ImageSet, tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    errors = random_split_errors(range(2), faces=faces, cache=tmp_path, progress=lambda *step: told.append(step))
    assert told == list(enumerate(errors))
    assert np.mean(errors) <= 0.07  # 0.055 for the mean of ten


@pytest.mark.slow
def test_evaluation_network_knows_the_faces(faces: ImageSet) -> None:
    trained = train_evaluation(SPLIT, faces=faces)
    assert evaluation_accuracy(trained, SPLIT, faces) >= 0.97
    shared = train_evaluation(SPLITS["att30"], faces=faces)
    assert shared.cached
    assert shared.key == trained.key
