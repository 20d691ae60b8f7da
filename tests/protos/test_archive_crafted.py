"""Crafted archives: damaged, oversized, or saying something that a plain model never says; one sentence each."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protos import archive

Change = Callable[[Any], Any]
Craft = Callable[..., Path]


def append(name: str, content: bytes = b"", compression: int = zipfile.ZIP_STORED) -> Change:
    def change(path: Path) -> None:
        with zipfile.ZipFile(path, "a") as file:
            file.writestr(name, content, compression)

    return change


def duplicate(path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        append("root/models/model.json", b"{}")(path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-400])


def no_zip(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weights": [1.0]}))


def patch(*fields: tuple[int, bytes]) -> Change:
    """Overwrite fields of the last entry in the zip's directory."""

    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        start = data.rindex(b"PK\x01\x02")
        for offset, value in fields:
            data[start + offset : start + offset + len(value)] = value
        path.write_bytes(data)

    return change


GIGABYTES = struct.pack("<I", 3 * 2**30)
ZIPS: dict[str, tuple[Change, str]] = {
    "not a zip": (no_zip, "not a readable archive"),
    "truncated": (truncate, "not a readable archive"),
    "duplicate entry": (duplicate, "two entries have the same name"),
    "path traversal": (append("root/../../evil"), "points outside the archive"),
    "absolute path": (append("/etc/evil"), "points outside the archive"),
    "second root": (append("other/models/model.json"), "more than one root folder"),
    "compressed bomb": (append("root/data/weights/weight_9", bytes(10**7), zipfile.ZIP_DEFLATED), "is compressed"),
    "claimed size": (patch((20, GIGABYTES), (24, GIGABYTES)), "its entries claim"),
    "encrypted": (patch((8, b"\x01\x00")), "is encrypted"),
    "unknown entry": (append("root/extra/notes.txt"), "is unknown"),
    "junk before it": (lambda path: path.write_bytes(b"#!/bin/sh\n" + path.read_bytes()), "not a readable archive"),
    "compiled code": (append("root/data/aotinductor/model/a.so"), "is compiled or pickled code"),
    "old weights": (append("root/data/weights/model.pt"), "is unknown"),
}


@pytest.mark.parametrize("name", ZIPS)
def test_crafted_zip_is_refused(name: str, craft: Craft, tmp_path: Path) -> None:
    change, sentence = ZIPS[name]
    path = craft()
    archive.strip(path, tmp_path / "control.pt2")
    change(path)
    for refused in (archive.check, archive.load, lambda path: archive.strip(path, tmp_path / "never.pt2")):
        with pytest.raises(archive.UnsafeArchive, match=sentence) as caught:
            refused(path)
        assert str(caught.value).startswith("crafted.pt2: ")
    assert not (tmp_path / "never.pt2").exists()


def node(**change: Any) -> Change:
    return lambda model: model["graph_module"]["graph"]["nodes"][0].update(change)


def takes(**argument: Any) -> Change:
    return lambda model: model["graph_module"]["graph"]["nodes"][0]["inputs"][0].update(arg=argument)


def top(**change: Any) -> Change:
    return lambda model: model.update(change)


def adds(place: str, item: Any) -> Change:
    return lambda model: model["graph_module"]["signature"][place].append(item)


def tree(spec: str) -> Change:
    return lambda model: model["graph_module"]["module_call_graph"][0]["signature"].update(in_spec=spec)


def size(text: str) -> Change:
    """Replace every symbolic size."""

    def change(value: Any) -> None:
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            change(item)
        if isinstance(value, dict) and "expr_str" in value:
            value["expr_str"] = text

    return change


SECOND_INPUT = {"user_input": {"arg": {"as_tensor": {"name": "x"}}}}
UNBACKED = {"u999999999": {"min_val": 0, "max_val": None}}
OTHER_TREE = '[1, {"type": "collections.defaultdict", "context": "[]", "children_spec": []}]'
GRAPHS: dict[str, tuple[Change, str]] = {
    "newer torch": (top(torch_version="9.1.0"), "torch 9.1.0 wrote it .* install torch 9.1 or newer"),
    "foreign operator": (node(target="torch.ops.mine.evil.default"), "only an aten operator"),
    "python function": (node(target="torch.load"), "only an aten operator"),
    "class of the namespace": (node(target="torch.ops.aten.__class__.mro"), "only an aten operator"),
    "reading a file": (node(target="torch.ops.aten.from_file.default"), "only an aten operator"),
    "writing a file": (node(target="torch.ops.aten.save.default"), "only an aten operator"),
    "unwritten memory": (node(target="torch.ops.aten.empty_like.default"), "only an aten operator"),
    "python operator": (node(target="_operator.methodcaller"), "only an aten operator"),
    "path as an argument": (takes(as_string="/etc/passwd"), "only a plain word"),
    "word as an argument": (takes(as_string="secret"), "only the name of a mode"),
    "nested graph": (takes(as_graph={"name": "g", "graph": {}}), "only a graph without branches"),
    "custom object": (takes(as_custom_obj={"name": "o", "class_fqn": "c"}), "custom objects are pickles"),
    "operator as an argument": (takes(as_operator="torch.load"), "an operator cannot be an argument"),
    "text for integers": (takes(as_ints=["1"]), "only an integer"),
    "node name": (node(name="y = 1\n    z"), "only a plain name"),
    "keyword as a name": (node(name="lambda"), "only a plain name"),
    "power": (size("9**9**9"), "only arithmetic"),
    "power of sympy": (size("Pow(Integer(9), Integer(99))"), "only arithmetic"),
    "attribute of a size": (size("s0.func"), "only arithmetic"),
    "unknown function": (size("Lambda(s0, s0)"), "only arithmetic"),
    "symbol with options": (size("Symbol('s0', cls=s1)"), "only arithmetic"),
    "long size": (size("+".join(["s0"] * 999)), "only a symbolic size"),
    "unbacked sizes": (top(range_constraints=UNBACKED), "only a size s0"),
    "dialect": (top(verifiers=["EVIL"]), "only a dialect of torch.export"),
    "two inputs": (adds("input_specs", SECOND_INPUT), "does not map one tensor to one tensor"),
    "other tree": (tree(OTHER_TREE), "exactly one positional tensor"),
    "state that changes": (adds("output_specs", {"buffer_mutation": {}}), r"call \.eval\(\) on it"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_crafted_graph_is_refused(name: str, craft: Craft, tmp_path: Path) -> None:
    change, sentence = GRAPHS[name]
    path = craft(model=change)
    for refused in (archive.check, lambda path: archive.strip(path, tmp_path / "never.pt2")):
        with pytest.raises(archive.UnsafeArchive, match=sentence) as caught:
            refused(path)
        assert len(str(caught.value)) < 400
    assert not (tmp_path / "never.pt2").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (takes(as_tensor={"name": "nobody"}), "torch cannot rebuild the model"),
        (size("-" * 900 + "s0"), "torch cannot rebuild the model|nested too deeply|only arithmetic"),
        (size("FloorDiv(s0, 0)"), "torch cannot rebuild the model"),
    ],
)
def test_a_graph_without_meaning_is_refused(change: Change, sentence: str, craft: Craft, tmp_path: Path) -> None:
    def strip_and_load() -> None:
        archive.strip(craft(model=change), tmp_path / "m.pt2")
        archive.load(tmp_path / "m.pt2")

    with pytest.raises(archive.UnsafeArchive, match=sentence):
        strip_and_load()


