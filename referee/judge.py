"""Who is on a picture: the private photos, the evaluation network, floors and ceiling of one split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from oracle_server.victims.images import ImageSet
from oracle_server.victims.publish import publish
from oracle_server.victims.split import HANDED_OVER
from oracle_server.victims.split_models import evaluation_accuracy, train_evaluation
from oracle_server.victims.splits import Split, class_of, load, split_named
from referee.metrics.images import mse
from referee.metrics.recognition import class_similarity, recognise
from referee.report import Reference, SplitView

__all__ = ["Judge", "Scores"]

_MOST_PHOTOS = 500  # behind a reference: a set of digits has thousands of unseen ones
_SHOWN = 8  # real photos of each person in a report
# by data set, what its classes are called; people elsewhere
_NOUNS = {"digits": "digits", "mnist": "digits", "chestxray14": "findings"}


@dataclass(frozen=True, eq=False)
class Scores:
    """Of N images, each (N,): recognised, among the first five, class correlations, the target's true confidence."""

    top1: np.ndarray
    top5: np.ndarray
    own: np.ndarray
    others: np.ndarray
    confidence: np.ndarray


class Judge:
    """Everything private that is needed to score images made for one split, which is named, or handed over with its
    images (`faces`).

    architecture  of the evaluation network; by default the one that suits the split's data
    seen          on which photos it learned, in words; by default said by the split's rows
    noun          what the classes are called
    """

    def __init__(
        self,
        split: str | Split,
        device: str,
        *,
        faces: ImageSet | None = None,
        architecture: str | None = None,
        seen: str | None = None,
        noun: str | None = None,
    ) -> None:
        self.split = split_named(split) if isinstance(split, str) else split
        self.faces = faces or load(self.split)
        self.device = device
        trained = train_evaluation(self.split, faces=self.faces, architecture=architecture, device=device)
        self.network = trained.module
        self.test_accuracy = evaluation_accuracy(trained, self.split, self.faces)
        self.credit = f"{self.faces.credit} {self.faces.terms}".strip()
        self.noun = noun or _NOUNS.get(self.split.data, "people")
        rows = np.array(self.split.target)
        owner = class_of(self.faces, self.split.target, self.split.private)
        self._mean = self.faces.images[rows].mean(0)
        self._centroids = np.stack(
            [self.faces.images[rows[owner == person]].mean(0) for person in range(len(self.split.private))]
        )
        self.evaluation = (
            f"Recognition is judged by a small convolutional network, trained on {seen or _seen(self.split)}; its"
            f" accuracy on photos it has not seen is {self.test_accuracy:.3f}."
        )

    def score(self, images: np.ndarray, targets: np.ndarray, target_model: nn.Module | None) -> Scores:
        """Score images (N, C, H, W) of the split's known people `targets` (N,), whose private ones are the classes of
        `target_model`; its logits are taken raw. Somebody else has no class in it: NaN, but for the recognition. A
        model without classes is None, and so sure of nothing: its confidence is NaN.
        """
        seen = recognise(self.network, images, targets, device=self.device)
        mine = targets < len(self.split.private)
        own, others, confidence = (np.full(len(targets), np.nan) for _ in range(3))
        if mine.any():
            similar = class_similarity(images[mine], targets[mine], self._centroids)
            own[mine], others[mine] = similar.own, similar.others_mean
            if target_model is not None:
                confidence[mine] = recognise(target_model, images[mine], targets[mine], device=self.device).confidence
        return Scores(seen.top1, seen.top5, own, others, confidence)

    def floor_mse(self, photos: np.ndarray, places: np.ndarray) -> dict[str, np.ndarray]:
        """What an attacker reaches who answers every time with the same image: mean squared errors (N,) beside photos
        (N, C, H, W) of the split's known people `places` (N,).

        `mean image` is the mean of the target's photos, `class means` that of its photos of the right class, which
        nobody outside knows: NaN for a class that is not private.
        """
        private = places < len(self.split.private)
        own = self._centroids[np.where(private, places, 0)]
        return {
            "mean image": mse(np.broadcast_to(self._mean, photos.shape), photos),
            "class means": np.where(private, mse(own, photos), np.nan),
        }

    def references(self, target_model: nn.Module | None, public: Path) -> list[Reference]:
        """Floors that ask nothing (a black image, the mean of the public photos, that of the private classes), and
        ceilings: unseen photos, and the mean training photo of each class.

        The last two means are made of private photos. One image for everybody tells nobody apart, so it is a floor; the
        mean of the right class is what an attack on classes is after, so here it is a ceiling, though a floor of what
        an attack on single photos must reach (`floor_mse`).
        """
        people = np.arange(len(self.split.private))
        shape = self.faces.images.shape[1:]
        floors = {"black image": np.zeros((len(people), *shape), np.float32)}
        if self.split.public or self.split.data == HANDED_OVER:
            photos = np.load(public / "images.npy")
            name = "mean public face" if self.noun == "people" else "mean public image"
            floors[name] = np.broadcast_to(photos.mean(0), (len(people), *shape)).astype(np.float32)
        floors["mean of the private classes"] = np.broadcast_to(self._mean, (len(people), *shape))
        found = [self._reference(name, "floor", images, people, target_model) for name, images in floors.items()]
        held_out = np.array(self.split.test)
        if len(held_out) > _MOST_PHOTOS:
            held_out = np.random.default_rng(0).choice(held_out, _MOST_PHOTOS, replace=False)
        owner = class_of(self.faces, held_out.tolist(), self.split.private)
        photos = self.faces.images[held_out]
        return [
            *found,
            self._reference("held-out photos", "ceiling", photos, owner, target_model),
            self._reference("true class means", "ceiling", self._centroids, people, target_model),
        ]

    def _reference(
        self, name: str, kind: str, images: np.ndarray, targets: np.ndarray, target_model: nn.Module | None
    ) -> Reference:
        with torch.no_grad():
            scores = self.score(images, targets, target_model)
        return Reference(name=name, kind=kind, split=self.split.name, targets=targets, **vars(scores))  # type: ignore[arg-type]

    def view(self) -> SplitView:
        """What the report shows of the split."""
        split = self.split
        people = np.arange(len(split.private))
        owner = class_of(self.faces, split.target, split.private)
        rows = np.array(split.target)
        shown = min(_SHOWN, int(np.bincount(owner).min()))
        photos = np.stack([self.faces.images[rows[owner == person][:shown]] for person in people])
        private, public = len(split.private), len(split.public)
        return SplitView(
            name=split.name,
            description=f"{private} private {self.noun}, {public or 'no'} public ones;"
            f" {len(split.target)} training photos",
            credit=self.credit,
            evaluation=self.evaluation,
            classes=len(split.known),
            people=people,
            photos=photos,
            noun=self.noun,
        )

    def publish(self, folder: Path) -> Path:
        """The public part of the split, written once; the campaign's file says that its terms are kept."""
        if not (folder / "card.json").exists():
            publish(self.split, folder, accept_terms=True, faces=self.faces)
        return folder


def _seen(split: Split) -> str:
    """On which photos the evaluation network of a split learned, beside the target."""
    learned = set(split.evaluations[0])
    if learned.issuperset(split.target):
        return "the same photos as the target and on those of every public class"
    known = "none" if learned.isdisjoint(split.target) else "some"
    return f"photos of every class, {known} of which the target has seen"
