"""Images as `data:` addresses, so that the page needs no file beside it."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

__all__ = ["data_address"]


def data_address(image: np.ndarray, *, stretch: bool = False) -> str:
    """A (1, H, W) or (3, H, W) image in [0, 1] as a PNG `data:` address. Values outside are clipped, NaN is black.

    `stretch` spreads the values between the 1st and the 99th percentile over black to white, for dark images to be
    seen. Raises `ValueError` for another number of channels.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"an image must be (1, H, W) or (3, H, W) to be shown, got {image.shape}")
    shown = np.nan_to_num(image, nan=0.0).clip(0, 1)
    low, high = np.percentile(shown, (1, 99)) if stretch else (0.0, 1.0)
    if high > low:
        shown = ((shown - low) / (high - low)).clip(0, 1)
    levels = np.rint(shown * 255).astype(np.uint8)
    pixels = levels[0] if image.shape[0] == 1 else levels.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
