"""Where the rows of a pass are put together before they go to the device.

On CUDA there are two pinned buffers in turn, copied on a stream of their own: while the device computes one pass, the
next is filled and copied.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["Staging", "as_tensor", "staging"]


class Staging(Protocol):
    def next(self) -> np.ndarray:
        """The buffer of the next pass, (batch, *shape) float32."""

    def tensor(self, filled: int, rows: int) -> Tensor:
        """The first `rows` rows of that buffer on the device; those from `filled` on are zeros."""


def staging(device: torch.device, shape: tuple[int, ...]) -> Staging:
    """Buffers (batch, *shape) for a device."""
    return _Pinned(device, shape) if device.type == "cuda" else _Direct(device, shape)


def as_tensor(rows: np.ndarray) -> Tensor:
    """The same memory as a tensor, which torch takes from writable arrays alone: nobody may write to it."""
    return torch.from_numpy(np.asarray(_Writable(rows)))


class _Writable:
    """Says of an array that it may be written to, and keeps it alive."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows
        interface = rows.__array_interface__
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}


class _Direct:
    def __init__(self, device: torch.device, shape: tuple[int, ...]) -> None:
        self._device = device
        self._buffer = torch.zeros(shape)
        self._rows = self._buffer.numpy()

    def next(self) -> np.ndarray:
        return self._rows

    def tensor(self, filled: int, rows: int) -> Tensor:
        self._rows[filled:rows] = 0
        return self._buffer[:rows].to(self._device)


class _Pinned:
    def __init__(self, device: torch.device, shape: tuple[int, ...]) -> None:
        self._device = device
        self._buffers = [torch.zeros(shape, pin_memory=True) for _ in range(2)]
        self._copied = [torch.cuda.Event() for _ in range(2)]
        self._stream = torch.cuda.Stream(device)
        self._turn = 0

    def next(self) -> np.ndarray:
        self._turn = 1 - self._turn
        self._copied[self._turn].synchronize()  # its last pass has left it
        return self._buffers[self._turn].numpy()

    def tensor(self, filled: int, rows: int) -> Tensor:
        buffer = self._buffers[self._turn]
        buffer[filled:rows] = 0
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            on_device = buffer[:rows].to(self._device, non_blocking=True)
            self._copied[self._turn].record()
        computing.wait_event(self._copied[self._turn])
        on_device.record_stream(computing)  # its memory is not free before the pass that reads it is done
        return on_device
