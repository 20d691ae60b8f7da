"""Which layers of a classifier a method works on, by rules that need no knowledge of its class.

blocks         the children of `features`, where the module has such a sequence: convolution, norm, ReLU, pooling
hidden layers  the blocks, then every `nn.Linear` outside of them but the last
last linear    the last `nn.Linear` in the order of `named_modules`: it must give a logit for each class
"""

from __future__ import annotations

from torch import nn

__all__ = ["blocks", "hidden_layers", "last_linear"]


def blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks of features, first to last; empty for a module without."""
    features = getattr(module, "features", None)
    return list(features.children()) if isinstance(features, nn.Sequential) else []


def hidden_layers(module: nn.Module) -> list[nn.Module]:
    """Layers whose outputs lie between input and logits; `ValueError` for a module that has none."""
    inside = {id(layer) for block in blocks(module) for layer in block.modules()}
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear) and id(layer) not in inside]
    found = [*blocks(module), *linear[:-1]]
    if not found:
        raise ValueError(f"{type(module).__name__} has no hidden layers: choose cnn or conv_classifier for example")
    return found


def last_linear(module: nn.Module, classes: int) -> tuple[nn.Module, str, nn.Linear]:
    """Parent, name within the parent, and the layer; `ValueError` where the rule finds none behind hidden layers."""
    hidden_layers(module)
    found = [(path, layer) for path, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if not found or found[-1][1].out_features != classes:
        raise ValueError(f"{type(module).__name__} does not end in a linear layer of {classes} logits")
    path, layer = found[-1]
    parent, _, name = path.rpartition(".")
    return module.get_submodule(parent), name, layer
