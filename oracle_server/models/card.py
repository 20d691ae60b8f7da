"""The model card: what is public about a hosted model, kept as `card.json` beside its archive."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from protos import RANGE_MARKER
from protos.codec import wire_dtype
from protos.mirage.v1 import oracle_pb2, tensor_pb2

__all__ = ["Card"]


@dataclass(frozen=True)
class Card:
    """A hosted model in plain values.

    input_shape  of one row, without the batch; low and high are the smallest and largest legal value in it
    parameters   number of weights; archive_bytes is the size of model.pt2 and bounds what any interface can give away
    deterministic  served in batches of one fixed shape, so that a row's answer is the same, bit for bit, in any company
    """

    name: str
    version: str
    input_shape: tuple[int, ...]
    low: float
    high: float
    classes: int
    parameters: int
    archive_bytes: int
    archive_sha256: str
    torch_version: str
    kind: str = "neural"
    input_dtype: str = "float32"
    deterministic: bool = False
    description: str = ""
    range_marker: str = RANGE_MARKER

    @property
    def id(self) -> str:
        """`name/version`, as keys and requests name the model."""
        return f"{self.name}/{self.version}"

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Card:
        """The card in a file; `ValueError` with one sentence for anything that this version cannot read."""
        try:
            values = json.loads(path.read_text())
            return cls(**(values | {"input_shape": tuple(values["input_shape"])}))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is no model card ({error}): import the model again") from error

    def message(self) -> oracle_pb2.ModelCard:
        return oracle_pb2.ModelCard(
            name=self.name,
            version=self.version,
            kind=self.kind,
            input_shape=self.input_shape,
            input_dtype=wire_dtype(self.input_dtype),
            low=self.low,
            high=self.high,
            classes=self.classes,
            parameters=self.parameters,
            archive_bytes=self.archive_bytes,
            archive_sha256=bytes.fromhex(self.archive_sha256),
            torch_version=self.torch_version,
            deterministic=self.deterministic,
            released_dtype=tensor_pb2.DTYPE_FLOAT64,
            description=self.description,
        )
