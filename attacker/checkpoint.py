"""A training that goes on where it was stopped, and remembers the weights of its best epoch."""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Training"]


class Training:
    """A network with what trains it, written to `path` at the end of every epoch; `of` names what the training is of.
    Beside it the curves are written as JSON, with times, which no result holds.

    rest    what has a state beside the network: optimisers, schedule
    curves  names of the numbers that every epoch ends with; `curve` holds them and the seconds until its end
    best    the curve whose least value marks the epoch that `keep_best` goes back to; none where it is not called
    """

    def __init__(
        self, path: Path, of: str, network: nn.Module, *rest: Any, curves: Sequence[str], best: str | None = None
    ) -> None:
        self._path, self._of = path, hashlib.sha256(of.encode()).hexdigest()
        self._network, self._rest, self._least = network, rest, best
        self._best = _copy(network) if best else {}
        self.curve: dict[str, list[float]] = {name: [] for name in (*curves, "seconds")}

    @property
    def epochs(self) -> int:
        """How many have ended."""
        return len(self.curve["seconds"])

    @property
    def seconds(self) -> float:
        """That they took, all attempts together."""
        return sum(self.curve["seconds"][-1:])

    def resume(self) -> None:
        """Go on with what the file holds, if it is of the same training. `ValueError` for one that is damaged: a kill
        leaves none, since files are replaced whole.
        """
        if not self._path.exists():
            return
        device = next(self._network.parameters()).device
        try:
            kept = torch.load(self._path, weights_only=True, map_location=device)
            if kept["of"] != self._of:
                return
            self._network.load_state_dict(kept["network"])
            self._best, self.curve = kept["best"], kept["curve"]
            for one, state in zip(self._rest, kept["rest"], strict=True):
                one.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError, TypeError, OSError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"{self._path} is damaged: restore it from a copy, or delete it, and the training starts again"
            ) from error

    def add(self, seconds: float, **values: float) -> None:
        """The end of an epoch: a number for each curve."""
        if self._least and values[self._least] < min(self.curve[self._least], default=math.inf):
            self._best = _copy(self._network)
        for name, value in (values | {"seconds": seconds}).items():
            self.curve[name].append(value)
        kept = {"of": self._of, "network": self._network.state_dict(), "best": self._best, "curve": self.curve}
        part = self._path.with_suffix(".part")
        buffer = io.BytesIO()  # torch itself does not say that a disk is full
        torch.save(kept | {"rest": [one.state_dict() for one in self._rest]}, buffer)
        part.write_bytes(buffer.getbuffer())
        part.replace(self._path)
        part.write_text(json.dumps(self.curve) + "\n")
        part.replace(self._path.with_suffix(".json"))

    def keep_best(self) -> None:
        """Put the weights of the best epoch back into the network."""
        self._network.load_state_dict(self._best)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
