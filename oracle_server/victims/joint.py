"""A malicious developer's training: a classifier and the network that inverts it, trained together.

Z. Yang, J. Zhang, E.-C. Chang, Z. Liang, "Neural Network Inversion in Adversarial Setting via Background Knowledge
Alignment", CCS 2019, section 4.4, equation 8.

    here                 paper              meaning
    classifier           F_w                the model that is hosted
    inverse              G_theta            the network that the developer keeps
    released(.)          trunc_m(F_w(x))    the m largest scores, m = top_k; 0 for all of them
    weight               lambda             what a squared error of reconstruction costs beside a cross-entropy

The squared error is the mean over pixels, channels and the batch, so that one weight serves images of all sizes.

Differences from the reference:
- Both networks take their steps from one AdamW at 1e-3, whatever the architecture's own optimiser is: a step that suits
  a softmax regression is too short for the inverse. Epochs, batches, schedule and augmentation are the architecture's.
- Training does not stop early: the patience of a recipe watches the classifier, which is ready before the inverse.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from oracle_server.models.card import Card
from oracle_server.models.importing import Draft
from oracle_server.models.neural import choose_device
from oracle_server.models.repository import Repository
from oracle_server.sources import named
from oracle_server.victims.hosting import host_with_rows
from oracle_server.victims.recipes import RECIPES, Optimiser, Recipe
from oracle_server.victims.splits import class_of, load, split_named
from oracle_server.victims.trained import Epoch
from oracle_server.victims.training import error_rate, train_victim

__all__ = [
    "WEIGHT",
    "Attached",
    "Joint",
    "JointReconstruction",
    "MakeInverse",
    "find_decoder",
    "joint_recipe",
    "load_inverse",
    "reconstruction_error",
    "released",
    "train_and_host_joint",
]

MakeInverse = Callable[[int, tuple[int, ...]], nn.Module]
"""Of classes and an image's shape: a module from scores (N, classes), NaN where withheld, to images (N, *shape)."""

WEIGHT = 10.0
"""With five classes of the 5,000 digits it costs 0.2 points of accuracy (0.993, not 0.995), and the inverse is off by
0.032 on unseen photos, against 0.035 for one that is trained afterwards on the same photos (campaigns/yang2019.toml).
"""
_RATE = 1e-3
_INVERSE, _ABOUT = "inverse.pt", "inverse.json"


class Joint(nn.Module):
    """A classifier with its inverse; its own answer is the classifier's, so that whatever counts errors can."""

    def __init__(self, classifier: nn.Module, inverse: nn.Module) -> None:
        super().__init__()
        self.classifier, self.inverse = classifier, inverse

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, C)."""
        logits: Tensor = self.classifier(inputs)
        return logits


@dataclass(frozen=True)
class Attached:
    """Turns a classifier into `Joint`. Name and structure tell the decoder in the cache, the factory does not."""

    name: str
    structure: str
    decoder: MakeInverse = field(repr=False)

    def __call__(self, module: nn.Module, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
        return Joint(module, self.decoder(classes, input_shape))


@dataclass(frozen=True)
class JointReconstruction:
    """Equation 8: mean cross-entropy + `weight` * mean squared error of the images that the inverse makes of scores.

    Raises:
        ValueError: a weight below 0 or not finite, a negative top_k; at the call, a module that is not `Joint`.
    """

    weight: float = WEIGHT
    top_k: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight must be a number from 0, not {self.weight}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 1, or 0 for all scores, not {self.top_k}")

    def __call__(self, module: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not isinstance(module, Joint):
            raise ValueError(f"a joint training needs a Joint of classifier and inverse, not {type(module).__name__}")
        logits = module(inputs)
        error = functional.mse_loss(module.inverse(released(logits, self.top_k)), inputs)
        return functional.cross_entropy(logits, labels) + self.weight * error, logits


def released(logits: Tensor, top_k: int = 0) -> Tensor:
    """What a server would release for logits (N, C), with a gradient: softmax in float64 (N, C), NaN but for the
    `top_k` largest of each row; 0 keeps all.
    """
    scores = logits.double().softmax(1)
    if not 0 < top_k < scores.shape[1]:
        return scores
    kept = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.topk(top_k, dim=1).indices, True)
    return torch.where(kept, scores, torch.nan)


def joint_recipe(architecture: str, epochs: int | None = None) -> Recipe:
    """The architecture's recipe as a joint training uses it; see the differences on top of this module."""
    recipe = RECIPES[architecture]
    return dataclasses.replace(
        recipe,
        epochs=recipe.epochs if epochs is None else epochs,
        optimiser=Optimiser.ADAMW,
        learning_rate=_RATE,
        patience=None,
        pretraining=None,
    )


