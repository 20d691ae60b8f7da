"""Where attacks are timed: models, what the runs are handed, the attacker's oracle, and the same without a wire."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from torch import nn

from attacker.answers import Answer
from attacker.on_device import OnDevice
from attacker.oracle import BudgetSpent, Oracle
from attacker.run import make_method
from benchmarks.callers import noise
from benchmarks.common import Rig, served
from oracle_server.contracts import contract_message
from oracle_server.models.card import Card
from oracle_server.models.importing import Draft, host
from oracle_server.models.neural import NeuralModel
from oracle_server.models.repository import Repository
from oracle_server.models.tree import TreeModel, host_tree
from oracle_server.operator import RemoteOperator, admin_socket
from oracle_server.scheduler import Model
from oracle_server.threat_model import Access, Contract, release
from oracle_server.victims.conv_classifier import ConvClassifier
from protos import archive
from protos.mirage.v1.admin_pb2 import CreateKeyRequest
from tests.attacker.kills import CASES
from tests.attacker.latent_cases import save_affine
from tests.tables import whole_tree
from tests.toy import softmax_regression

__all__ = ["Place"]

_CLASSES, _BATCH, _LATENT, _CODE = 10, 64, 16, 12
_PEOPLE = 100


class Place:
    """A running server, and a folder with the files that the runs are handed, by their names in `CASES`. Models:

    cnn      four blocks, 10 classes, with random weights; it does not take all images for the same class
    softmax  the same images -> 10
    coded    the same images -> a code of 12 numbers -> 10, each part an archive of its own
    tree     the tests' table of two attributes
    """

    def __init__(self, rig: Rig, stack: ExitStack) -> None:
        self._root = rig.folder / "attacks"
        self._shape = rig.shapes["cnn"]
        self._pixels, self._numbers = math.prod(self._shape), itertools.count()
        torch.manual_seed(0)
        self._repository = Repository(self._root)
        self._host_models()
        self._files = self._root / "files"
        self._write_files()
        stack.enter_context(served(self._root))
        self._address: str = json.loads((self._root / "server.json").read_text())["address"]

    def _host_models(self) -> None:
        images = torch.from_numpy(noise((_BATCH, *self._shape)))
        cnn = ConvClassifier(_CLASSES, self._shape).eval()
        with torch.no_grad():
            cnn.head[-1].bias -= cnn(images).mean(0)
        softmax = softmax_regression(np.random.default_rng(7).normal(0, 0.01, (_CLASSES, self._pixels))).eval()
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(self._pixels, _CODE), nn.Sigmoid()).eval()
        decoder = nn.Sequential(nn.Linear(_CODE, self._pixels), nn.Sigmoid(), nn.Unflatten(1, self._shape)).eval()
        classifier = nn.Linear(_CODE, _CLASSES).eval()
        shapes = {"encoder": self._shape, "decoder": (_CODE,), "classifier": (_CODE,)}
        parts = dict(zip(shapes, zip((encoder, decoder, classifier), shapes.values(), strict=True), strict=True))
        for name, module in {"cnn": cnn, "softmax": softmax}.items():
            host(module, self._repository, Draft(name, "1", self._shape))
        host(nn.Sequential(encoder, classifier).eval(), self._repository, Draft("coded", "1", self._shape), parts)
        host_tree(whole_tree(), self._repository, "tree")

    def _write_files(self) -> None:
        rng = np.random.default_rng(1)
        for name in ("images", "squares"):
            (self._files / name).mkdir(parents=True)
            np.save(self._files / name / "images.npy", noise((128, *self._shape)))
        np.save(self._files / "photos.npy", noise((4, *self._shape)))
        np.savez(self._files / "answers.npz", answers=rng.dirichlet(np.ones(_CLASSES), 4))
        axes, slope = 0.2 * rng.normal(size=(_LATENT, self._pixels)), rng.normal(size=(1, self._pixels))
        shape, critic = self._shape, softmax_regression(slope)
        save_affine(self._files / "prior", axes, 0.5, shape=shape, low=0.0, high=1.0, critic=critic)
        a, b, y = rng.integers(0, 2, (3, _PEOPLE))
        for file, names, codes in (("people.csv", "b,y", (b, y)), ("known.csv", "a,b", (a, b))):
            rows = (",".join(("no", "yes")[code] for code in person) for person in zip(*codes, strict=True))
            (self._files / file).write_text("\n".join((names, *rows)) + "\n")

    def method(self, name: str, settings: str) -> Any:
        """The method with `settings`, and the files that `CASES` hands it."""
        handed = {option: self._files / file for option, file in CASES[name].files.items()}
        return make_method(name, settings.split(), **({"public": None} | handed))

    def wire(self, name: str, model: str, budget: int | None = None) -> Oracle:
        """The attacker's own client, with a fresh key for what `CASES` says and a fresh folder."""
        return self._begun(Oracle(self._address, self._key(name, model, budget)))

    def direct(self, name: str, model: str, budget: int | None = None) -> Direct:
        """The same in this process."""
        case, card = CASES[name], self._repository.card(f"{model}/1")
        contract = Contract(Access(case.access), round_to=case.round_to, budget=budget)
        path = self._repository.archive(card)
        return self._begun(Direct(self._address, self._key(name, model, budget), path, self._model(model), contract))

    def loaded(self, name: str, model: str) -> Oracle:
        """As `wire`, with what it would download loaded already."""
        oracle = self.wire(name, model)
        oracle.model = functools.partial(self._module, model)
        return oracle

    def _key(self, name: str, model: str, budget: int | None) -> str:
        case = CASES[name]
        contract = contract_message(Contract(Access(case.access), round_to=case.round_to, budget=budget))
        with grpc.insecure_channel(f"unix:{admin_socket(self._root)}") as channel:
            request = CreateKeyRequest(model=f"{model}/1", contract=contract)
            return str(RemoteOperator(channel).create_key(request).key)

    def _begun(self, oracle: Any) -> Any:
        oracle.begin(self._root / f"client-{next(self._numbers)}", {"benchmark": oracle.model_id})
        return oracle

    @functools.cache  # noqa: B019 - the place lives as long as the measure
    def _module(self, model: str, part: str = "") -> nn.Module:
        return OnDevice(archive.load(self._repository.archive(self._repository.card(f"{model}/1"), part)), "cpu")

    @functools.cache  # noqa: B019
    def _model(self, name: str) -> Model:
        """As the server has it."""
        card: Card = self._repository.card(f"{name}/1")
        path = self._repository.archive(card)
        if card.kind == "tree":
            return TreeModel(path, card, _BATCH)
        model = NeuralModel(path, card, torch.device("cpu"), _BATCH)
        model.warm_up()
        return model


class Direct(Oracle):
    """An oracle whose answers come from the model in this process, as the contract releases them, and whose downloads
    are the server's own files. What it knows of the model, its server has told it.
    """

    def __init__(self, address: str, key: str, path: Path, model: Model, contract: Contract) -> None:
        super().__init__(address, key)
        self._path, self._model, self._contract = path, model, contract

    def stream(self, batches: Iterable[tuple[np.ndarray, np.ndarray | int | None]]) -> Iterator[Answer]:
        for inputs, targets in batches:
            budget = self._contract.budget
            if budget is not None and self.spent + len(inputs) > budget:
                raise BudgetSpent("the budget is spent")
            (logits,) = self._model.logits([np.ascontiguousarray(inputs, np.float32)])
            if targets is None:
                self.shared += len(inputs)
            else:
                self.spent_on.update(np.broadcast_to(targets, len(inputs)).tolist())
            released = release(logits, self._contract)
            yield Answer(scores=released.scores, labels=released.labels)

    def _downloaded(self, part: str, suffix: str) -> Path:
        return self._path.with_name(f"{part}.{suffix}") if part else self._path
