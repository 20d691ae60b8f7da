"""A downloaded model on its device, for attacks that know of none."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["OnDevice"]


class OnDevice(nn.Module):
    """Takes and gives tensors of the CPU, wherever `model` computes; gradients pass through."""

    def __init__(self, model: nn.Module, device: torch.device | str) -> None:
        super().__init__()
        self._model, self._device = model, torch.device(device)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self._model(x.to(self._device))
        return logits.to(x.device)
