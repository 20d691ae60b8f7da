"""Scores in an answer of the Open Inference Protocol, which two of the peers speak."""

from __future__ import annotations

import numpy as np

from protos.inference.open_inference_pb2 import ModelInferResponse

__all__ = ["scores"]


def scores(answer: bytes) -> np.ndarray:
    """The first output, float32, from raw contents or from those that came one by one."""
    response = ModelInferResponse.FromString(answer)
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[0], "<f4")
    return np.array(response.outputs[0].contents.fp32_contents, np.float32)
