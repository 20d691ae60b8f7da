"""The public part of a split, written to a folder: all that an attacker gets.

    card.json   what this is: split, data set, number of images, shape, range, hashes, credit, terms
    images.npy  (N, 1, H, W) float32 in [0, 1], people without names; absent when the split publishes nothing

Images are ordered by their hash, so that their order does not tell who is on them. No labels are written, neither of
private people nor of public ones. What was written is read back and compared with every image that must stay private.
Images of another data set than the private one are resized to the shape that the model takes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle_server.victims.images import ImageSet, resized
from oracle_server.victims.splits import DATA, Split, load

__all__ = ["LeakError", "TermsError", "pixel_bytes", "private_images_in", "publish"]

_FILES = ("card.json", "images.npy")


class TermsError(PermissionError):
    """The data set has terms of use, and nobody accepted them."""


class LeakError(RuntimeError):
    """A folder that is to be published holds something private."""


def publish(split: Split, out: Path, accept_terms: bool = False, *, faces: ImageSet | None = None) -> Path:
    """Writes the public part of `split` to the folder `out`, which is made if need be, and returns it.

    Args:
        split: whose public part.
        out: a new folder, an empty one, or one that an earlier call wrote.
        accept_terms: needed when the data set that is published has terms of use.
        faces: the split's data set, when it is at hand already.

    Raises:
        TermsError: the data set has terms and `accept_terms` is not set.
        FileExistsError: `out` holds files that are not ours.
        LeakError: what was written holds a private image.
    """
    faces = faces or load(split)
    source = DATA[split.published_data]() if split.published_data else faces
    if source.terms and not accept_terms:
        raise TermsError(
            f"the data set {source.name} has terms of use ({source.terms}): publish it with --accept-terms"
        )
    if out.exists() and (not out.is_dir() or {entry.name for entry in out.iterdir()} - set(_FILES)):
        raise FileExistsError(f"{out} holds other files: publish to a new or empty folder")
    images = source.images[np.asarray(split.published, dtype=np.int64)]
    if images.shape[2:] != faces.images.shape[2:]:
        images = resized(images, *faces.images.shape[2:])
    images = _by_hash(images)
    out.mkdir(parents=True, exist_ok=True)
    (out / "images.npy").unlink(missing_ok=True)
    written = _npy(images) if len(images) else b""
    card: Mapping[str, Any] = {
        "kind": "mirage public data",
        "split": split.name,
        "split_sha256": split.sha256(),
        "data": faces.name,
        **({"published_data": source.name} if split.published_data else {}),
        "images": len(images),
        "shape": list(faces.images.shape[1:]),
        "dtype": "float32",
        "range": [0.0, 1.0],
        "images_sha256": hashlib.sha256(written).hexdigest() if written else None,
        "credit": source.credit,
        "terms": source.terms,
        "terms_accepted": bool(accept_terms and source.terms),
    }
    if written:
        _write(out / "images.npy", written)
    _write(out / "card.json", (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode())
    if leaked := private_images_in(out, split, faces):
        (out / "images.npy").unlink()
        raise LeakError(f"split {split.name} would publish private images (rows {leaked}): it was not published")
    return out


def private_images_in(folder: Path, split: Split, faces: ImageSet) -> list[int]:
    """Rows of the data set that must stay private and lie in a published folder, found by their pixels.

    Private is every row that the split does not publish, and the target's own rows in any case; every row at all when
    another data set is published. Pixels count as the same when they round to the same bytes.

    Raises:
        LeakError: the folder holds a file that publishing does not write.
    """
    if others := sorted({entry.name for entry in folder.iterdir()} - set(_FILES)):
        raise LeakError(f"{folder} holds files that publishing does not write: {', '.join(others)}")
    path = folder / "images.npy"
    if not path.exists():
        return []
    shown = {pixel_bytes(image) for image in np.load(path, allow_pickle=False)}
    public = set() if split.published_data else set(split.published)
    mine = (set(range(len(faces.images))) - public) | {*split.target, *split.test}
    return sorted(row for row in mine if pixel_bytes(faces.images[row]) in shown)


def pixel_bytes(image: NDArray[np.float32]) -> bytes:
    """An image in [0, 1] as it is compared: its pixels rounded to bytes."""
    return bytes(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).tobytes())


def _by_hash(images: NDArray[np.float32]) -> NDArray[np.float32]:
    order = sorted(range(len(images)), key=lambda row: hashlib.sha256(images[row].tobytes()).digest())
    return images[order]


def _npy(images: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, images, allow_pickle=False)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
