"""The models of the benchmarks. Peers import this as well, where there is torch and this project, and no more."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision.models import resnet18

from oracle_server.victims.conv_classifier import ConvClassifier
from oracle_server.victims.softmax_regression import SoftmaxRegression

__all__ = ["CLASSES", "MODELS"]

CLASSES = 40


def _softmax(shape: tuple[int, ...]) -> nn.Module:
    softmax = SoftmaxRegression(CLASSES, shape)
    nn.init.normal_(softmax.linear.weight, std=0.01)
    return softmax


# By name: what makes it for rows of a shape. The weights are random; what they are does not change the time.
MODELS: dict[str, Callable[[tuple[int, ...]], nn.Module]] = {
    "softmax": _softmax,
    "cnn": lambda shape: ConvClassifier(530, shape),  # four blocks, of 32 to 256 channels, from 64 pixels on
    "resnet18": lambda shape: resnet18(num_classes=1000),
}
