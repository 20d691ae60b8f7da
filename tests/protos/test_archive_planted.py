"""Planted archives: each runs code in plain `torch.export.load` (the negative control), and none does here."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from protos import archive


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)

    def file(self) -> bytes:
        buffer = io.BytesIO()
        torch.save(self, buffer)
        return buffer.getvalue()


def source(marker: Path) -> str:
    """A Python expression that creates the marker; no dot or quote is in it, since torch cuts texts there."""
    code = f"import pathlib; pathlib.Path({str(marker)!r}).touch()"
    return f"exec(bytes({list(code.encode())}))"


def replace(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    """Replace a text wherever it stands in decoded JSON."""

    def change(content: dict[str, Any]) -> None:
        changed = json.loads(json.dumps(content).replace(json.dumps(old), json.dumps(new)))
        content.clear()
        content.update(changed)

    return change


def first(**change: Any) -> Callable[[dict[str, Any]], None]:
    """Change the first tensor of a config."""
    return lambda content: next(iter(content["config"].values())).update(change)


def weight(marker: Path) -> dict[str, Any]:
    entry = {"data/weights/weight_0": Touch(marker).file()}
    return {"weights": first(use_pickle=True), "edit": lambda entries: entries.update(entry)}


def constant(marker: Path) -> dict[str, Any]:
    entry = {"data/constants/tensor_0": Touch(marker).file()}
    return {"constants": first(use_pickle=True), "edit": lambda entries: entries.update(entry)}


def opaque(marker: Path) -> dict[str, Any]:
    entry = {"data/constants/opaque_obj_0": pickle.dumps(Touch(marker))}
    change = first(use_pickle=True, path_name="opaque_obj_0")
    return {"constants": change, "edit": lambda entries: entries.update(entry)}


def sample(marker: Path) -> dict[str, Any]:
    entry = {"data/sample_inputs/model.pt": Touch(marker).file()}
    return {"edit": lambda entries: entries.update(entry)}


def size(marker: Path) -> dict[str, Any]:
    code = f"exec({f'import pathlib; pathlib.Path({str(marker)!r}).touch()'!r})"  # sympy rewrites numbers
    return {"model": replace("Symbol('s77', positive=True, integer=True)", code)}


def parameter(marker: Path) -> dict[str, Any]:
    rename = replace("linear.bias", f'linear.bias", {source(marker)}, "')
    return {"model": rename, "weights": rename}


def guard(marker: Path) -> dict[str, Any]:
    return {"model": lambda model: model.update(guards_code=[source(marker)])}


PLANTED: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "pickled weight": (weight, "is a pickle, which can run code"),
    "pickled constant": (constant, "is a pickle, which can run code"),
    "opaque constant": (opaque, "is compiled or pickled code"),
    "sample input": (sample, "more than a model is in .*data/sample_inputs/model.pt"),
    "symbolic size": (size, "only arithmetic on the sizes"),
    "parameter name": (parameter, "only the name of a parameter is allowed"),
    "guard": (guard, "more than a model is in"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_code_never_runs(name: str, craft: Callable[..., Path], tmp_path: Path) -> None:
    plant, sentence = PLANTED[name]
    marker = tmp_path / "ran"
    path = craft(**plant(marker))
    for refused in (archive.check, archive.load):
        with pytest.raises(archive.UnsafeArchive, match=sentence):
            refused(path)
    with contextlib.suppress(archive.UnsafeArchive):
        archive.strip(path, tmp_path / "stripped.pt2")
        archive.load(tmp_path / "stripped.pt2")(torch.zeros(2, 4))
    assert not marker.exists()
    with contextlib.suppress(Exception):  # the negative control
        torch.export.load(path).module()(torch.zeros(2, 4))
    assert marker.exists(), "plain torch must run what is planted, or this test shows nothing"
