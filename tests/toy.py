"""Targets whose answers are known in closed form, and an oracle without a network that keeps a contract."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from attacker.answers import Answer
from attacker.snapshot import Snapshot

__all__ = [
    "FULL",
    "LABEL",
    "SHAPE",
    "WEIGHTS",
    "Answer",
    "C",
    "Contract",
    "D",
    "ToyOracle",
    "block_corner",
    "blocks",
    "centred",
    "confidences",
    "constant",
    "correlation",
    "finish",
    "random_model",
    "relative_error",
    "release",
    "softmax_regression",
]


@dataclass(frozen=True)
class Contract:
    """The part of a contract that an attack reads."""

    access: str = "scores"
    top_k: int | None = None
    round_to: float | None = None


WEIGHTS, FULL, LABEL = Contract("weights"), Contract(), Contract("label")
SHAPE, D, C = (1, 4, 6), 24, 4  # of the images, of their pixels, of the classes that most tests use


def release(logits: np.ndarray, contract: Contract) -> Answer:
    """What leaves for logits (N, C): softmax in float64, rounded, then the k largest, ties to the lower class."""
    z = logits.astype(np.float64)
    if contract.access == "label":
        return Answer(labels=z.argmax(1))
    scores = np.exp(z - z.max(1, keepdims=True))
    scores /= scores.sum(1, keepdims=True)
    if contract.round_to:
        scores = np.rint(scores / contract.round_to) * contract.round_to
    if contract.top_k:
        withheld = np.argsort(-scores, axis=1, kind="stable")[:, contract.top_k :]
        np.put_along_axis(scores, withheld, np.nan, axis=1)
    return Answer(scores=scores)


class ToyOracle:
    """The members of `attacker.oracle.Oracle` that attacks use, around a model in this process.

    Every row is checked against the legal range and counted. Like the real one it takes up to three batches before it
    gives the first answer, so that an attack which relies on one at a time is caught.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: tuple[int, ...],
        contract: Contract | None = None,
        *,
        max_rows: int = 7,
        low: float = 0.0,
        high: float = 1.0,
    ) -> None:
        self._model, self.input_shape, self.contract = model, input_shape, contract or Contract()
        self.max_rows, self.low, self.high = max_rows, low, high
        with torch.no_grad():
            self.classes = model(torch.full((1, *input_shape), low)).shape[1]
        self.shared, self.spent_on = 0, Counter[int]()
        self.kind, self.device = "neural", "cpu"
        self.asked: list[np.ndarray] = []

    @cached_property
    def folder(self) -> Path:
        """The run's own folder, gone with the oracle."""
        path = Path(tempfile.mkdtemp(prefix="toy-"))
        weakref.finalize(self, shutil.rmtree, path)
        return path

    def notice(self, text: str) -> None:
        assert text

    @property
    def spent(self) -> int:
        return self.shared + self.spent_on.total()

    def stream(self, batches: Iterable[tuple[np.ndarray, np.ndarray | int | None]]) -> Iterator[Answer]:
        window: deque[Answer] = deque()
        for inputs, targets in batches:
            window.append(self._answer(inputs, targets))
            if len(window) == 3:
                yield window.popleft()
        yield from window

    def query(self, inputs: np.ndarray, targets: np.ndarray | int | None = None) -> Answer:
        parts = [slice(first, first + self.max_rows) for first in range(0, len(inputs), self.max_rows)]
        tags = [targets[part] if isinstance(targets, np.ndarray) else targets for part in parts]
        answers = list(self.stream((inputs[part], tag) for part, tag in zip(parts, tags, strict=True)))
        scores = [answer.scores for answer in answers if answer.scores is not None]
        labels = [answer.labels for answer in answers if answer.labels is not None]
        return Answer(np.concatenate(scores) if scores else None, np.concatenate(labels) if labels else None)

    def model(self) -> nn.Module:
        assert self.contract.access == "weights", "the download was refused"
        return self._model

    def _answer(self, inputs: np.ndarray, targets: np.ndarray | int | None) -> Answer:
        assert inputs.dtype == np.float32, inputs.dtype
        assert inputs.shape[1:] == self.input_shape, inputs.shape
        assert 1 <= len(inputs) <= self.max_rows, inputs.shape
        assert np.isfinite(inputs).all()
        assert self.low <= inputs.min(), inputs.min()
        assert inputs.max() <= self.high, inputs.max()
        if targets is None:
            self.shared += len(inputs)
        else:
            tags = np.broadcast_to(targets, len(inputs))
            assert ((tags >= 0) & (tags < self.classes)).all(), tags
            self.spent_on.update(tags.tolist())
        self.asked.append(inputs.copy())
        with torch.no_grad():
            return release(self._model(torch.from_numpy(self.asked[-1])).numpy(), self.contract)


def softmax_regression(weight: np.ndarray, bias: np.ndarray | None = None) -> nn.Module:
    """z = W x + b in float32, from W (C, d) and b (C,)."""
    linear = nn.Linear(weight.shape[1], weight.shape[0]).requires_grad_(False)
    linear.weight.copy_(torch.from_numpy(weight))
    linear.bias.copy_(torch.from_numpy(np.zeros(len(weight)) if bias is None else bias))
    return nn.Sequential(nn.Flatten(), linear)


def blocks(classes: int = 4, pixels: int = 6, gain: float = 2.0) -> nn.Module:
    """z_c = gain * (sum of the pixels of block c): the score of class c is highest at `block_corner(c)`.

    There it is 1 / (1 + (classes - 1) exp(-gain * pixels)); at the zero image it is 1 / classes, and its gradient is
    gain (1/C - 1/C^2) on block c and -gain / C^2 elsewhere.
    """
    return softmax_regression(gain * np.kron(np.eye(classes), np.ones(pixels)))


def block_corner(c: int, classes: int = 4, pixels: int = 6) -> np.ndarray:
    """The image at which `blocks` is surest of class c: block c high, all else low; (classes * pixels,)."""
    return np.kron(np.eye(classes), np.ones(pixels))[c]


def constant(classes: int, pixels: int) -> nn.Module:
    """A model that looks at nothing: equal scores everywhere, no gradient."""
    return softmax_regression(np.zeros((classes, pixels)))


def random_model(seed: int = 0, classes: int = C, pixels: int = D, spread: float = 1.0, bias: float = 0.2) -> nn.Module:
    rng = np.random.default_rng(seed)
    return softmax_regression(rng.normal(scale=spread, size=(classes, pixels)), rng.normal(scale=bias, size=classes))


def finish(method: Any, oracle: ToyOracle, targets: Sequence[int] = range(C), seed: int = 0) -> Snapshot:
    *_, last = method.run(oracle, list(targets), seed)
    assert isinstance(last, Snapshot)
    return last


def confidences(model: nn.Module, images: np.ndarray, targets: Sequence[int] = range(C)) -> np.ndarray:
    """The target's own score of each image, (T,)."""
    p = model(torch.from_numpy(images)).double().softmax(1).numpy()
    return p[np.arange(len(images)), list(targets)]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def centred(model: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    weight, bias = model[1].weight.double().numpy(), model[1].bias.double().numpy()  # type: ignore[index, union-attr, operator]
    return weight - weight.mean(0), bias - bias.mean()


def relative_error(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))
