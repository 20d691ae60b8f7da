"""The convolutional classifier that Yang et al. invert: what their targets are."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

__all__ = ["ConvClassifier"]

_LARGE = 64  # from this height and width on a fourth block


class ConvClassifier(nn.Module):
    """Blocks of a 3x3 convolution, batch norm, 2x2 max pooling and ReLU, then two linear layers.

    Three blocks, of `width`, 2 * `width` and 4 * `width` channels; a fourth of 8 * `width` for images of 64 pixels and
    more. The first linear layer has five units for each class, at least 50, and half of them are dropped while it
    learns. There is nothing between the linear layers otherwise.

    Shapes:
        ``(N, C, H, W)`` in [0, 1] to logits ``(N, classes)``; H and W at least 8.

    Reference:
        Z. Yang, J. Zhang, E.-C. Chang, Z. Liang, Neural Network Inversion in Adversarial Setting via Background
        Knowledge Alignment, CCS 2019, section 5.1 and appendix B.
    """

    def __init__(self, classes: int, input_shape: tuple[int, ...] = (1, 64, 64), width: int = 32) -> None:
        super().__init__()
        if len(input_shape) != 3 or min(input_shape[1:]) < 8:
            raise ValueError(f"input_shape must be (C, H, W), at least 8 pixels high and wide, not {input_shape}")
        if classes < 1 or width < 1:
            raise ValueError(f"classes and width must be at least 1, not {classes} and {width}")
        channels, height, columns = input_shape
        blocks = 4 if min(height, columns) >= _LARGE else 3
        self.features = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(inward, outward, 3, padding=1, bias=False),  # the norm has one
                    nn.BatchNorm2d(outward),
                    nn.MaxPool2d(2),
                    nn.ReLU(),
                )
                for inward, outward in pairwise((channels, *(width << block for block in range(blocks))))
            )
        )
        hidden = max(50, 5 * classes)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear((width << (blocks - 1)) * (height >> blocks) * (columns >> blocks), hidden),
            nn.Dropout(0.5),
            nn.Linear(hidden, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits
