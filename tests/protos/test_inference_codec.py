"""The Open Inference Protocol's bytes: read as protobuf reads them, without its copies and without excess."""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protos.codec import CodecError
from protos.inference import open_inference_pb2 as pb
from protos.inference.codec import InferRequest, datatype, decode, dtype_name, encode

NUMBERS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT64": "<i8", "UINT8": "u1"}
FIELDS = {"FP32": "fp32_contents", "FP64": "fp64_contents", "INT64": "int64_contents", "UINT8": "uint_contents"}
Input = pb.ModelInferRequest.InferInputTensor
ARRAYS = st.sampled_from(sorted(NUMBERS.values())).flatmap(
    lambda code: hnp.arrays(code, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3))
)


def one_by_one(array: np.ndarray, field: str) -> pb.InferTensorContents:
    return pb.InferTensorContents(**{field: array.ravel().tolist()})


@given(ARRAYS)
def test_arrays_come_back_in_both_ways(array: np.ndarray) -> None:
    name = datatype(array.dtype)
    assert dtype_name(name) == array.dtype.name
    tensor, data = encode("x", array)
    assert (tensor.name, tensor.datatype, tuple(tensor.shape)) == ("x", name, array.shape)
    back = [decode(Input(datatype=name, shape=array.shape), memoryview(data))]
    if name in FIELDS:
        contents = one_by_one(array, FIELDS[name])
        back.append(decode(Input(datatype=name, shape=array.shape, contents=contents)))
    for one in back:
        assert (one.dtype, one.shape) == (array.dtype, array.shape)
        assert one.tobytes() == array.tobytes() or np.isnan(array.astype(float)).any()
        np.testing.assert_array_equal(one, array)


def tensor(name: str, shape: tuple[int, ...], **contents: Any) -> Input:
    made = Input(datatype=name, shape=shape)
    if contents:
        made.contents.CopyFrom(pb.InferTensorContents(**contents))
    return made


LIES = {
    "fewer bytes": (tensor("FP32", (3,)), bytes(8), "tensor header asks for 12 bytes but 8 came"),
    "no values": (tensor("FP32", (3,)), None, "tensor header asks for 12 bytes but 0 came"),
    "a negative dimension": (tensor("FP32", (-1, 2)), bytes(8), "tensor has a negative dimension"),
    "two negative dimensions": (tensor("FP32", (-1, -2)), bytes(8), "tensor has a negative dimension"),
    "a giant": (tensor("UINT8", (2**62, 2**62, 4)), b"", f"tensor header asks for {2**126} bytes but 0 came"),
    "nothing of a giant": (tensor("UINT8", (0, 2**62, 2**62)), b"", "tensor dimension is larger than any array"),
    "many dimensions": (tensor("UINT8", (1,) * 9), b"1", "tensor has 9 dimensions; at most 8 are read"),
    "too many values": (tensor("FP32", (1,), fp32_contents=[1, 2]), None, "asks for 4 bytes but 8 came"),
    "both": (tensor("FP32", (1,), fp32_contents=[1]), bytes(4), "values came twice"),
    "both, of which one is empty": (tensor("FP32", (0,), fp32_contents=[]), b"", "values came twice"),
    "another type": (tensor("FP32", (1,), fp64_contents=[1]), None, "another type: send fp32_contents"),
    "two types": (tensor("FP32", (1,), fp32_contents=[1], fp64_contents=[1]), None, "another type"),
    "half precision": (tensor("FP16", (1,), fp32_contents=[1]), None, "another type: send raw_input_contents"),
    "not a level": (tensor("UINT8", (1,), uint_contents=[256]), None, "a value does not fit into uint8"),
    "text": (tensor("FP32", (1,), bytes_contents=[b"1234"]), None, "another type"),
}


@pytest.mark.parametrize("name", LIES)
def test_no_header_is_believed(name: str) -> None:
    made, data, sentence = LIES[name]
    with pytest.raises(CodecError, match=re.escape(sentence)):
        decode(made, None if data is None else memoryview(data))


def test_unknown_fields_are_no_values() -> None:
    later = pb.InferTensorContents.FromString(one_by_one(np.ones(2), "fp32_contents").SerializeToString() + b"\x7a\1x")
    made = Input(datatype="FP32", shape=(2,), contents=later)
    assert decode(made).tolist() == [1, 1]


# Requests: protobuf is the reference.

SOME = pb.ModelInferRequest(
    model_name="m",
    model_version="1",
    id="x",
    parameters={"a": pb.InferParameter(int64_param=3), "b": pb.InferParameter(double_param=0.5)},
    inputs=[Input(name="input", datatype="FP32", shape=(2, 3), parameters={"c": pb.InferParameter(bool_param=True)})],
    outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="scores")],
    raw_input_contents=[bytes(range(24)), b""],
)


