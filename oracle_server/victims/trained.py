"""A trained model and where it came from; what was trained once is found in the cache the next time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from oracle_server.victims import cache as model_cache

__all__ = ["Epoch", "Progress", "Trained", "seeded", "trained_once"]


class Epoch(NamedTuple):
    """Where a training stands, after `number` of at most `total` epochs; error is the share of wrong training rows."""

    number: int
    total: int
    loss: float
    error: float


Progress = Callable[[Epoch], None]


@dataclass(frozen=True)
class Trained:
    """A model in evaluation mode, its parameters without gradient, and where it came from.

    Attributes:
        module: takes ``(N, *input_shape)`` in [0, 1], returns logits ``(N, classes)``.
        key: hash of everything that made it.
        folder: the cache entry; its ``card.json`` lists the rows that the model has seen.
        card: the content of that file.
        cached: True when nothing was trained in this call.
    """

    module: nn.Module
    key: str
    folder: Path
    card: dict[str, Any]
    cached: bool


def trained_once(
    make: Callable[[], nn.Module],
    train: Callable[[nn.Module], Epoch],
    made_by: Mapping[str, Any],
    *,
    device: str,
    cache: Path | None = None,
    noted: Mapping[str, Any] | None = None,
) -> Trained:
    """A module that `make` starts from ``made_by["seed"]`` and `train` trains, or its weights out of the cache.

    Args:
        made_by: everything that decides the weights, ``seed`` among it.
        noted: what the cache entry's card says besides.
    """
    key = model_cache.key_of(made_by)
    folder = (cache or model_cache.root()) / "victims" / key
    with seeded(made_by["seed"], device):
        module = make().to(device)
        found = model_cache.find(folder)
        if found is None:
            began = time.monotonic()
            last = train(module)
            card = {
                **made_by,
                **(noted or {}),
                "epochs": last.number,
                "training_error": last.error,
                "training_loss": last.loss,
                "seconds": round(time.monotonic() - began, 3),
            }
            model_cache.store(folder, module.state_dict(), card)
        else:
            state, card = found
            module.load_state_dict(state)
    return Trained(module.eval().requires_grad_(False), key, folder, card, cached=found is not None)


@contextlib.contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Torch's own generators start from `seed` and are as before afterwards; kernels are deterministic ones."""
    cuda = torch.device(device).type == "cuda"
    with (
        torch.random.fork_rng(devices=[torch.device(device)] if cuda else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        torch.enable_grad(),
    ):
        torch.manual_seed(seed)
        yield