def train_and_host_joint(
    architecture: str,
    split_name: str,
    repository: Repository,
    *,
    name: str,
    version: str = "1",
    seed: int = 0,
    device: str = "auto",
    deterministic: bool = False,
    decoder: MakeInverse,
    decoder_name: str = "",
    weight: float = WEIGHT,
    top_k: int = 0,
    epochs: int | None = None,
    progress: Callable[[Epoch], None] | None = None,
) -> Card:
    """Train a classifier together with its inverse (or find both in the cache) and host the classifier alone.

    Beside the archive lie `split.json` as for any model, `inverse.pt`, the state dict of the developer's network, and
    `inverse.json`: weight, top_k, decoder, and the network's mean squared error on the split's unseen photos. Only the
    archives that a card names can be downloaded, and these are none.

    Args:
        decoder: makes the inverse; the one that an attacker uses is no part of a victim's code.
        decoder_name: names it in the cache and in `inverse.json`; by default its module and name in there.
        weight, top_k: of `JointReconstruction`.
        epochs: at most so many; by default the architecture's.
        The others are as in `train_and_host`.

    Raises:
        ValueError: an unknown architecture or split, a decoder without a name, a weight or top_k out of range.
        FileExistsError: a version that is there already.
    """
    loss = JointReconstruction(weight, top_k)
    if architecture not in RECIPES:
        raise ValueError(f"unknown architecture {architecture!r}: choose one of {', '.join(RECIPES)}")
    if (repository.folder / name / version).exists():  # before a long training
        raise FileExistsError(f"model {name}/{version} is there already: choose another --version")
    called = decoder_name or _name_of(decoder)
    split = split_named(split_name)
    data = load(split)
    shape = data.images.shape[1:]
    with torch.random.fork_rng(devices=[]):
        structure = repr(decoder(len(split.private), shape))
    trained = train_victim(
        architecture,
        data,
        split.target,
        split.private,
        recipe=joint_recipe(architecture, epochs),
        loss=loss,
        wrap=Attached(called, structure, decoder),
        seed=seed,
        device=str(choose_device(device)),
        progress=progress,
    )
    joint = trained.module.cpu()
    if not isinstance(joint, Joint):
        raise TypeError(f"{type(joint).__name__} came back from a joint training")
    test = np.asarray(split.test)
    labels = class_of(data, split.test, split.private)
    error = error_rate(joint, data.images[test], labels)
    draft = Draft(
        name=name,
        version=version,
        input_shape=shape,
        deterministic=deterministic,
        description=f"{architecture} on {split.name}, trained together with a network that inverts it: "
        f"test error {error:.4f}; {data.credit}",
    )
    card = dataclasses.replace(host_with_rows(joint.classifier, repository, draft, split, data), joint=True)
    folder = repository.archive(card).parent
    card.write(folder / "card.json")
    torch.save(joint.inverse.state_dict(), folder / _INVERSE)
    about: dict[str, Any] = {
        "decoder": called,
        "weight": weight,
        "top_k": top_k,
        "test_mse": float(reconstruction_error(joint, data.images[test], top_k).mean()),
    }
    (folder / _ABOUT).write_text(json.dumps(about) + "\n")
    return card


def reconstruction_error(joint: Joint, images: np.ndarray, top_k: int = 0, batch_size: int = 100) -> np.ndarray:
    """Mean squared error (N,) over the pixels of each of images (N, *shape), reconstructed from its own scores."""
    device = next(joint.parameters()).device
    with torch.inference_mode():
        errors = [
            (joint.inverse(released(joint(part), top_k)) - part).square().flatten(1).mean(1).cpu()
            for part in torch.tensor(images, device=device).split(batch_size)
        ]
    return torch.cat(errors).double().numpy()


def load_inverse(repository: Repository, name: str, decoder: MakeInverse) -> nn.Module:
    """The developer's network of a hosted model, in evaluation mode: scores (N, C) to images (N, *input_shape).

    Raises:
        LookupError: no such model.
        ValueError: a model that was trained alone, a file that is none, a decoder of another structure.
    """
    card = repository.card(name)
    path = repository.archive(card).parent / _INVERSE
    if not path.exists():
        raise ValueError(f"{card.id} was trained alone: it has no inverse; see oracle-server train --joint")
    module = decoder(card.classes, card.input_shape)
    try:
        module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # the unpickler and the loader have many ways to complain
        said = str(error).splitlines()[0][:100]
        raise ValueError(f"{path} does not fit this decoder ({said}): use the one that it was trained with") from error
    return module.eval().requires_grad_(False)


def find_decoder(source: str) -> MakeInverse:
    """The factory that `package:factory` names; `ValueError` with one sentence if there is none."""
    package, _, factory = source.partition(":")
    if not (package and factory):
        raise ValueError(f"{source!r} names no decoder: give package:factory, for example attacker.decoder:Decoder")
    try:
        found = named(source)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"there is no decoder {source}: {error}") from error
    if not callable(found):
        raise ValueError(f"{source} is no factory: it must take classes and the shape of an image")
    return cast("MakeInverse", found)


def _name_of(decoder: MakeInverse) -> str:
    name = getattr(decoder, "__qualname__", "")
    if not name or "<" in name:
        raise ValueError("give decoder_name: this decoder has no name of its own to tell it from others in the cache")
    return f"{decoder.__module__}:{name}"
