"""What an input must be before anything is charged: shape, dtype, number of rows, finiteness, range.

Rows stay as they came until they are copied to where a model reads them; whatever else looks at their values asks
`to_float32`, so that an image has the same answer, defences and detectors in every dtype that the card accepts.
"""

from __future__ import annotations

import numpy as np

from oracle_server.errors import Reason, Refusal
from oracle_server.models.card import Card
from protos.codec import CodecError, decode, dtype_name
from protos.request import ReceivedRequest

__all__ = ["check_dtype", "check_rows", "decode_inputs", "largest_batch", "to_float32"]

_REQUEST_ID = range(16, 65)
_FEW_BYTES = 1 << 16  # copied sooner than numpy, which lets go of the interpreter's lock meanwhile, has it back


def largest_batch(card: Card, message_bytes: int, most: int) -> int:
    """Rows whose inputs fit into one message of `message_bytes`, in any dtype, and whose answers do, with a little left
    for the rest of both; at most `most`.
    """
    asked = int(np.prod(card.input_shape)) * np.dtype(card.input_dtype).itemsize
    row = max(asked, 16 * card.width)  # a released score is 8 bytes, beside its index of 8 under top-k
    return max(1, min(most, (message_bytes - 4096) // row))


def decode_inputs(request: ReceivedRequest, card: Card, max_rows: int) -> np.ndarray:
    """The rows (N, *shape) of a request, a view of its bytes in their own dtype, or a `Refusal` that says what to send
    instead.
    """
    if request.excessive:
        raise Refusal(Reason.BAD_INPUT, "the request has too much beside its rows: send one tensor, and no more")
    if len(request.request_id) not in _REQUEST_ID:
        raise Refusal(
            Reason.BAD_INPUT,
            f"the request id has {len(request.request_id)} bytes: send 16 to 64 that no other request of this key has",
        )
    check_dtype(dtype_name(request.inputs.dtype), card)
    try:
        inputs = decode(request.inputs, request.data)
    except CodecError as error:
        raise Refusal(Reason.BAD_INPUT, str(error)) from None
    check_rows(inputs, card, max_rows)
    return inputs


def check_dtype(name: str, card: Card) -> None:
    """A `Refusal` of a dtype, by its numpy name, that is not the card's and is not accepted beside it."""
    if name != card.input_dtype and name not in card.accepted_dtypes:
        raise Refusal(Reason.BAD_INPUT, f"inputs have dtype {name}: send {_wanted(card)}")


def check_rows(inputs: np.ndarray, card: Card, max_rows: int) -> None:
    """A `Refusal` of what are not 1 to `max_rows` legal rows (N, *shape); their dtype is the card's already."""
    if inputs.shape[1:] != card.input_shape or inputs.ndim == 0:
        raise Refusal(Reason.BAD_INPUT, f"inputs have shape {list(inputs.shape)}: send a batch of {_wanted(card)}")
    if len(inputs) == 0:
        raise Refusal(Reason.BAD_INPUT, "the batch is empty: send at least one row")
    if len(inputs) > max_rows:
        raise Refusal(
            Reason.TOO_MANY_ROWS,
            f"{len(inputs)} rows in one request: send at most {max_rows}",
            figures={"rows": len(inputs), "max_rows": max_rows},
        )
    if inputs.dtype != np.uint8:  # every uint8 is finite and in the range
        _check_range(inputs, card)
    if card.features:
        _check_features(inputs, card)


def _wanted(card: Card) -> str:
    *others, last = (card.input_dtype, *card.accepted_dtypes)
    return f"{', '.join(others)}{' or ' * bool(others)}{last} rows of shape {list(card.input_shape)}"


def _check_range(inputs: np.ndarray, card: Card) -> None:
    # Bits of values from +0 on rise with them, as unsigned integers; those of all others, NaN too, lie beyond.
    bits = np.float32(card.high).view(np.uint32) if card.low == 0 and inputs.dtype == np.float32 else None
    if bits is not None and inputs.view(np.uint32).max() <= bits:
        return
    low, high = (value + 0 for value in _extremes(inputs))  # -0 is 0; one is not finite as soon as a value is not
    if not (np.isfinite(low) and np.isfinite(high)):
        raise Refusal(Reason.BAD_INPUT, "inputs hold a value that is not finite")
    if low < card.low or high > card.high:
        raise Refusal(
            Reason.BAD_INPUT,
            f"inputs lie in [{low:.9g}, {high:.9g}]: values outside [{card.low:g}, {card.high:g}] are not answered",
        )


def _extremes(inputs: np.ndarray) -> tuple[np.float32, np.float32]:
    """The smallest and the largest value, or NaN for at least one of them where there is a NaN."""
    if inputs.dtype != np.float16:
        return inputs.min(), inputs.max()
    # By their bits, fifty times as fast: those of values from +0 on rise with them as signed integers do, infinity and
    # NaN last; those with a sign come after all others as unsigned integers, and rise with the magnitude.
    signed, unsigned = inputs.view(np.int16), inputs.view(np.uint16)
    least, most = signed.min(), signed.max()
    low = unsigned.max() if least < 0 else least
    high = least if most < 0 else most
    return np.float32(low.view(np.float16)), np.float32(high.view(np.float16))


def to_float32(rows: np.ndarray, card: Card, out: np.ndarray | None = None) -> np.ndarray:
    """The values (N, *shape) that rows in a dtype of the card stand for, in `out` (float32, rows contiguous) if it is
    given; without it, float32 rows are returned as they are.

    uint8 u is u / (255 / (high - low)) + low in float32, at most high: for [0, 1] what `u / numpy.float32(255)` is.
    float16, which must be finite, is its own value.
    """
    if out is None:
        if rows.dtype == np.float32:
            return rows
        out = np.empty(rows.shape, np.float32)
    if rows.dtype == np.uint8:
        step, low, high = np.float32(255 / (card.high - card.low)), np.float32(card.low), np.float32(card.high)
        np.divide(rows, step, out=out, dtype=np.float32, casting="unsafe")
        if low:
            out += low
        if np.float32(255) / step + low > high:  # by rounding
            np.minimum(out, high, out=out)
    elif rows.dtype == np.float16:
        # Its exponent and fraction are moved to where a float32 has them; 2^112 is between the two biases. numpy's own
        # conversion takes six times as long.
        bits = out.view(np.int32)
        np.left_shift(rows.view(np.int16), 13, out=bits, dtype=np.int32, casting="unsafe")
        bits &= ~0x70000000  # copies of the sign
        out *= np.float32(2.0**112)
    elif rows.nbytes <= _FEW_BYTES and rows.flags.c_contiguous:
        memoryview(out).cast("B")[:] = memoryview(rows).cast("B")  # type: ignore[arg-type]
    else:
        out[...] = rows
    return out


def _check_features(rows: np.ndarray, card: Card) -> None:
    """Each column of a table's rows (N, d) has its own range, and a nominal one holds codes of levels."""
    lowest, highest = rows.min(axis=0), rows.max(axis=0)
    for feature, low, high, column in zip(card.features, lowest, highest, rows.T, strict=True):
        if low < feature.low or high > feature.high or (feature.nominal and not (column == np.rint(column)).all()):
            legal = f"codes 0 to {feature.high:g}" if feature.nominal else f"[{feature.low:g}, {feature.high:g}]"
            raise Refusal(Reason.BAD_INPUT, f"the feature {feature.name} has values outside {legal}: see the schema")
