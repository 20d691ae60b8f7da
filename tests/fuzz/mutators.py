"""Changes that know the form of what they change, so that inputs get beyond the first check: bytes -> bytes."""

from __future__ import annotations

import io
import json
import random
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from protos.inference import open_inference_pb2 as v2
from protos.mirage.v1 import oracle_pb2 as pb
from protos.mirage.v1.tensor_pb2 import DTYPE_FLOAT16, DTYPE_UINT8
from tests.fuzz.targets import HEADERS

__all__ = ["MUTATORS", "Mutator"]

Mutator = Callable[[bytes, random.Random], bytes]

_NUMBERS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 64, 255, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -1, -3, -(2**63))
_FLOATS = (b"\0\0\0\0", b"\0\0\x80?", b"\0\0\x80>", b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff", b"\1\0\0\x80")
# dtype and values: float16 0, 1, 1/4, NaN, -NaN, infinity, 65504, -2^-24; uint8
_PAYLOADS = (
    (DTYPE_FLOAT16, (b"\0\0", b"\0<", b"\x004", b"\0~", b"\1\xff", b"\0|", b"\xff{", b"\1\x80")),
    (DTYPE_UINT8, (b"\0", b"\1", b"\x7f", b"\xff")),
)


def garble(data: bytes, draw: random.Random) -> bytes:
    """Change, cut, repeat or insert some bytes, with no idea of what they mean."""
    changed = bytearray(data)
    place, size = draw.randrange(len(changed) + 1), draw.choice((1, 1, 1, 2, 4, 16, 256))
    kind = draw.randrange(5)
    if kind == 0 and changed:
        changed[place % len(changed)] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del changed[place : place + size]
    elif kind == 2:
        changed[place:place] = changed[place : place + size] * draw.choice((1, 2, 50))
    elif kind == 3:
        changed[place:place] = draw.randbytes(size)
    else:
        changed[place : place + size] = draw.randbytes(min(size, len(changed) - place))
    return bytes(changed)


def request(data: bytes, draw: random.Random) -> bytes:
    """A PredictRequest with one of its fields changed; bytes that are none are garbled."""
    try:
        message = pb.PredictRequest.FromString(data)
    except DecodeError:
        return garble(data, draw)
    tensor, kind = message.inputs, draw.randrange(10)
    if kind == 0:
        message.request_id = draw.randbytes(draw.choice((0, 15, 16, 16, 16, 16, 64, 65)))
    elif kind == 1:
        tensor.dtype = draw.choice((0, 1, 1, 1, 2, 3, 4, 5, 99, -1))
    elif kind == 2:
        tensor.shape[:] = [draw.choice(_NUMBERS) for _ in range(draw.randrange(10))]
    elif kind == 3 and tensor.shape:
        tensor.shape[draw.randrange(len(tensor.shape))] = draw.choice(_NUMBERS)
    elif kind == 4:
        rows = draw.randrange(7)
        tensor.dtype, tensor.shape[:], tensor.data = 1, [rows, 3], b"".join(draw.choices(_FLOATS[:3], k=3 * rows))
    elif kind == 5 and len(tensor.data) >= 4:
        place = 4 * draw.randrange(len(tensor.data) // 4)
        tensor.data = tensor.data[:place] + draw.choice(_FLOATS) + tensor.data[place + 4 :]
    elif kind == 6:
        tensor.data = garble(tensor.data, draw)
    elif kind == 7:
        message.model = draw.choice(("", "m", "m/1", "m/2", "M", "other", "../m", "m/1/", "\0", "é" * 40))
    elif kind == 8:
        rows, (code, values) = draw.randrange(7), draw.choice(_PAYLOADS)
        tensor.dtype, tensor.shape[:], tensor.data = code, [rows, 3], b"".join(draw.choices(values, k=3 * rows))
    else:
        return garble(message.SerializeToString(), draw)
    return message.SerializeToString()


def infer_request(data: bytes, draw: random.Random) -> bytes:
    """A ModelInferRequest with one of its fields changed; bytes that are none are garbled."""
    try:
        message = v2.ModelInferRequest.FromString(data)
    except DecodeError:
        return garble(data, draw)
    tensor = message.inputs[0] if message.inputs else message.inputs.add(name="input")
    kind = draw.randrange(9)
    if kind == 0:
        message.id = draw.choice(("", "1", "9f1c24a6-5c1e-4d6b-8a34-2f1f5b1f7c01", "é" * 9, "x" * 1025))
    elif kind == 1:
        tensor.datatype = draw.choice(("FP32", "FP16", "UINT8", "FP64", "INT64", "BYTES", "BOOL", "float32", ""))
    elif kind == 2:
        tensor.shape[:] = [draw.choice(_NUMBERS) for _ in range(draw.randrange(10))]
    elif kind == 3:
        rows = draw.randrange(7)
        tensor.datatype, tensor.shape[:] = "FP32", [rows, 3]
        message.raw_input_contents[:] = [b"".join(draw.choices(_FLOATS[:3], k=3 * rows))]
        tensor.ClearField("contents")
    elif kind == 4:
        field = draw.choice(("fp32_contents", "fp32_contents", "fp64_contents", "uint_contents", "int64_contents"))
        getattr(tensor.contents, field).extend([draw.choice((0, 1, 255, 256))] * draw.choice((1, 3, 9)))
        del message.raw_input_contents[draw.randrange(2) :]
    elif kind == 5:
        message.raw_input_contents.append(draw.choice(_FLOATS) * draw.choice((0, 1, 3)))
    elif kind == 6:
        message.outputs.add(name=draw.choice(("scores", "scores", "label", "", "é")))
    elif kind == 7:
        holder = draw.choice((message, tensor, *message.outputs))
        holder.parameters[draw.choice(("sequence_id", "classification", "priority", "é"))].int64_param = 1
    else:
        return garble(message.SerializeToString(), draw)
    return message.SerializeToString()


def _call(change: Mutator) -> Mutator:
    """A call of the target `predict` or `infer`: mostly under the same header, its request changed."""

    def call(data: bytes, draw: random.Random) -> bytes:
        header = data[:1] if data and draw.randrange(8) else bytes((draw.randrange(len(HEADERS)),))
        return header + change(data[1:], draw)

    return call


def archive(data: bytes, draw: random.Random) -> bytes:
    """A zip of which one entry is changed, renamed, dropped or doubled; what is no zip is garbled."""
    if draw.randrange(3) == 0:
        return garble(data, draw)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as source:
            entries = [(entry, source.read(entry)) for entry in source.infolist()]
    except Exception:  # the zip reader has a dozen ways to fail on a damaged file
        return garble(data, draw)
    if not entries:
        return garble(data, draw)
    place = draw.randrange(len(entries))
    entry, content = entries[place]
    kind = draw.randrange(8)
    if kind == 0:
        names = [name.filename for name, _ in entries] + ["/", "model/../x", "model/data/weights/weight_7"]
        entry.filename = draw.choice(names)
    elif kind == 1:
        del entries[place]
    elif kind == 2:
        entries.append(entries[place])
    else:
        entries[place] = entry, _json(content, draw) if entry.filename.endswith(".json") else garble(content, draw)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as target:
        warnings.simplefilter("ignore")  # of names that are there twice
        for entry, content in entries:
            target.writestr(entry.filename or "-", content)
    return buffer.getvalue()


def _json(content: bytes, draw: random.Random) -> bytes:
    """JSON with one value replaced by another of the same text, or by one of a few that are wrong nearly everywhere."""
    try:
        root = json.loads(content)
    except (ValueError, RecursionError):
        return garble(content, draw)
    if draw.randrange(6) == 0 or not isinstance(root, dict | list):
        return garble(content, draw)
    places: list[tuple[Any, Any]] = []
    stack = [root]
    while stack:
        value = stack.pop()
        inside = list(value.items() if isinstance(value, dict) else enumerate(value))
        places += [(value, key) for key, _ in inside]
        stack += [one for _, one in inside if isinstance(one, dict | list)]
    if not places:
        return b"[]"
    (holder, key), (other, name) = draw.choice(places), draw.choice(places)
    wrong = (
        None,
        True,
        -1,
        0,
        2**70,
        1.5,
        "",
        "s0",
        "torch.ops.aten.add.Tensor",
        "x" * 2000,
        [],
        {},
        [[[]]],
        {"as_int": 3},
    )
    kind = draw.randrange(4)
    if kind == 0:
        holder[key] = json.loads(json.dumps(other[name]))
    elif kind == 1:
        holder[key] = draw.choice(wrong)
    elif kind == 2:
        del holder[key]
    elif isinstance(holder, dict):
        holder[draw.choice(("as_int", "use_pickle", "name", "target", "__reduce__"))] = draw.choice(wrong)
    else:
        holder.append(draw.choice(wrong))
    return json.dumps(root).encode()


MUTATORS: dict[str, Mutator] = {
    "codec": request,
    "archive": archive,
    "predict": _call(request),
    "infer": _call(infer_request),
}
