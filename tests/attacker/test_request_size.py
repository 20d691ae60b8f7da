"""How many rows the client puts into a request."""

from __future__ import annotations

import pytest

from attacker.oracle import _rows_of_a_request
from protos.mirage.v1 import oracle_pb2 as pb
from protos.mirage.v1.tensor_pb2 import DTYPE_FLOAT32, DTYPE_UINT8, DType


@pytest.mark.parametrize(
    ("shape", "dtype", "max_rows", "rows"),
    [
        ((1, 112, 92), DTYPE_FLOAT32, 1024, 64),  # 2.6 MB
        ((1, 112, 92), DTYPE_UINT8, 1024, 256),
        ((3, 224, 224), DTYPE_FLOAT32, 1024, 4),
        ((1, 28, 28), DTYPE_FLOAT32, 1024, 1024),
        ((1, 112, 92), DTYPE_FLOAT32, 50, 50),  # what the server takes, if that is less
        ((3, 2048, 2048), DTYPE_FLOAT32, 1024, 1),  # never none, however large a row is
    ],
)
def test_a_request_has_as_many_rows_as_go_fast(shape: tuple[int, ...], dtype: DType, max_rows: int, rows: int) -> None:
    card = pb.ModelCard(input_shape=shape, input_dtype=dtype)
    assert _rows_of_a_request(pb.DescribeResponse(card=card, max_rows=max_rows)) == rows
