"""Joint training: what the loss is, what it does to scores, what is hosted and what stays with the developer."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attacker.decoder import Decoder
from oracle_server.answering import Answering
from oracle_server.errors import Refusal
from oracle_server.hosted import Hosted, Models
from oracle_server.ledger import Key, SqliteLedger
from oracle_server.models.card import Card
from oracle_server.models.repository import Repository
from oracle_server.service import OracleService
from oracle_server.victims import joint as joint_module
from oracle_server.victims.images import ImageSet
from oracle_server.victims.joint import (
    Joint,
    JointReconstruction,
    MakeInverse,
    find_decoder,
    joint_recipe,
    load_inverse,
    reconstruction_error,
    released,
    train_and_host_joint,
)
from oracle_server.victims.recipes import Optimiser, Recipe
from oracle_server.victims.splits import SPLITS
from oracle_server.victims.training import error_rate, fit
from protos import archive
from protos.mirage.v1 import oracle_pb2 as pb

SHAPE = (1, 8, 8)
CLASSES = 3


class Linear(nn.Module):
    """Images from the logarithms of scores, those that are withheld counting as 0."""

    def __init__(self, classes: int, shape: tuple[int, ...], hidden: int = 16) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.Sequential(nn.Linear(classes, hidden), nn.Tanh(), nn.Linear(hidden, math.prod(shape)))

    def forward(self, scores: Tensor) -> Tensor:
        z = torch.where(scores.isnan(), 0.0, scores.nan_to_num(0.0).clamp(min=1e-38).log())
        images: Tensor = self.layers(z.float()).sigmoid().unflatten(1, self.shape)
        return images


def pictures(n: int = 240) -> ImageSet:
    """The left half says the class, the right half is a grey that has nothing to do with it."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % CLASSES
    images = np.zeros((n, *SHAPE), np.float32)
    images[np.arange(n), 0, 2 * labels, :4] = 1
    images[:, 0, :, 4:] = rng.random((n, 1, 1))
    return ImageSet(images, labels, "att")


SPLIT = dataclasses.replace(
    SPLITS["att40"],
    name="tiny",
    private=tuple(range(CLASSES)),
    public=(),
    target=tuple(range(180)),
    test=tuple(range(180, 240)),
    evaluations=(tuple(range(180)),),
    evaluation_test=tuple(range(180, 240)),
    published=(),
)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setattr(joint_module, "split_named", lambda name: SPLIT)
    monkeypatch.setattr(joint_module, "load", lambda split: pictures())
    monkeypatch.setenv("MIRAGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "root").mkdir()
    return Repository(tmp_path / "root")


def hosted(repository: Repository, **changes: object) -> Card:
    options = {"name": "m", "device": "cpu", "decoder": Linear, "epochs": 2, **changes}
    return train_and_host_joint("softmax_regression", "tiny", repository, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("top_k", [1, 2, 3, 0])
def test_released_scores_are_the_largest(top_k: int) -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, -1.0], [3.0, 0.0, -200.0, 1.0]])
    found = released(logits, top_k)
    whole = logits.double().softmax(1)
    rank = (-logits).argsort(1).argsort(1)
    kept = rank < (top_k or 4)
    assert found.dtype == torch.float64
    assert torch.equal(found[kept], whole[kept])
    assert torch.equal(found.isnan(), ~kept)


@pytest.mark.parametrize("make", [Linear, functools.partial(Decoder, width=4)])
@pytest.mark.parametrize("top_k", [0, 2])
def test_gradients_reach_the_classifier_and_are_numbers(make: MakeInverse, top_k: int) -> None:
    """Of the reconstruction alone, with scores from nearly 1 to next to nothing, and some withheld."""
    images = torch.rand(6, *SHAPE)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    with torch.no_grad():
        classifier[1].weight.mul_(30)
    joint = Joint(classifier, make(5, SHAPE))
    loss, logits = JointReconstruction(1.0, top_k)(joint, images, logits_labels := torch.arange(6) % 5)
    (loss - functional.cross_entropy(logits, logits_labels)).backward()
    for parameter in joint.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    assert classifier[1].weight.grad.abs().max() > 0


def test_the_loss_is_equation_8() -> None:
    """A constant inverse and a constant classifier: log C + weight * mean of the squared images."""

    class Black(nn.Module):
        def forward(self, scores: Tensor) -> Tensor:
            return torch.zeros(len(scores), *SHAPE)

    flat = nn.Linear(64, 4)
    nn.init.zeros_(flat.weight)
    nn.init.zeros_(flat.bias)
    images = torch.rand(5, *SHAPE)
    joint = Joint(nn.Sequential(nn.Flatten(), flat), Black())
    for weight in (0.0, 3.0):
        loss, logits = JointReconstruction(weight)(joint, images, torch.arange(5) % 4)
        assert loss.item() == pytest.approx(math.log(4) + weight * float(images.square().mean()), rel=1e-5)
        assert torch.equal(logits, joint(images))
    np.testing.assert_allclose(
        reconstruction_error(joint, images.numpy(), batch_size=2), images.square().mean((1, 2, 3)).numpy(), rtol=1e-6
    )


