"""A finished cell of a campaign: one method, one contract, one seed, and everything measured on it.

On disk a cell is a folder of two files. `arrays.npz` is written first and `cell.json`, which holds its
hash, last: a folder is finished when both are there and agree, so a run that was killed at any moment is
simply run again.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from referee.atomic import write_atomically

__all__ = ["BrokenCellError", "Cell", "contract_hash", "find", "load", "save", "unscored"]

FORMAT = 2
# Every array of a cell, its dtype and its axes: M marks, T targets, then the image (C, H, W).
ARRAYS: dict[str, tuple[type, str]] = {
    "targets": (np.int64, "T"),
    "marks": (np.float64, "M"),
    "images": (np.float32, "MTCHW"),
    "top1": (np.bool_, "MT"),
    "top5": (np.bool_, "MT"),
    "own": (np.float64, "MT"),
    "others": (np.float64, "MT"),
    "confidence": (np.float64, "MT"),
    "mse": (np.float64, "MT"),
    "psnr": (np.float64, "MT"),
    "ssim": (np.float64, "MT"),
}
STATUSES = ("done", "refused", "failed", "void")


class BrokenCellError(ValueError):
    """A folder without a finished cell that this version can read; the sentence says what to do."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One method, one contract, one seed. M marks on the way, T targets; the last mark is the result.

    `rows_ledger` and `rows_attacker` are whole-cell counts of input rows; `marks` are rows per target, or the
    attack's own steps where `self_reported`. `mse`, `psnr` and `ssim` compare with the very image that was to be
    recovered: NaN where there is none, and a class is what is attacked. `capacity_bits` bounds from above what the
    answers could have told. `flags` says by detector after how many rows, those of all keys together, the first key was
    flagged. Arrays are converted to the dtypes of `ARRAYS`; shapes that don't fit raise `ValueError`.
    """

    name: str
    split: str
    victim: str
    method: str
    parameters: dict[str, Any]
    seed: int
    contract: dict[str, Any]
    status: Literal["done", "refused", "failed", "void"]
    sentence: str
    targets: np.ndarray
    marks: np.ndarray
    images: np.ndarray
    top1: np.ndarray
    top5: np.ndarray
    own: np.ndarray
    others: np.ndarray
    confidence: np.ndarray
    mse: np.ndarray
    psnr: np.ndarray
    ssim: np.ndarray
    rows_ledger: int
    rows_attacker: int
    self_reported: bool
    capacity_bits: float
    seconds: float
    flags: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"cell {self.name}: status {self.status!r} is none of {', '.join(STATUSES)}")
        for key, (dtype, _) in ARRAYS.items():
            object.__setattr__(self, key, np.asarray(getattr(self, key), dtype=dtype))
        size = {"M": len(self.marks), "T": len(self.targets)}
        size |= dict(zip("CHW", self.images.shape[2:], strict=False))
        for key, (_, axes) in ARRAYS.items():
            expected = tuple(size.get(axis, -1) for axis in axes)
            found = getattr(self, key).shape
            if found != expected:
                raise ValueError(
                    f"cell {self.name}: {key} has shape {found}, expected ({', '.join(axes)}) = {expected}"
                )
        if self.status == "done" and not len(self.marks):
            raise ValueError(f"cell {self.name}: a finished cell needs at least one mark")

    @property
    def counts_equal(self) -> bool:
        """Whether the server's ledger and the attacker counted the same rows; if not, the cell is void."""
        return self.rows_ledger == self.rows_attacker


def unscored(*, image_shape: tuple[int, ...], targets: np.ndarray, **known: Any) -> Cell:
    """Make a cell without a result (refused, failed, or an attacker that tried what it must not): no marks, no images,
    counts 0 unless given.
    """
    count = len(targets)
    empty = {key: np.zeros((0, count)) for key, (_, axes) in ARRAYS.items() if axes == "MT"}
    images = np.zeros((0, count, *image_shape))
    rest = {
        "rows_ledger": 0,
        "rows_attacker": 0,
        "self_reported": False,
        "capacity_bits": 0.0,
        "seconds": 0.0,
    }
    return Cell(targets=targets, marks=np.zeros(0), images=images, **{**rest, **empty, **known})


def contract_hash(contract: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) of a contract's canonical JSON, to keep results of two contracts apart."""
    text = json.dumps(contract, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def save(cell: Cell, folder: Path) -> None:
    """Write a cell to `folder`; the same cell gives the same bytes.

    Raises `ValueError` for what JSON can't hold, an infinite figure among it. NaN seconds or bits become null.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{key: getattr(cell, key) for key in ARRAYS})
    arrays = buffer.getvalue()
    plain = {field.name: getattr(cell, field.name) for field in fields(cell) if field.name not in ARRAYS}
    for key in ("capacity_bits", "seconds"):
        plain[key] = None if math.isnan(plain[key]) else plain[key]
    head = {"format": FORMAT, "arrays_sha256": hashlib.sha256(arrays).hexdigest(), **plain}
    try:
        text = json.dumps(head, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"cell {cell.name} can't be written as JSON: {error}") from error
    write_atomically(folder / "arrays.npz", arrays)
    write_atomically(folder / "cell.json", text.encode())


def load(folder: Path) -> Cell:
    """Read a cell back.

    Raises `BrokenCellError` for a folder that isn't finished, was changed, or is of another format.
    """
    try:
        head = json.loads((folder / "cell.json").read_bytes())
        arrays = (folder / "arrays.npz").read_bytes()
    except FileNotFoundError as error:
        raise BrokenCellError(f"{folder} holds no finished cell: {Path(error.filename).name} is missing") from error
    except ValueError as error:
        raise BrokenCellError(f"{folder}/cell.json is not JSON; delete the folder to run the cell again") from error
    if not isinstance(head, dict) or head.pop("format", None) != FORMAT:
        raise BrokenCellError(f"{folder} was written by another version; delete it to run the cell again")
    if head.pop("arrays_sha256", None) != hashlib.sha256(arrays).hexdigest():
        raise BrokenCellError(
            f"{folder}: cell.json and arrays.npz don't belong together; delete the folder to run it again"
        )
    for key in ("capacity_bits", "seconds"):
        head[key] = math.nan if head.get(key) is None else head[key]
    try:
        with np.load(io.BytesIO(arrays), allow_pickle=False) as stored:
            return Cell(**head, **{key: stored[key] for key in ARRAYS})
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise BrokenCellError(f"{folder} can't be read ({error}); delete it to run the cell again") from error


def find(folder: Path) -> Cell | None:
    """The finished cell in `folder`, or None where the cell must (still, or again) be run."""
    try:
        return load(folder)
    except BrokenCellError:
        return None
