"""Who is on a picture: the private photos, the evaluation network, floors and ceiling of one split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from oracle_server.victims.publish import publish
from oracle_server.victims.split_models import evaluation_accuracy, train_evaluation
from oracle_server.victims.splits import class_of, load, split_named
from referee.metrics.recognition import class_similarity, recognise
from referee.report import Reference, SplitView

__all__ = ["Judge", "Scores"]


@dataclass(frozen=True, eq=False)
class Scores:
    """Of N images, each (N,): recognised, among the first five, class correlations, the target's true confidence."""

    top1: np.ndarray
    top5: np.ndarray
    own: np.ndarray
    others: np.ndarray
    confidence: np.ndarray


class Judge:
    """Everything private that is needed to score images made for one split."""

    def __init__(self, split_name: str, device: str) -> None:
        self.split = split_named(split_name)
        self.faces = load(self.split)
        self.device = device
        trained = train_evaluation(self.split, faces=self.faces, device=device)
        self.network = trained.module
        self.test_accuracy = evaluation_accuracy(trained, self.split, self.faces)
        rows = np.array(self.split.target)
        owner = class_of(self.faces, self.split.target, self.split.private)
        self._centroids = np.stack(
            [self.faces.images[rows[owner == person]].mean(0) for person in range(len(self.split.private))]
        )
        self.evaluation = (
            "Recognition is judged by a small convolutional network, trained on the same photos as the target and on"
            f" those of every public person; its accuracy on photos it has not seen is {self.test_accuracy:.3f}."
        )

    def score(self, images: np.ndarray, targets: np.ndarray, target_model: nn.Module) -> Scores:
        """Score images (N, C, H, W) of the split's known people `targets` (N,), whose private ones are the classes of
        `target_model`; its logits are taken raw. Somebody else has no class in it: NaN, but for the recognition.
        """
        seen = recognise(self.network, images, targets, device=self.device)
        mine = targets < len(self.split.private)
        own, others, confidence = (np.full(len(targets), np.nan) for _ in range(3))
        if mine.any():
            similar = class_similarity(images[mine], targets[mine], self._centroids)
            own[mine], others[mine] = similar.own, similar.others_mean
            confidence[mine] = recognise(target_model, images[mine], targets[mine], device=self.device).confidence
        return Scores(seen.top1, seen.top5, own, others, confidence)

    def references(self, target_model: nn.Module, public: Path) -> list[Reference]:
        """Floors that ask nothing (a black image, the mean of the public photos), and the ceiling: photos unseen."""
        people = np.arange(len(self.split.private))
        shape = self.faces.images.shape[1:]
        floors = {"black image": np.zeros((len(people), *shape), np.float32)}
        if self.split.public:
            photos = np.load(public / "images.npy")
            floors["mean public face"] = np.broadcast_to(photos.mean(0), (len(people), *shape)).astype(np.float32)
        found = [self._reference(name, "floor", images, people, target_model) for name, images in floors.items()]
        held_out = np.array(self.split.test)
        owner = class_of(self.faces, self.split.test, self.split.private)
        photos = self.faces.images[held_out]
        return [*found, self._reference("held-out photos", "ceiling", photos, owner, target_model)]

    def _reference(
        self, name: str, kind: str, images: np.ndarray, targets: np.ndarray, target_model: nn.Module
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
        photos = np.stack([self.faces.images[rows[owner == person]] for person in people])
        private, public = len(split.private), len(split.public)
        return SplitView(
            name=split.name,
            description=f"{private} private people, {public or 'no'} public ones; {len(split.target)} training photos",
            credit=f"{self.faces.credit} {self.faces.terms}",
            evaluation=self.evaluation,
            classes=len(split.known),
            people=people,
            photos=photos,
        )

    def publish(self, folder: Path) -> Path:
        """The public part of the split, written once; the campaign's file says that its terms are kept."""
        if not (folder / "card.json").exists():
            publish(self.split, folder, accept_terms=True)
        return folder