def test_joint_scores_carry_what_the_classes_do_not_need() -> None:
    """The grey of the right half: an inverse of a classifier that was trained for itself alone does not find it."""

    @dataclasses.dataclass(frozen=True)
    class Apart(JointReconstruction):
        def __call__(self, module: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            assert isinstance(module, Joint)
            logits = module(inputs)
            error = functional.mse_loss(module.inverse(released(logits.detach(), self.top_k)), inputs)
            return functional.cross_entropy(logits, labels) + self.weight * error, logits

    data = pictures()
    recipe = Recipe(60, 20, 1e-2, Optimiser.ADAMW)
    errors, wrong = {}, {}
    for loss in (Apart(10.0), JointReconstruction(10.0)):
        torch.manual_seed(0)
        hidden = nn.Linear(64, CLASSES)
        with torch.no_grad():
            hidden.weight.zero_()  # looks at nothing, until something makes it
        joint = Joint(nn.Sequential(nn.Flatten(), hidden), Linear(CLASSES, SHAPE))
        fit(joint, data.images[:180], data.labels[:180], recipe, loss=loss, seed=0)
        errors[type(loss)] = reconstruction_error(joint, data.images[180:]).mean()
        wrong[type(loss)] = error_rate(joint, data.images[180:], data.labels[180:])
    assert errors[JointReconstruction] < 0.5 * errors[Apart]
    assert set(wrong.values()) == {0.0}


def test_the_classifier_alone_is_hosted(repository: Repository) -> None:
    card = hosted(repository, weight=2.0, top_k=2)
    folder = repository.archive(card).parent
    assert card.joint
    assert Card.read(folder / "card.json") == card
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.json",
        "inverse.json",
        "inverse.pt",
        "model.pt2",
        "split.json",
    ]
    images = torch.tensor(pictures().images[list(SPLIT.test)])
    logits = archive.load(folder / "model.pt2")(images)
    assert logits.shape == (60, CLASSES)
    assert card.parameters == 64 * CLASSES + CLASSES  # nothing of the inverse
    about = json.loads((folder / "inverse.json").read_text())
    assert (about["weight"], about["top_k"]) == (2.0, 2)
    assert about["decoder"].endswith("test_joint:Linear")
    inverse = load_inverse(repository, "m", Linear)
    assert not inverse.training
    error = (inverse(released(logits, 2)) - images).square().mean()
    assert float(error) == pytest.approx(about["test_mse"], rel=1e-5)
    assert json.loads((folder / "split.json").read_text())["target"] == list(SPLIT.target)


def test_the_inverse_cannot_be_downloaded(repository: Repository, ledger: SqliteLedger, make_key: Callable) -> None:
    card = hosted(repository)
    path = repository.archive(card)
    (path.parent / "inverse.pt2").write_bytes((path.parent / "inverse.pt").read_bytes())  # even under such a name
    key: Key = make_key(access="weights", model=card.id)
    ledger.add_key(key)
    models = Models({card.id: Hosted(card, path, None, 5)})  # type: ignore[arg-type]

    async def download(name: str) -> bytes:
        service = OracleService(ledger, models, Answering(ledger))
        return b"".join([chunk.data async for chunk in service.download(pb.DownloadRequest(archive=name), key)])

    assert asyncio.run(download("")) == path.read_bytes()
    for name in ("inverse", "inverse.pt", "inverse.json", "split.json", "../1/inverse"):
        with pytest.raises(Refusal, match="no such archive"):
            asyncio.run(download(name))


def test_both_networks_come_from_the_cache(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hosted(repository)
    monkeypatch.setattr("oracle_server.victims.training.fit", None)
    again = hosted(repository, version="2")
    assert again.archive_sha256 == first.archive_sha256
    states = [load_inverse(repository, name, Linear).state_dict() for name in ("m/1", "m/2")]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    for change in (
        {"weight": 1.0},
        {"top_k": 1},
        {"decoder_name": "other"},
        {"decoder": functools.partial(Linear, hidden=8), "decoder_name": "test_joint:Linear"},
    ):
        with pytest.raises(TypeError):  # it would be trained
            hosted(repository, version="3", **change)


def test_recipe_of_a_joint_training() -> None:
    recipe = joint_recipe("autoencoder", epochs=3)
    assert (recipe.optimiser, recipe.learning_rate, recipe.epochs) == (Optimiser.ADAMW, 1e-3, 3)
    assert recipe.patience is None
    assert recipe.pretraining is None


def test_decoders_by_name() -> None:
    assert find_decoder("attacker.decoder:Decoder") is Decoder
    for source, sentence in (
        ("Decoder", "names no decoder: give package:factory"),
        ("attacker.decoder:Encoder", "there is no decoder attacker.decoder:Encoder"),
        ("attacker.nowhere:Decoder", "there is no decoder"),
        ("attacker.decoder:_FIRST", "is no factory"),
    ):
        with pytest.raises(ValueError, match=sentence):
            find_decoder(source)


def test_bad_calls_get_a_sentence(repository: Repository) -> None:
    for changes, sentence in (
        ({"weight": -1.0}, "weight must be a number from 0, not -1.0"),
        ({"weight": math.nan}, "weight must be a number from 0"),
        ({"top_k": -1}, "top_k must be at least 1, or 0"),
        ({"decoder": lambda classes, shape: Linear(classes, shape)}, "give decoder_name"),
    ):
        with pytest.raises(ValueError, match=sentence):
            hosted(repository, **changes)
    assert not list(repository.folder.glob("*/*"))
    with pytest.raises(ValueError, match="unknown architecture 'vgg'"):
        train_and_host_joint("vgg", "tiny", repository, name="m", decoder=Linear)
    with pytest.raises(ValueError, match="needs a Joint of classifier and inverse, not Linear"):
        JointReconstruction()(nn.Linear(2, 2), torch.rand(1, 2), torch.tensor([0]))
    card = hosted(repository)
    with pytest.raises(FileExistsError, match="m/1 is there already"):
        hosted(repository)
    with pytest.raises(ValueError, match="does not fit this decoder"):
        load_inverse(repository, "m", functools.partial(Linear, hidden=8))
    (repository.archive(card).parent / "inverse.pt").unlink()
    with pytest.raises(ValueError, match="m/1 was trained alone"):
        load_inverse(repository, "m", Linear)
