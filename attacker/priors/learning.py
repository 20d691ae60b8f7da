"""What a prior's training is given and what it hands back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from attacker.priors.codes import Codes

__all__ = ["Learned", "Learning"]


@dataclass(frozen=True)
class Learning:
    """Where a training runs and leaves its state.

    folder    of checkpoints, for a training that is resumed
    device    that computes
    low, high range of the images
    progress  called with (steps done, steps in all, a few words)
    """

    folder: Path
    device: torch.device | str = "cpu"
    low: float = 0.0
    high: float = 1.0
    progress: Callable[[int, int, str], None] = lambda done, total, words: None

    @property
    def checkpoint(self) -> Path:
        """The state of a training that has not ended; deleted when its prior is written."""
        return self.folder / "training.pt"


@dataclass(frozen=True, eq=False)
class Learned:
    """A generator (N, m) -> images in [low, high], on the CPU and in evaluation mode, the distribution of its codes,
    and an encoder and a critic where there are such.
    """

    generator: nn.Module
    codes: Codes
    encoder: nn.Module | None = None
    critic: nn.Module | None = None
