"""The zip around a model archive: read with distrust, packed so that the same entries give the same bytes."""

from __future__ import annotations

import io
import os
import re
import tempfile
import zipfile
from pathlib import Path

from protos.archive_rules import UnsafeArchive, refuse

__all__ = ["CONFIG", "FIXED", "LIMIT", "MODEL", "SAMPLE", "VERSION", "content", "pack", "read", "replace_file"]

LIMIT = 4 * 2**30  # bytes, for the file and for the tensors in it

MODEL = "models/model.json"
SAMPLE = "data/sample_inputs/model.pt"
CONFIG = {False: "data/weights/model_weights_config.json", True: "data/constants/model_constants_config.json"}
FIXED = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little"}
VERSION = {".data/version": b"6\n"}  # of torch's zip format; any other is read as this one
NAMES = {MODEL, SAMPLE, *CONFIG.values(), *FIXED, *VERSION, ".data/serialization_id"}
NUMBERED = re.compile(r"data/(weights/weight|constants/tensor)_\d{1,6}", re.ASCII)
CODE = ("aotinductor", "executorch", "custom_obj", "opaque_obj")


def content(path: Path) -> bytes:
    """Read a whole file, unless it is too large to be an archive."""
    if path.stat().st_size > LIMIT:
        raise UnsafeArchive(f"{path.name}: it has more than the {LIMIT} bytes that are allowed")
    return path.read_bytes()


def read(data: bytes, name: str) -> dict[str, bytes]:
    """Read the entries of an archive, named without their common root.

    Args:
        data: the file.
        name: of the file, for the sentences.

    Raises:
        UnsafeArchive: damaged, or with entries that a model has no use for.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check(entries, len(data))
            root = entries[0].orig_filename.split("/")[0] + "/"
            return {entry.orig_filename.removeprefix(root): archive.read(entry) for entry in entries}
    except UnsafeArchive as error:
        raise UnsafeArchive(f"{name}: {error}") from None
    except Exception as error:  # the zip reader has a dozen ways to fail on a damaged file
        raise UnsafeArchive(f"{name}: not a readable archive, copy the whole file again: {error}") from error


def _check(entries: list[zipfile.ZipInfo], size: int) -> None:
    if not entries or min(entry.header_offset for entry in entries) > 0:
        refuse("not a readable archive, copy the whole file again: its beginning or its end belongs to something else")
    names = [entry.orig_filename for entry in entries]
    for entry, name in zip(entries, names, strict=True):
        if name.startswith("/") or "\\" in name or "\0" in name or {"..", "."} & set(name.split("/")):
            refuse(f"the entry {name!r} points outside the archive")
        if entry.flag_bits & 0x1:
            refuse(f"the entry {name!r} is encrypted")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            refuse(f"the entry {name!r} is compressed, which torch never does: it may unpack without end")
    if len(set(names)) < len(names):
        refuse("two entries have the same name")
    if len({name.split("/")[0] for name in names}) > 1:
        refuse("it has more than one root folder")
    total = sum(entry.file_size for entry in entries)
    if total > min(size, LIMIT):
        refuse(f"its entries claim {total} bytes; the file has {size} and {LIMIT} are allowed")
    for name in names:
        inside = name.partition("/")[2]
        if any(word in inside for word in CODE):
            refuse(f"the entry {name!r} is compiled or pickled code")
        if inside not in NAMES and not NUMBERED.fullmatch(inside):
            refuse(
                f"the entry {name!r} is unknown: export the model again with torch 2.9 or newer, without extra files"
            )


def pack(members: dict[str, bytes]) -> bytes:
    """Pack entries into a zip that depends on nothing but them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(f"model/{name}", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # wherever it is written
            archive.writestr(entry, members[name])
    return buffer.getvalue()


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one whole."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