def entry(change: dict[str, Any], meta: dict[str, Any]) -> Change:
    def edit(content: Any) -> None:
        first = next(iter(content["config"].values()))
        first.update(change)
        first["tensor_meta"].update(meta)

    return edit


def weight(**change: Any) -> dict[str, Change]:
    return {"weights": entry(change, {})}


def meta(**change: Any) -> dict[str, Change]:
    return {"weights": entry({}, change)}


def file(name: str, content: bytes | None) -> dict[str, Change]:
    return {"edit": lambda entries: entries.pop(name) if content is None else entries.update({name: content})}


WEIGHT, MODEL = "data/weights/weight_0", "models/model.json"
HUGE = {"sizes": [{"as_int": 2**40}, {"as_int": 1}], "strides": [{"as_int": 0}, {"as_int": 0}]}
SYMBOLIC = [{"as_expr": {"expr_str": "s0"}}, {"as_int": 4}]
ENTRIES: dict[str, tuple[dict[str, Change], str]] = {
    "too few bytes": (file(WEIGHT, bytes(44)), "44 bytes where its sizes need 48"),
    "half a number": (file(WEIGHT, bytes(49)), "49 bytes where"),
    "no bytes": (file(WEIGHT, None), "has no numbers"),
    "offset past the end": (meta(storage_offset={"as_int": 1}), "48 bytes where its sizes need 52"),
    "negative stride": (meta(strides=[{"as_int": -4}, {"as_int": 1}]), "sizes that are not fixed"),
    "symbolic weight": (meta(sizes=SYMBOLIC), "sizes that are not fixed"),
    "unpacking bomb": (meta(**HUGE), "unpacks to more than"),
    "foreign dtype": (meta(dtype=9), "only the number of a plain scalar type"),
    "huge number": (meta(dtype=int("9" * 400)), "only the number of a plain scalar type"),
    "path as a name": (weight(path_name="../weight_0"), "only the name of an entry"),
    "script object": (weight(path_name="custom_obj_0"), "only the name of an entry"),
    "missing weight": ({"weights": lambda content: content["config"].clear()}, "lists is allowed"),
    "big endian": (file("byteorder", b"big"), "byteorder is b'big'"),
    "other format": (file("archive_version", b"1"), "archive_version is b'1'"),
    "no graph": (file(MODEL, None), "models/model.json is missing"),
    "no JSON": (file(MODEL, b"\xff{"), "is not JSON"),
    "deep JSON": (file(MODEL, b"[" * 10**5), "nested too deeply"),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_crafted_entry_is_refused(name: str, craft: Craft, tmp_path: Path) -> None:
    change, sentence = ENTRIES[name]
    path = craft(**change)
    for refused in (archive.check, lambda path: archive.strip(path, tmp_path / "never.pt2")):
        with pytest.raises(archive.UnsafeArchive, match=sentence):
            refused(path)
    assert not (tmp_path / "never.pt2").exists()


@pytest.mark.parametrize("name", ["data/weights/weight_0", "models/model.json", "data/sample_inputs/model.pt"])
def test_spare_content_is_refused(name: str, craft: Craft, tmp_path: Path) -> None:
    archive.strip(craft(), tmp_path / "m.pt2")
    assert archive.check(tmp_path / "m.pt2").parameters == 15
    with zipfile.ZipFile(tmp_path / "m.pt2") as file:
        entries = {entry: file.read(entry) for entry in file.namelist()}
    spare = json.dumps({"note": "private"}).encode() if name.endswith("pt") else b"        "
    entries[f"model/{name}"] += spare
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as file:
        for entry_name, content in entries.items():
            file.writestr(entry_name, content)
    with pytest.raises(archive.UnsafeArchive, match=f"more than a model is in {name}"):
        archive.load(tmp_path / "m.pt2")
