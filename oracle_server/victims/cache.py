"""Trained models on disk, found again by the hash of everything that made them.

An entry is a folder ``<root>/victims/<key>/`` with ``weights.pt`` (a state dict) and ``card.json``. It is written next
to its place and renamed into it, so no reader ever sees half of one. An entry whose weights do not match the hash in
its card counts as missing and is replaced.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["find", "key_of", "root", "store"]

State = Mapping[str, Tensor]


def root() -> Path:
    """``$MIRAGE_CACHE``, or ``.cache/mirage`` under the current directory."""
    return Path(os.environ.get("MIRAGE_CACHE") or Path.cwd() / ".cache" / "mirage")


def key_of(made_by: Mapping[str, Any]) -> str:
    """Hash of what made a model; values must be plain JSON, so that nothing is hashed by its address."""
    return hashlib.sha256(json.dumps(made_by, sort_keys=True, allow_nan=False).encode()).hexdigest()


def find(folder: Path) -> tuple[State, dict[str, Any]] | None:
    """State dict (on the CPU) and card of an entry, or None when it is missing or damaged."""
    try:
        card: dict[str, Any] = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        weights = (folder / "weights.pt").read_bytes()
    except (OSError, ValueError):
        return None
    if not isinstance(card, dict) or card.get("weights_sha256") != hashlib.sha256(weights).hexdigest():
        return None
    return torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True), card


def store(folder: Path, state: State, card: Mapping[str, Any]) -> None:
    """Writes an entry in one step. A sound entry that another process wrote meanwhile is kept.

    Raises:
        OSError: the cache cannot be written; the message names the variable that moves it.
    """
    buffer = io.BytesIO()
    torch.save({name: tensor.cpu() for name, tensor in state.items()}, buffer)
    weights = buffer.getvalue()
    full = {**card, "weights_sha256": hashlib.sha256(weights).hexdigest()}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))  # readable by the owner alone
    except OSError as error:
        raise OSError(f"cannot write the model cache {folder.parent}: set MIRAGE_CACHE to a folder you own") from error
    try:
        (new / "weights.pt").write_bytes(weights)
        (new / "card.json").write_text(json.dumps(full, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        if folder.exists() and find(folder) is None:
            shutil.rmtree(folder)
        try:
            new.rename(folder)
        except OSError:
            if find(folder) is None:
                raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
