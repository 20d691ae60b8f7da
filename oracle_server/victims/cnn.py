"""A small convolutional network: the evaluation network that says whose face a reconstruction shows."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Cnn"]


class Cnn(nn.Module):
    """Three convolutions on the half-size image, each with batch norm, ReLU and max pooling, then one linear layer.

    Each image is standardised on its own first (mean 0, variance 1), so brightness and contrast carry no vote: a
    reconstruction is judged by its structure. The answer to an image does not depend on the rest of the batch.

    Shapes:
        ``(N, 1, H, W)`` in [0, 1] to logits ``(N, classes)``; H and W at least 16.
    """

    def __init__(
        self, classes: int, input_shape: tuple[int, ...] = (1, 112, 92), width: int = 16, dropout: float = 0.3
    ) -> None:
        super().__init__()
        channels, height, columns = input_shape
        if min(height, columns) < 16:
            raise ValueError(f"input_shape must be at least 16 pixels high and wide, not {input_shape}")
        self.features = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(inward, outward, 3, padding=1, bias=False),
                    nn.BatchNorm2d(outward),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                )
                for inward, outward in pairwise((channels, width, 2 * width, 4 * width))
            )
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(4 * width * (height // 16) * (columns // 16), classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        halved = functional.avg_pool2d(images, 2)
        mean = halved.mean((1, 2, 3), keepdim=True)
        variance = (halved - mean).square().mean((1, 2, 3), keepdim=True)
        logits: Tensor = self.head(self.features((halved - mean) * (variance + 1e-4).rsqrt()))
        return logits
