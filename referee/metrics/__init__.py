"""What is measured on a reconstruction, and how sure the measurement is."""

from __future__ import annotations

from referee.metrics.embedding import embed
from referee.metrics.frechet import frechet_distance
from referee.metrics.images import mse, psnr, ssim
from referee.metrics.intervals import Interval, clustered_interval
from referee.metrics.neighbours import Nearness, nearness
from referee.metrics.prdc import Prdc, prdc, prdc_by_class
from referee.metrics.recognition import (
    ClassSimilarity,
    Recognition,
    class_similarity,
    recognise,
    true_confidence,
)
from referee.metrics.tries import any_of

__all__ = [
    "ClassSimilarity",
    "Interval",
    "Nearness",
    "Prdc",
    "Recognition",
    "any_of",
    "class_similarity",
    "clustered_interval",
    "embed",
    "frechet_distance",
    "mse",
    "nearness",
    "prdc",
    "prdc_by_class",
    "psnr",
    "recognise",
    "ssim",
    "true_confidence",
]
