"""MLServer's runtime: its own batching hands over the rows of several requests as one tensor."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers.inside.eager import forward

__all__ = ["Runtime"]


class Runtime(MLModel):
    """The module at `parameters.uri` of the model's settings."""

    async def load(self) -> bool:
        self._forward = forward(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        scores = self._forward(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])
