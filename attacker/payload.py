"""In which dtype inputs travel: whoever holds photos as bytes need not make floats of them."""

from __future__ import annotations

import numpy as np

__all__ = ["payload"]


def payload(inputs: np.ndarray, dtype: str, accepted: tuple[str, ...]) -> np.ndarray:
    """`inputs` (N, *shape) as they are sent, in row-major order: uint8 and float16 as they are where the card accepts
    them, all others as values of its own `dtype`, float16 among them since nothing is lost.

    `ValueError` for uint8 that is not accepted: its 0 to 255 stand for the whole range elsewhere, and would be taken
    for values here.

    >>> payload(np.uint8([[0, 255]]), "float32", ("uint8",)).dtype
    dtype('uint8')
    """
    if inputs.dtype.name in accepted:
        return np.ascontiguousarray(inputs)
    if inputs.dtype == np.uint8:
        raise ValueError(f"this model takes no uint8 inputs: send {dtype} values of its range")
    return np.ascontiguousarray(inputs, dtype=dtype)
