"""Triton's Python backend: the requests of one dynamic batch go through one forward pass."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from benchmarks.peers.inside.eager import forward

__all__ = ["TritonPythonModel"]


class TritonPythonModel:
    """The module whose file is the parameter `path` of the model's configuration."""

    def initialize(self, args: dict[str, str]) -> None:
        self._forward = forward(json.loads(args["model_config"])["parameters"]["path"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        rows = [triton.get_input_tensor_by_name(request, "rows").as_numpy() for request in requests]
        scores = np.split(self._forward(np.concatenate(rows)), np.cumsum([len(each) for each in rows])[:-1])
        return [triton.InferenceResponse([triton.Tensor("scores", each)]) for each in scores]
