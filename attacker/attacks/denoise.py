"""A clean-up of the iterates of a descent: non-local means, then a Gaussian sharpening.

Z. Yang, J. Zhang, E.-C. Chang, Z. Liang, "Neural Network Inversion in Adversarial Setting via Background Knowledge
Alignment", CCS 2019, section 5.5: "Process function: a NLMeans denoising filter followed by a Gaussian sharpening
filter". The paper names neither strengths nor windows; these are the defaults of `mi_face_code`, whose PROCESS-DAE
(Fredrikson et al., CCS 2015, Algorithm 2) has the same filters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = ["clean", "denoising", "filters"]

_PATCH, _DISTANCE, _RADIUS = 5, 6, 2.0  # pixels: compared patches, how far apart they are, reach of the sharpening
_STRENGTH, _SHARPEN = 0.05, 1.0  # h as a share of the range of an input, amount of the unsharp mask


def denoising(shape: tuple[int, ...], low: float, high: float, every: int = 10) -> Callable[[Tensor, int], Tensor]:
    """PROCESS for `MIFace.descend`: cleans all iterates (N, *shape) when `every` more steps have been made.

    Raises `ValueError` with one sentence: rows that are no images (C, H, W), every below 1, scikit-image is missing.
    """
    if len(shape) != 3:
        raise ValueError(f"process='denoise' cleans images (C, H, W), the model takes {shape}: use process='none'")
    if every < 1:
        raise ValueError(f"process_every={every} must be at least 1; process='none' leaves the clean-up out")
    filters()  # a missing package shows before the first step

    def process(x: Tensor, i: int) -> Tensor:
        return x if i % every else clean(x, _STRENGTH, _SHARPEN, low, high)

    return process


def clean(images: Tensor, denoise: float, sharpen: float, low: float, high: float) -> Tensor:
    """Images (N, C, H, W) in [low, high], each cleaned on its own and clipped; a strength of 0 leaves that filter out.

    denoise is the h of the non-local means as a share of high - low, sharpen the amount of the unsharp mask.
    """
    denoise_nl_means, unsharp_mask = filters()
    x = images.numpy()
    if denoise > 0:
        h = denoise * (high - low)
        windows = {"patch_size": _PATCH, "patch_distance": _DISTANCE, "h": h, "fast_mode": True, "channel_axis": -1}
        last = np.moveaxis(x, 1, -1)  # channels: the library drops a single one, and in front confuses it with rows
        cleaner = [denoise_nl_means(image, **windows) for image in last]  # it takes one image at a time
        x = np.moveaxis(np.stack(cleaner).reshape(last.shape), -1, 1)
    if sharpen > 0:
        planes = x.reshape(-1, *x.shape[2:])
        x = unsharp_mask(planes, _RADIUS, sharpen, preserve_range=True, channel_axis=0).reshape(x.shape)
    return torch.from_numpy(np.asarray(x, np.float32)).clamp(low, high)


def filters() -> tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]:
    """scikit-image's two filters, imported only where they are used: an attacker without them has the other methods."""
    try:
        from skimage.filters import unsharp_mask
        from skimage.restoration import denoise_nl_means
    except ImportError:
        raise ValueError(
            "process needs scikit-image: pip install 'mirage-range[attacks]', or leave the clean-up out"
        ) from None
    return denoise_nl_means, unsharp_mask
