"""The graph of an exported network, made cheaper to run without a change in what it computes.

    plain(module)          the same graph without the checks of its input, which the server has made already
    channels_last(graph)   weights in the layout that convolutions like; for any shape of batch
    fold(graph)            the arithmetic that does not depend on the input is done once: a batch norm goes into the
                           convolution before it, dropout vanishes, two linear layers with nothing between become
                           one where their product is the smaller matrix

Each takes a graph for inference, changes it in place and gives it back; its weights may be shared with the module that
it came from and are never written to. Rounding differs, to about 1e-6: who uses the graph compares it first.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.graph import CodeGen

__all__ = ["channels_last", "fold", "plain"]

_aten = torch.ops.aten
_CONVOLUTIONS = frozenset(
    op for name in ("conv1d", "conv2d", "conv3d") for op in (getattr(_aten, name).default, getattr(_aten, name).padding)
)
_DROPOUTS = frozenset({_aten.dropout.default, _aten.dropout_.default, _aten.feature_dropout.default})


def plain(module: object) -> fx.GraphModule:
    """A copy of an exported module's graph on the same weights, that takes (N, *shape) and asks nothing of it."""
    if not isinstance(module, fx.GraphModule):
        raise ValueError(f"a {type(module).__name__} is no exported graph")
    graph = copy.deepcopy(module.graph)
    (output,) = graph.find_nodes(op="output")
    (logits,) = output.args[0]
    output.args = (logits,)
    graph.set_codegen(CodeGen())  # takes and gives a tensor, where the exporter's flattens trees of them
    copied = fx.GraphModule(module, graph)
    for part in copied.modules():
        part.training = False
    return copied


def channels_last(graph: fx.GraphModule) -> fx.GraphModule:
    """Weights of convolutions in channels-last order; `ValueError` for a graph that reads memory by its strides."""
    for node in _nodes(graph):
        if node.target is _aten.as_strided.default:
            raise ValueError("as_strided reads wrong numbers in another layout")
        if node.target is _aten.view.default:  # refuses what does not lie in memory row by row
            node.target = _aten.reshape.default
    for number, node in enumerate(_nodes(graph)):
        if node.op == "call_function" and node.target in _CONVOLUTIONS and node.args[1].op == "get_attr":
            weight = _value(graph, node.args[1])
            if weight.dim() == 4 and not weight.is_contiguous(memory_format=torch.channels_last):
                _replace(graph, node, 1, f"_channels_last_{number}", weight.to(memory_format=torch.channels_last))
    return _finished(graph)


def fold(graph: fx.GraphModule) -> fx.GraphModule:
    """Fold batch norms, dropouts and pairs of linear layers; see above."""
    for node in _nodes(graph):
        if node.target in _DROPOUTS and node.args[2] is False:
            _bypass(graph, node, node.args[0])
    for number, node in enumerate(_nodes(graph)):
        if node.target is _aten.batch_norm.default:
            _fold_norm(graph, node, f"_folded_{number}")
        elif node.target is _aten.linear.default:
            _fold_linear(graph, node, f"_folded_{number}")
    return _finished(graph)


def _fold_norm(graph: fx.GraphModule, norm: Any, name: str) -> None:
    """y = gamma (W x + b - mean) / sqrt(var + eps) + beta, as one convolution."""
    before, *parameters, training, _, eps, _ = norm.args
    if training or not _alone(before, _CONVOLUTIONS):
        return
    gamma, beta, mean, var = (_constant(graph, parameter) for parameter in parameters)
    weight, bias = _constants(graph, before)
    if weight is None or mean is None or var is None:
        return
    scale = torch.rsqrt(var + eps) * (1 if gamma is None else gamma)
    shift = (0 if beta is None else beta) - mean * scale
    _replace(graph, before, 1, f"{name}_weight", weight * scale.reshape(-1, *[1] * (weight.dim() - 1)))
    _replace(graph, before, 2, f"{name}_bias", shift if bias is None else shift + bias * scale)
    _bypass(graph, norm, before)


def _fold_linear(graph: fx.GraphModule, second: Any, name: str) -> None:
    """W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2)"""
    first = second.args[0]
    if not _alone(first, {_aten.linear.default}):
        return
    (inner, inner_bias), (outer, outer_bias) = _constants(graph, first), _constants(graph, second)
    if inner is None or outer is None or outer.shape[0] * inner.shape[1] > inner.numel() + outer.numel():
        return
    bias = outer_bias
    if inner_bias is not None:
        bias = outer @ inner_bias + (0 if outer_bias is None else outer_bias)
    _replace(graph, second, 1, f"{name}_weight", outer @ inner)
    if bias is not None:
        _replace(graph, second, 2, f"{name}_bias", bias)
    second.replace_input_with(first, first.args[0])
    graph.graph.erase_node(first)


def _nodes(graph: fx.GraphModule) -> list[Any]:
    return list(graph.graph.nodes)


def _alone(node: Any, targets: Any) -> bool:
    """An operation of these whose answer nobody else reads."""
    return isinstance(node, fx.Node) and node.target in targets and len(node.users) == 1


def _constants(graph: fx.GraphModule, node: fx.Node) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias of an operation, in float64."""
    bias = node.args[2] if len(node.args) > 2 else None
    if isinstance(bias, fx.Node) and bias.op != "get_attr":
        return None, None
    return _constant(graph, node.args[1]), _constant(graph, bias)


def _constant(graph: fx.GraphModule, node: Any) -> Tensor | None:
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    return _value(graph, node).detach().double()


def _value(graph: fx.GraphModule, node: Any) -> Tensor:
    value: Tensor = operator.attrgetter(node.target)(graph)
    return value


def _replace(graph: fx.GraphModule, node: Any, place: int, name: str, value: Tensor) -> None:
    """Give an operation another weight, in the dtype and layout of the one of its first."""
    weight = _value(graph, node.args[1])
    value = value.detach().to(weight.dtype)
    if value.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last):
        value = value.contiguous(memory_format=torch.channels_last)
    graph.register_buffer(name, value)
    with graph.graph.inserting_before(node):
        constant = graph.graph.get_attr(name)
    arguments = [*node.args, *[None] * (place + 1 - len(node.args))]
    arguments[place] = constant
    node.args = tuple(arguments)


def _bypass(graph: fx.GraphModule, node: Any, value: Any) -> None:
    node.replace_all_uses_with(value)
    graph.graph.erase_node(node)


def _finished(graph: fx.GraphModule) -> fx.GraphModule:
    """Without the weights that nothing reads now."""
    for node in reversed(_nodes(graph)):
        if node.op == "get_attr" and not node.users:
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph
