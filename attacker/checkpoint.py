"""A training that goes on where it was stopped, and remembers the weights of its best epoch."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Training"]


class Training:
    """A network with what trains it, written to `path` after every epoch; `of` names what the training is of. Beside it
    the curve is written as JSON, with times, which no result holds.

    rest    what has a state beside the network: optimiser, schedule
    curve   of each epoch: mean squared errors on training and held-out images, and the seconds until its end
    """

    def __init__(self, path: Path, of: str, network: nn.Module, *rest: Any) -> None:
        self._path, self._of = path, hashlib.sha256(of.encode()).hexdigest()
        self._network, self._rest = network, rest
        self._best = _copy(network)
        self.curve: dict[str, list[float]] = {"training_mse": [], "held_out_mse": [], "seconds": []}

    def resume(self) -> None:
        """Go on with what the file holds, if it is of the same training."""
        if not self._path.exists():
            return
        device = next(self._network.parameters()).device
        kept = torch.load(self._path, weights_only=True, map_location=device)
        if kept["of"] != self._of:
            return
        self._network.load_state_dict(kept["network"])
        self._best, self.curve = kept["best"], kept["curve"]
        for one, state in zip(self._rest, kept["rest"], strict=True):
            one.load_state_dict(state)

    def add(self, training_mse: float, held_out_mse: float, seconds: float) -> None:
        """The end of an epoch."""
        if held_out_mse < min(self.curve["held_out_mse"], default=math.inf):
            self._best = _copy(self._network)
        for name, value in zip(self.curve, (training_mse, held_out_mse, seconds), strict=True):
            self.curve[name].append(value)
        kept = {"of": self._of, "network": self._network.state_dict(), "best": self._best, "curve": self.curve}
        part = self._path.with_suffix(".part")
        torch.save(kept | {"rest": [one.state_dict() for one in self._rest]}, part)
        part.replace(self._path)
        part.write_text(json.dumps(self.curve) + "\n")
        part.replace(self._path.with_suffix(".json"))

    def keep_best(self) -> None:
        """Put the weights of the epoch with the least held-out error back into the network."""
        self._network.load_state_dict(self._best)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
