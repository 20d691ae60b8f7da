"""Early layers that never saw a private photo.

S. T. Ho, K. J. Hao, K. Chandrasegaran, N.-B. Nguyen, N.-M. Cheung, "Model inversion robustness: can transfer learning
help?", CVPR 2024, section 4 (TL-DMI).

    here      paper                      meaning
    frozen    |theta_0| .. |theta_C|     how many of the first blocks keep what they learned from public people
    public    f_theta trained on D_pretrain
    module    f_theta fine-tuned on D_priv: blocks behind the frozen ones, and a new head

Pre-training and fine-tuning have the same recipe. A frozen block keeps its batch norm's statistics too.

Differences from the reference: it pre-trains on a larger data set, here it is the people whom the split publishes, with
their labels, which the victim's side has; what is frozen is counted in blocks, not in parameters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from defenses.training.defence import TrainingDefence
from defenses.training.structure import blocks

__all__ = ["Transfer"]


@dataclass(frozen=True)
class Transfer(TrainingDefence):
    """`frozen` blocks of features, at most all; 0 is the baseline, which is not pre-trained either.

    Raises:
        ValueError: a negative number; in `wrap`, more than the module has.
    """

    frozen: int

    def __post_init__(self) -> None:
        if self.frozen < 0:
            raise ValueError(f"frozen={self.frozen} must be a number of blocks from 0")

    @property
    def off(self) -> bool:
        return self.frozen == 0

    @property
    def starts_from_public(self) -> bool:
        return True

    def wrap(self, module: nn.Module, classes: int) -> nn.Module:
        if self.frozen > (most := len(blocks(module))):
            raise ValueError(f"frozen={self.frozen}, but {type(module).__name__} has {most} blocks of features")
        return module

    def start(self, module: nn.Module, public: nn.Module) -> None:
        for ours, theirs in zip(blocks(module), blocks(public), strict=True):
            ours.load_state_dict(theirs.state_dict())

    @contextlib.contextmanager
    def running(
        self, module: nn.Module, optimiser: torch.optim.Optimizer, rows: int, batch_size: int, seed: int
    ) -> Iterator[tuple[nn.Module, torch.optim.Optimizer]]:
        for block in blocks(module)[: self.frozen]:
            block.eval().requires_grad_(False)  # without a gradient no optimiser moves or decays it
        yield module, optimiser