def as_protobuf_reads_it(data: bytes) -> None:
    """Both refuse the bytes, or both read the same; a group, which nobody sends, is refused here alone."""
    wanted = None
    with contextlib.suppress(DecodeError):
        wanted = pb.ModelInferRequest.FromString(data)
    found, why = None, ""
    try:
        found = InferRequest.FromString(data)
    except DecodeError as error:
        why = str(error)
    if found is None:
        assert wanted is None or "a group" in why
        return
    assert wanted is not None
    assert [bytes(one) for one in found.raw] == list(wanted.raw_input_contents)
    wanted.ClearField("raw_input_contents")
    assert found.message.SerializeToString(deterministic=True) == wanted.SerializeToString(deterministic=True)
    assert not found.excessive


def test_raw_contents_are_views() -> None:
    data = SOME.SerializeToString()
    found = InferRequest.FromString(data)
    assert [view.obj for view in found.raw] == [data, data]
    assert found.raw[0].obj is data
    array = decode(found.message.inputs[0], found.raw[0])
    assert array.base is not None
    assert not array.flags.owndata
    as_protobuf_reads_it(data)
    as_protobuf_reads_it(b"")


@given(st.integers(0, 2**32 - 1))
def test_whatever_comes_is_read_as_protobuf_reads_it(seed: int) -> None:
    draw = random.Random(seed)
    data = bytearray(SOME.SerializeToString())
    for _ in range(draw.randrange(1, 4)):
        place = draw.randrange(len(data))
        if draw.random() < 0.7:
            data[place] ^= 1 << draw.randrange(8)
        else:
            del data[place : place + draw.randrange(1, 6)]
    as_protobuf_reads_it(bytes(data))


@given(st.binary(max_size=40))
def test_noise_is_read_as_protobuf_reads_it(data: bytes) -> None:
    as_protobuf_reads_it(data)


EXCESS = {
    "inputs": b"\x2a\x00" * 300,
    "raw contents": b"\x3a\x00" * 300,
    "outputs after the rest": SOME.SerializeToString() + b"\x32\x00" * 300,
    "values one by one": pb.ModelInferRequest(
        inputs=[tensor("FP32", (1 << 21,), fp32_contents=[0.0] * (1 << 20))]
    ).SerializeToString(),
}


@pytest.mark.parametrize("name", EXCESS)
def test_excess_is_not_parsed(name: str) -> None:
    found = InferRequest.FromString(EXCESS[name])
    assert found.excessive
    assert (found.message, found.raw) == (pb.ModelInferRequest(), [])


def test_large_raw_contents_are_no_excess() -> None:
    found = InferRequest.FromString(pb.ModelInferRequest(raw_input_contents=[bytes(5 << 20)]).SerializeToString())
    assert (found.excessive, [len(one) for one in found.raw]) == (False, [5 << 20])


BESIDE = """
import protos.inference.open_inference_pb2 as ours
import tritonclient.grpc.service_pb2 as theirs
assert ours.ModelInferRequest.DESCRIPTOR.full_name == theirs.ModelInferRequest.DESCRIPTOR.full_name
three = ours.InferParameter(uint64_param=3)
request = ours.ModelInferRequest(id="x", parameters={"n": three}, raw_input_contents=[b"1"])
read = theirs.ModelInferRequest.FromString(request.SerializeToString())
assert (read.id, read.parameters["n"].uint64_param, read.raw_input_contents[0]) == ("x", 3, b"1")
for name, message in ours.DESCRIPTOR.message_types_by_name.items():
    other = theirs.DESCRIPTOR.message_types_by_name[name]
    form = lambda m: [(f.name, f.number, f.type, f.is_repeated) for f in m.fields]
    pairs = [(message, other)] + [(n, other.nested_types_by_name[n.name]) for n in message.nested_types]
    assert all(form(a) == form(b) for a, b in pairs), name
(service,) = ours.DESCRIPTOR.services_by_name.values()
known = theirs.DESCRIPTOR.services_by_name[service.name].methods_by_name
for method in service.methods:
    other = known[method.name]
    assert (method.input_type.full_name, method.output_type.full_name) == (
        other.input_type.full_name, other.output_type.full_name)
"""


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
def test_ours_are_theirs_and_lie_beside_them(repository_root: Path, order: str) -> None:
    """Every name and number is the one of tritonclient, whose stubs may be in the same process."""
    source = BESIDE if order == "ours first" else f"import tritonclient.grpc\n{BESIDE}"
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, cwd=repository_root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
