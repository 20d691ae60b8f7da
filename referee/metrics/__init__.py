"""What is measured on a reconstruction, and how sure the measurement is."""

from __future__ import annotations

from referee.metrics.images import mse, psnr, ssim
from referee.metrics.intervals import Interval, clustered_interval
from referee.metrics.recognition import (
    ClassSimilarity,
    Recognition,
    class_similarity,
    recognise,
    true_confidence,
)

__all__ = [
    "ClassSimilarity",
    "Interval",
    "Recognition",
    "class_similarity",
    "clustered_interval",
    "mse",
    "psnr",
    "recognise",
    "ssim",
    "true_confidence",
]
