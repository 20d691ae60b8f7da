"""Feature models: networks whose answer is named numbers in [0, 1], such as age or the place of an eye, not classes.

A row of outputs (D,) is what a commercial service returns for a face: attributes, a pose, landmarks. Each output
belongs to a group, and a contract names the groups that a key gets. The file is the same archive as a classifier's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from oracle_server.models.card import Card
from oracle_server.models.importing import Draft, ModelRefused, host
from oracle_server.models.neural import NeuralModel
from oracle_server.models.repository import Repository
from protos.schema import Output

__all__ = ["FeatureModel", "host_features"]


class FeatureModel(NeuralModel):
    """A feature model as the scheduler wants a model: what it calls logits are the outputs (N, D)."""

    def logits(self, requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs (N, D) float32 of each request, in order. A row with an output outside [0, 1] is NaN, which the
        scheduler refuses as a failure of the model: the capacity counts on that interval.
        """
        answers = super().logits(requests)
        for answer in answers:
            answer[~((answer >= 0) & (answer <= 1)).all(axis=1)] = np.nan
        return answers


def host_features(module: nn.Module | Path, repository: Repository, draft: Draft, outputs: Sequence[Output]) -> Card:
    """Check a feature model, (N, *input_shape) -> (N, D) in [0, 1], and put it into the repository.

    The checks are those of `importing.host`, but for the answer: a column for each of `outputs`, finite and in [0, 1]
    on random inputs. Raises as `host` does, and `ModelRefused` for outputs without names of their own.
    """
    names = [output.name for output in outputs]
    if not names or len(set(names)) < len(names):
        raise ModelRefused("a feature model needs outputs, and no two of them may have the same name")
    return host(module, repository, draft, outputs=outputs)
