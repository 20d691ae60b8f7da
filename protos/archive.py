"""Model archives: `torch.export` files (`.pt2`) that can be loaded from a stranger.

`torch.export.load` runs code from a crafted file in a dozen places: pickled weights, constants and sample inputs,
symbolic sizes, guards, names that become source. This module is its only caller here and never gives it a file as
it came: the bytes are read once, every entry is checked against an allow-list, and what was understood is packed
anew in memory; only that copy reaches torch. The same step makes the files small and silent: no sample input, no
stack trace, no path, and of a tensor only the numbers that it shows, not the storage that it was cut from.

    save(module)  --export-->  strip  ----> the canonical archive, byte for byte the same for the same weights
    strip(src, dst)                         the same for a file that a user made with `torch.export.save`
    check(path)                             refuses any file whose entries are not canonical
    load(path)                              check, then `torch.export.load`, ready to differentiate

The zip is checked in `archive_zip`, graph and names in `archive_graph`. Out of reach of any such check: a graph of
allowed operators can still ask for more memory or time than there is, when it is run.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export.passes import move_to_device_pass

from protos.archive_graph import DTYPES, STORED, Program, clean_program
from protos.archive_rules import UnsafeArchive, refuse, table, unexpected
from protos.archive_zip import CONFIG, FIXED, LIMIT, MODEL, SAMPLE, VERSION, content, pack, read, replace_file

__all__ = ["ArchiveInfo", "UnsafeArchive", "check", "load", "save", "strip"]

FOLDERS = {False: ("data/weights/", "weight_"), True: ("data/constants/", "tensor_")}  # constant or not
# operators that refuse, or read wrongly, what does not lie in memory row by row
LAYOUT_BOUND = frozenset({torch.ops.aten.view.default, torch.ops.aten.as_strided.default})
EXPORT = threading.Lock()  # torch's exporter keeps its state in globals


@dataclass(frozen=True)
class ArchiveInfo:
    """What a checked archive says of itself; a size of None stands for any."""

    torch_version: str  # that wrote it, such as "2.14.1"
    parameters: int  # numbers in its parameters
    bytes: int  # of the file
    input_shape: tuple[int | None, ...]  # (None, C, H, W)
    output_shape: tuple[int | None, ...]  # (None, classes)
    dtype: str  # of the input, such as "float32"


def save(module: nn.Module, path: Path, *, input_shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
    """Export a module for batches of any size and write the canonical archive, atomically.

    The module is exported in the mode that it is in, and left as it is.

    Args:
        module: takes one tensor (N, *input_shape) and returns one.
        path: where the archive goes; a file that is there is replaced.
        input_shape: of one row, without the batch.
        dtype: of the input.

    Raises:
        ValueError: the module cannot be exported with a free batch size.
        UnsafeArchive: it holds what an archive may not, such as a custom operator.
    """
    tensor = next(itertools.chain(module.parameters(), module.buffers()), None)
    device = torch.device("cpu") if tensor is None else tensor.device
    example = torch.zeros((2, *input_shape), dtype=dtype, device=device)
    buffer = io.BytesIO()
    with EXPORT, torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No complete tensor found")  # views are cut out below
        try:
            batch = torch.export.Dim("batch", min=1)
            torch.export.save(torch.export.export(module, (example,), dynamic_shapes=({0: batch},)), buffer)
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise ValueError(f"the model cannot be exported with a free batch size: {reason}") from error
    path = Path(path)
    replace_file(path, pack(_canonical(read(buffer.getvalue(), path.name), path.name)[0]))


def strip(source: Path, target: Path) -> None:
    """Rewrite an archive of `torch.export.save` without sample inputs, stack traces and spare bytes, atomically.

    Raises:
        UnsafeArchive: the source could run code, or holds more than a model; nothing is written.
    """
    source = Path(source)
    replace_file(Path(target), pack(_canonical(read(content(source), source.name), source.name)[0]))


def check(path: Path) -> ArchiveInfo:
    """Say what a canonical archive holds, and refuse any other file, without loading anything.

    Raises:
        UnsafeArchive: the file could run code, holds more than a model, or cannot be read.
    """
    return _checked(Path(path))[1]


def load(path: Path, device: torch.device | str = "cpu") -> nn.Module:
    """Check an archive and load it: a module for any batch size, differentiable with respect to its input.

    Its parameters need no gradient. The mode is the one that it was exported in, whatever `.training` (set to False)
    says: `.eval()` and `.train()` are refused by torch.

    Raises:
        UnsafeArchive: see `check`; or torch cannot rebuild the graph.
    """
    path, place = Path(path), torch.empty(0, device=device).device  # a missing device says so here
    members, _ = _checked(path)
    with EXPORT:
        try:
            program = torch.export.load(io.BytesIO(pack(members)))
            if place.type != "cpu":
                program = move_to_device_pass(program, place)
            module = program.module()
        except Exception as error:
            reason = str(error).strip().split("\n")[-1]
            raise UnsafeArchive(f"{path.name}: torch cannot rebuild the model: {reason}") from error
    for part in module.modules():
        part.training = False
    module.requires_grad_(False)
    if not any(node.target in LAYOUT_BOUND for node in program.graph.nodes):
        # the same numbers to 1e-7; convolutions on a CPU take half the time in this layout
        module.to(memory_format=torch.channels_last)
    return module


def _checked(path: Path) -> tuple[dict[str, bytes], ArchiveInfo]:
    data = content(path)
    members = read(data, path.name)
    canonical, program, parameters = _canonical(members, path.name)
    spare = sorted(name for name in members | canonical if members.get(name) != canonical.get(name))
    if spare:
        listed = ", ".join(spare[:5])
        raise UnsafeArchive(f"{path.name}: more than a model is in {listed}: rewrite it with `oracle-server import`")
    return canonical, ArchiveInfo(
        torch_version=program.torch_version,
        parameters=parameters,
        bytes=len(data),
        input_shape=program.input_shape,
        output_shape=program.output_shape,
        dtype=str(program.dtype).removeprefix("torch."),
    )


def _canonical(members: dict[str, bytes], name: str) -> tuple[dict[str, bytes], Program, int]:
    """Write the entries anew from what was understood; with the program and the number of parameters."""
    try:
        return _rewrite(members)
    except UnsafeArchive as error:
        raise UnsafeArchive(f"{name}: {error}") from None
    except RecursionError:
        raise UnsafeArchive(f"{name}: {MODEL} is nested too deeply") from None


def _rewrite(members: dict[str, bytes]) -> tuple[dict[str, bytes], Program, int]:
    for name, wanted in FIXED.items():
        if members.get(name) != wanted:
            refuse(f"its entry {name} is {members.get(name, b'missing')[:20]!r}, where {wanted!r} is read here")
    program = clean_program(_json(members, MODEL))
    result = FIXED | VERSION | {MODEL: _bytes(program.json), SAMPLE: b""}
    parameters = total = 0
    for constant, (folder, prefix) in FOLDERS.items():
        stored = _json(members, CONFIG[constant])
        stored = table(str, STORED)(stored.get("config") if isinstance(stored, dict) else None)
        config: dict[str, Any] = {}
        places: dict[str, str] = {}
        for name in dict.fromkeys(tensor.name for tensor in program.tensors if tensor.constant is constant):
            if name not in stored:
                unexpected(name, f"a tensor that {CONFIG[constant]} lists")
            entry = stored[name]
            place = json.dumps([entry["path_name"], entry["tensor_meta"]])
            if place not in places:
                places[place] = f"{prefix}{len(places)}"
                data = _tensor_bytes(entry, members, folder, name, LIMIT - total)
                result[folder + places[place]] = data
                total += len(data)
            sizes = [size["as_int"] for size in entry["tensor_meta"]["sizes"]]
            meta = entry["tensor_meta"] | {"strides": _strides(sizes), "storage_offset": {"as_int": 0}}
            config[name] = entry | {"path_name": places[place], "tensor_meta": meta}
            parameters += math.prod(sizes) if entry["is_param"] else 0
        result[CONFIG[constant]] = _bytes({"config": config})
    return result, program, parameters


def _tensor_bytes(entry: dict[str, Any], members: dict[str, bytes], folder: str, name: str, limit: int) -> bytes:
    """Give the numbers that a stored tensor shows, in order: not the storage that it was cut from."""
    if entry["use_pickle"]:
        refuse(f"the tensor {name!r} is a pickle, which can run code: make it a plain tensor and export again")
    meta, data = entry["tensor_meta"], members.get(folder + entry["path_name"])
    numbers = [size.get("as_int", -1) for size in (*meta["sizes"], *meta["strides"], meta["storage_offset"])]
    rank = len(meta["sizes"])
    if data is None or min(numbers) < 0 or len(meta["strides"]) != rank or rank > 16:
        refuse(f"the tensor {name!r} has no numbers, or sizes that are not fixed")
    sizes, strides, offset = numbers[:rank], numbers[rank:-1], numbers[-1]
    dtype = DTYPES[meta["dtype"]]
    count = math.prod(sizes)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if len(data) % dtype.itemsize or (count and len(data) < (last + 1) * dtype.itemsize):
        refuse(f"the tensor {name!r} has {len(data)} bytes where its sizes need {(last + 1) * dtype.itemsize}")
    if count * dtype.itemsize > limit:
        refuse(f"the tensor {name!r} unpacks to more than the {LIMIT} bytes that are allowed")
    if not count:
        return b""
    if meta["strides"] == _strides(sizes):
        return data[offset * dtype.itemsize : (offset + count) * dtype.itemsize]
    flat = torch.frombuffer(bytearray(data), dtype=dtype)
    return flat.as_strided(sizes, strides, offset).contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def _strides(sizes: list[int]) -> list[dict[str, int]]:
    return [{"as_int": math.prod(max(size, 1) for size in sizes[axis + 1 :])} for axis in range(len(sizes))]


def _json(members: dict[str, bytes], name: str) -> Any:
    try:
        return json.loads(members[name])
    except KeyError:
        refuse(f"its entry {name} is missing: write it with torch.export.save of torch 2.9 or newer")
    except ValueError as error:
        refuse(f"its entry {name} is not JSON: {error}")


def _bytes(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
