"""The model card: what is public about a hosted model, kept as `card.json` beside its archive."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from protos import RANGE_MARKER
from protos.codec import encode, wire_dtype
from protos.mirage.v1 import oracle_pb2, tensor_pb2
from protos.schema import Feature, Output

__all__ = ["Card", "Part"]


@dataclass(frozen=True)
class Part:
    """A part of a model that is an archive of its own, `<name>.pt2` beside the model's."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Card:
    """A hosted model in plain values.

    input_shape  of one row, without the batch; low and high are the smallest and largest legal value in it
    parameters   number of weights; archive_bytes is the size of model.pt2 and bounds what any interface can give away
    deterministic  served in batches of one fixed shape, so that a row's answer is the same, bit for bit, in any company
    classes      C; 1 for a regression, 0 for a feature model, which has outputs instead
    kind         "neural", "tree", "regression" or "features"; trees and regressions have a schema: features of a row
                 (d,), and a response
    confusion    trees: (C, C) rows of true class i predicted as j, of the `confusion_rows` "training" or "held-out"
    error_std    regressions: standard deviation of the error on the training rows
    parts        what can be downloaded on its own
    outputs      feature models: name and group of each column of an answer, each number in [0, 1]
    joint        the classifier was trained together with a network that inverts it
    accepted_dtypes  what inputs may have instead of float32: "uint8", of which 0 to 255 are low to high, and "float16";
                 see `inputs.to_float32`
    autocast     "float16" or "bfloat16": computed so on CUDA, see `NeuralModel`; empty is float32 throughout
    upstream     "logits" or "probabilities": what the model answers that runs elsewhere and has no archive here
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
    features: tuple[Feature, ...] = ()
    response: Feature | None = None
    confusion: tuple[tuple[int, ...], ...] = ()
    confusion_rows: str = ""
    error_std: float | None = None
    parts: tuple[Part, ...] = ()
    range_marker: str = RANGE_MARKER
    outputs: tuple[Output, ...] = ()
    joint: bool = False
    accepted_dtypes: tuple[str, ...] = ()
    upstream: str = ""
    autocast: str = ""

    def __post_init__(self) -> None:
        if (self.kind == "features") != bool(self.outputs) or (self.outputs and self.classes):
            raise ValueError("outputs belong to feature models, which have at least one and no classes")
        if not set(self.accepted_dtypes) <= {"uint8", "float16"} or (self.accepted_dtypes and self.features):
            raise ValueError("inputs may be uint8 and float16 beside float32, those of a table neither")
        if self.autocast not in ("", "float16", "bfloat16") or (self.autocast and not self.deterministic):
            raise ValueError("autocast is to float16 or bfloat16, and of a deterministic model")
        if self.upstream not in ("", "logits", "probabilities"):
            raise ValueError(f"an upstream answers logits or probabilities, not {self.upstream!r}")
        if self.upstream and (self.archive_bytes or self.archive_sha256 or self.kind != "neural" or self.deterministic):
            raise ValueError("what an upstream answers has no archive here and is not known to be deterministic")

    @property
    def id(self) -> str:
        """`name/version`, as keys and requests name the model."""
        return f"{self.name}/{self.version}"

    @property
    def width(self) -> int:
        """Numbers in the model's own answer to one row: logits, or outputs."""
        return len(self.outputs) or self.classes

    @property
    def groups(self) -> tuple[str, ...]:
        """Of each output of a feature model; empty for all others."""
        return tuple(output.group for output in self.outputs)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Card:
        """The card in a file; `ValueError` with one sentence for anything that this version cannot read."""
        try:
            values = json.loads(path.read_text())
            values["input_shape"] = tuple(values["input_shape"])
            values["features"] = tuple(Feature.from_dict(feature) for feature in values.get("features", ()))
            values["response"] = Feature.from_dict(values["response"]) if values.get("response") else None
            values["confusion"] = tuple(tuple(row) for row in values.get("confusion", ()))
            values["parts"] = tuple(Part(**part) for part in values.get("parts", ()))
            values["accepted_dtypes"] = tuple(values.get("accepted_dtypes", ()))
            values["outputs"] = tuple(Output(**output) for output in values.get("outputs", ()))
            return cls(**values)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is no model card ({error}): import the model again") from error

    def message(self) -> oracle_pb2.ModelCard:
        message = oracle_pb2.ModelCard(
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
            features=[feature.message() for feature in self.features],
            response=self.response.message() if self.response else None,
            confusion_rows=self.confusion_rows,
            error_std=self.error_std,
            archives=[
                oracle_pb2.Archive(name=part.name, bytes=part.bytes, sha256=bytes.fromhex(part.sha256))
                for part in self.parts
            ],
            outputs=[output.message() for output in self.outputs],
            joint=self.joint,
            autocast=self.autocast,
            accepted_dtypes=[wire_dtype(dtype) for dtype in self.accepted_dtypes],
        )
        if self.confusion:
            message.confusion.CopyFrom(encode(np.array(self.confusion, dtype=np.int64)))
        return message
