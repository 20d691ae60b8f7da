import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from protos.mirage.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Contract(_message.Message):
    __slots__ = ("access", "top_k", "round_to", "features", "defences", "budget", "rate", "expires", "detections")
    class Access(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ACCESS_UNSPECIFIED: _ClassVar[Contract.Access]
        ACCESS_WEIGHTS: _ClassVar[Contract.Access]
        ACCESS_SCORES: _ClassVar[Contract.Access]
        ACCESS_LABEL: _ClassVar[Contract.Access]
    ACCESS_UNSPECIFIED: Contract.Access
    ACCESS_WEIGHTS: Contract.Access
    ACCESS_SCORES: Contract.Access
    ACCESS_LABEL: Contract.Access
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    ROUND_TO_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    DEFENCES_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    access: Contract.Access
    top_k: int
    round_to: float
    features: _containers.RepeatedScalarFieldContainer[str]
    defences: _containers.RepeatedCompositeFieldContainer[Defence]
    budget: int
    rate: float
    expires: _timestamp_pb2.Timestamp
    detections: _containers.RepeatedCompositeFieldContainer[Detection]
    def __init__(self, access: _Optional[_Union[Contract.Access, str]] = ..., top_k: _Optional[int] = ..., round_to: _Optional[float] = ..., features: _Optional[_Iterable[str]] = ..., defences: _Optional[_Iterable[_Union[Defence, _Mapping]]] = ..., budget: _Optional[int] = ..., rate: _Optional[float] = ..., expires: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., detections: _Optional[_Iterable[_Union[Detection, _Mapping]]] = ...) -> None: ...

class Defence(_message.Message):
    __slots__ = ("name", "parameters")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    parameters: _containers.ScalarMap[str, float]
    def __init__(self, name: _Optional[str] = ..., parameters: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Detection(_message.Message):
    __slots__ = ("name", "verdict", "parameters")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    verdict: str
    parameters: _containers.ScalarMap[str, float]
    def __init__(self, name: _Optional[str] = ..., verdict: _Optional[str] = ..., parameters: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Feature(_message.Message):
    __slots__ = ("name", "levels", "low", "high", "prior", "edges")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    PRIOR_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    name: str
    levels: _containers.RepeatedScalarFieldContainer[str]
    low: float
    high: float
    prior: _containers.RepeatedScalarFieldContainer[float]
    edges: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., levels: _Optional[_Iterable[str]] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., prior: _Optional[_Iterable[float]] = ..., edges: _Optional[_Iterable[float]] = ...) -> None: ...

class Output(_message.Message):
    __slots__ = ("name", "group")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    name: str
    group: str
    def __init__(self, name: _Optional[str] = ..., group: _Optional[str] = ...) -> None: ...

class Archive(_message.Message):
    __slots__ = ("name", "bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    bytes: int
    sha256: bytes
    def __init__(self, name: _Optional[str] = ..., bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class ModelCard(_message.Message):
    __slots__ = ("name", "version", "kind", "input_shape", "input_dtype", "low", "high", "classes", "parameters", "archive_bytes", "archive_sha256", "torch_version", "deterministic", "released_dtype", "description", "features", "response", "confusion", "confusion_rows", "error_std", "archives", "outputs", "joint", "accepted_dtypes", "autocast")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    INPUT_DTYPE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_SHA256_FIELD_NUMBER: _ClassVar[int]
    TORCH_VERSION_FIELD_NUMBER: _ClassVar[int]
    DETERMINISTIC_FIELD_NUMBER: _ClassVar[int]
    RELEASED_DTYPE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_ROWS_FIELD_NUMBER: _ClassVar[int]
    ERROR_STD_FIELD_NUMBER: _ClassVar[int]
    ARCHIVES_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    JOINT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_DTYPES_FIELD_NUMBER: _ClassVar[int]
    AUTOCAST_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    kind: str
    input_shape: _containers.RepeatedScalarFieldContainer[int]
    input_dtype: _tensor_pb2.DType
    low: float
    high: float
    classes: int
    parameters: int
    archive_bytes: int
    archive_sha256: bytes
    torch_version: str
    deterministic: bool
    released_dtype: _tensor_pb2.DType
    description: str
    features: _containers.RepeatedCompositeFieldContainer[Feature]
    response: Feature
    confusion: _tensor_pb2.Tensor
    confusion_rows: str
    error_std: float
    archives: _containers.RepeatedCompositeFieldContainer[Archive]
    outputs: _containers.RepeatedCompositeFieldContainer[Output]
    joint: bool
    accepted_dtypes: _containers.RepeatedScalarFieldContainer[_tensor_pb2.DType]
    autocast: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., kind: _Optional[str] = ..., input_shape: _Optional[_Iterable[int]] = ..., input_dtype: _Optional[_Union[_tensor_pb2.DType, str]] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., classes: _Optional[int] = ..., parameters: _Optional[int] = ..., archive_bytes: _Optional[int] = ..., archive_sha256: _Optional[bytes] = ..., torch_version: _Optional[str] = ..., deterministic: bool = ..., released_dtype: _Optional[_Union[_tensor_pb2.DType, str]] = ..., description: _Optional[str] = ..., features: _Optional[_Iterable[_Union[Feature, _Mapping]]] = ..., response: _Optional[_Union[Feature, _Mapping]] = ..., confusion: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., confusion_rows: _Optional[str] = ..., error_std: _Optional[float] = ..., archives: _Optional[_Iterable[_Union[Archive, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[Output, _Mapping]]] = ..., joint: bool = ..., accepted_dtypes: _Optional[_Iterable[_Union[_tensor_pb2.DType, str]]] = ..., autocast: _Optional[str] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("range_marker", "card", "contract", "budget_left", "spent", "max_rows")
    RANGE_MARKER_FIELD_NUMBER: _ClassVar[int]
    CARD_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_LEFT_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    range_marker: str
    card: ModelCard
    contract: Contract
    budget_left: int
    spent: int
    max_rows: int
    def __init__(self, range_marker: _Optional[str] = ..., card: _Optional[_Union[ModelCard, _Mapping]] = ..., contract: _Optional[_Union[Contract, _Mapping]] = ..., budget_left: _Optional[int] = ..., spent: _Optional[int] = ..., max_rows: _Optional[int] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("model", "request_id", "inputs")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    request_id: bytes
    inputs: _tensor_pb2.Tensor
    def __init__(self, model: _Optional[str] = ..., request_id: _Optional[bytes] = ..., inputs: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class TopK(_message.Message):
    __slots__ = ("indices", "values")
    INDICES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    indices: _tensor_pb2.Tensor
    values: _tensor_pb2.Tensor
    def __init__(self, indices: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., values: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("rows_charged", "spent", "budget_left", "sequence", "head")
    ROWS_CHARGED_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_LEFT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    rows_charged: int
    spent: int
    budget_left: int
    sequence: int
    head: bytes
    def __init__(self, rows_charged: _Optional[int] = ..., spent: _Optional[int] = ..., budget_left: _Optional[int] = ..., sequence: _Optional[int] = ..., head: _Optional[bytes] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("scores", "top_k", "labels", "values", "receipt")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    scores: _tensor_pb2.Tensor
    top_k: TopK
    labels: _tensor_pb2.Tensor
    values: _tensor_pb2.Tensor
    receipt: Receipt
    def __init__(self, scores: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., top_k: _Optional[_Union[TopK, _Mapping]] = ..., labels: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., values: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class DownloadRequest(_message.Message):
    __slots__ = ("model", "archive")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_FIELD_NUMBER: _ClassVar[int]
    model: str
    archive: str
    def __init__(self, model: _Optional[str] = ..., archive: _Optional[str] = ...) -> None: ...

class DownloadChunk(_message.Message):
    __slots__ = ("data", "offset", "sha256")
    DATA_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    offset: int
    sha256: bytes
    def __init__(self, data: _Optional[bytes] = ..., offset: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class UsageRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class UsageResponse(_message.Message):
    __slots__ = ("key_id", "model", "spent", "budget_left", "capacity_bits", "downloads")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_LEFT_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BITS_FIELD_NUMBER: _ClassVar[int]
    DOWNLOADS_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    model: str
    spent: int
    budget_left: int
    capacity_bits: float
    downloads: int
    def __init__(self, key_id: _Optional[str] = ..., model: _Optional[str] = ..., spent: _Optional[int] = ..., budget_left: _Optional[int] = ..., capacity_bits: _Optional[float] = ..., downloads: _Optional[int] = ...) -> None: ...
