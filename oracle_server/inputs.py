"""What an input must be before anything is charged: shape, dtype, number of rows, finiteness, range."""

from __future__ import annotations

import numpy as np

from oracle_server.errors import Reason, Refusal
from oracle_server.models.card import Card
from protos.codec import CodecError, decode, dtype_name
from protos.mirage.v1 import oracle_pb2

__all__ = ["decode_inputs", "largest_batch"]

_REQUEST_ID = range(16, 65)


def largest_batch(card: Card, message_bytes: int, most: int) -> int:
    """Rows whose inputs fit into one message of `message_bytes`, and whose answers do, with a little left for the rest
    of both; at most `most`.
    """
    asked = int(np.prod(card.input_shape)) * np.dtype(card.input_dtype).itemsize
    row = max(asked, 16 * card.width)  # a released score is 8 bytes, beside its index of 8 under top-k
    return max(1, min(most, (message_bytes - 4096) // row))


def decode_inputs(request: oracle_pb2.PredictRequest, card: Card, max_rows: int) -> np.ndarray:
    """The rows (N, *shape) of a request, a view of its bytes, or a `Refusal` that says what to send instead."""
    if len(request.request_id) not in _REQUEST_ID:
        raise Refusal(
            Reason.BAD_INPUT,
            f"the request id has {len(request.request_id)} bytes: send 16 to 64 that no other request of this key has",
        )
    wanted = f"{card.input_dtype} rows of shape {list(card.input_shape)}"
    if dtype_name(request.inputs.dtype) != card.input_dtype:
        raise Refusal(Reason.BAD_INPUT, f"inputs have dtype {dtype_name(request.inputs.dtype)}: send {wanted}")
    try:
        inputs = decode(request.inputs)
    except CodecError as error:
        raise Refusal(Reason.BAD_INPUT, str(error)) from None
    if inputs.shape[1:] != card.input_shape or inputs.ndim == 0:
        raise Refusal(Reason.BAD_INPUT, f"inputs have shape {list(inputs.shape)}: send a batch of {wanted}")
    if len(inputs) == 0:
        raise Refusal(Reason.BAD_INPUT, "the batch is empty: send at least one row")
    if len(inputs) > max_rows:
        raise Refusal(
            Reason.TOO_MANY_ROWS,
            f"{len(inputs)} rows in one request: send at most {max_rows}",
            figures={"rows": len(inputs), "max_rows": max_rows},
        )
    low, high = inputs.min(), inputs.max()  # both are NaN as soon as one value is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise Refusal(Reason.BAD_INPUT, "inputs hold a value that is not finite")
    if low < card.low or high > card.high:
        raise Refusal(
            Reason.BAD_INPUT,
            f"inputs lie in [{low:.9g}, {high:.9g}]: values outside [{card.low:g}, {card.high:g}] are not answered",
        )
    if card.features:
        _check_features(inputs, card)
    return inputs


def _check_features(rows: np.ndarray, card: Card) -> None:
    """Each column of a table's rows (N, d) has its own range, and a nominal one holds codes of levels."""
    lowest, highest = rows.min(axis=0), rows.max(axis=0)
    for feature, low, high, column in zip(card.features, lowest, highest, rows.T, strict=True):
        if low < feature.low or high > feature.high or (feature.nominal and not (column == np.rint(column)).all()):
            legal = f"codes 0 to {feature.high:g}" if feature.nominal else f"[{feature.low:g}, {feature.high:g}]"
            raise Refusal(Reason.BAD_INPUT, f"the feature {feature.name} has values outside {legal}: see the schema")
