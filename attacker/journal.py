"""The journal of a run: what the attacker was about to ask, then what it was told.

A run that was killed is started again from its first line of code; the journal answers what had been answered, and
what was in flight is sent once more under its old id, which the server does not charge again. So it ends with the
same result and the same count.

    file    MAGIC, then records
    record  header, then body; header: kind (1 byte), sequence (8), length of the body (4), its CRC-32 (4), and the
            CRC-32 of the header so far (4)
    kinds   R the run (JSON), I an intent (digest of the inputs), A an answer (serialised PredictResponse)

A process that dies while it writes leaves a last record cut short: it is dropped. Anything else amiss is
`JournalError`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import struct
import zlib
from pathlib import Path
from typing import Any

__all__ = ["Journal", "JournalError"]

_MAGIC = b"mirage-journal-1\n"
_HEADER = struct.Struct("<cQII")
_CRC = struct.Struct("<I")
_HEADER_BYTES = _HEADER.size + _CRC.size


class JournalError(RuntimeError):
    """The journal cannot be used; the sentence says what to do."""


class Journal:
    """One run's journal. `run` are plain values that say which run it is; a file of another run is refused.

    `nonce` (32 hex digits) is drawn when the file is made: request ids of two runs never meet.
    """

    def __init__(self, path: Path, run: dict[str, Any]) -> None:
        run = json.loads(json.dumps(run))  # as the file gives it back: tuples become lists
        self._path = path
        self._intents: dict[int, bytes] = {}
        self._answers: dict[int, tuple[int, int]] = {}  # sequence -> offset and length of the body
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            said = f"{path} cannot be opened to write ({error.strerror}): change that, or choose another --out"
            raise JournalError(said) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kept = self._read()
            if kept is None:
                self.nonce = secrets.token_hex(16)
                self._file.truncate(0)
                self._write(_MAGIC)
                self._append(b"R", 0, json.dumps({"nonce": self.nonce, "run": run}, sort_keys=True).encode())
            elif kept["run"] != run:
                changed = sorted(name for name in kept["run"] | run if kept["run"].get(name) != run.get(name))
                raise JournalError(
                    f"{path} belongs to another run ({', '.join(changed)} differ): choose another --out, or delete it"
                )
            else:
                self.nonce = kept["nonce"]
        except BlockingIOError:
            self._file.close()
            raise JournalError(f"{path} is in use by another process: wait for it, or choose another --out") from None
        except BaseException:
            self._file.close()
            raise

    def _read(self) -> dict[str, Any] | None:
        """Index the file; what its first record says, or None for a file without one."""
        self._file.seek(0)
        size = os.fstat(self._file.fileno()).st_size
        magic = self._file.read(len(_MAGIC))
        if magic != _MAGIC:
            if _MAGIC.startswith(magic):
                return None
            raise JournalError(f"{self._path} is no journal of this version: choose another --out")
        run: dict[str, Any] | None = None
        end = len(_MAGIC)
        while end + _HEADER_BYTES <= size:
            header = self._file.read(_HEADER_BYTES)
            kind, sequence, length, crc = _HEADER.unpack_from(header)
            if _CRC.unpack_from(header, _HEADER.size)[0] != zlib.crc32(header[: _HEADER.size]):
                raise self._corrupt(end)
            if end + _HEADER_BYTES + length > size:
                break  # cut short
            body = self._file.read(length)
            if zlib.crc32(body) != crc:
                raise self._corrupt(end)
            if kind == b"R":
                run = json.loads(body)
            elif kind == b"I":
                self._intents[sequence] = body
            else:
                self._answers[sequence] = (end + _HEADER_BYTES, length)
            end += _HEADER_BYTES + length
        if end < size:
            self._file.truncate(end)
        return run

    def _corrupt(self, offset: int) -> JournalError:
        return JournalError(
            f"{self._path} is corrupt at byte {offset}: restore it from a copy, or delete it and start again"
            " (what was answered since will be charged again)"
        )

    def _append(self, kind: bytes, sequence: int, body: bytes) -> None:
        header = _HEADER.pack(kind, sequence, len(body), zlib.crc32(body))
        self._write(b"".join((header, _CRC.pack(zlib.crc32(header)), body)))

    def _write(self, data: bytes) -> None:
        """All of it, or nothing and `JournalError`: a full disk takes a part, after which no record could be read."""
        end, written = os.fstat(self._file.fileno()).st_size, 0
        try:
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            said = f"{self._path} cannot be written ({error.strerror}): free space; the same command resumes the run"
            raise JournalError(said) from error

    def intend(self, sequence: int, digest: bytes) -> None:
        """Say what request `sequence` asks, before it is sent. One that the journal knows must be the same."""
        known = self._intents.get(sequence)
        if known is None:
            self._intents[sequence] = digest
            self._append(b"I", sequence, digest)
        elif known != digest:
            raise JournalError(
                f"request {sequence} differs from the one in {self._path}: the method, its data or the library changed;"
                " choose another --out"
            )

    def answer(self, sequence: int) -> bytes | None:
        """The answer to request `sequence`, if it came."""
        place = self._answers.get(sequence)
        return None if place is None else os.pread(self._file.fileno(), place[1], place[0])

    def record(self, sequence: int, answer: bytes) -> None:
        """Keep the answer to request `sequence`."""
        self._answers[sequence] = (os.fstat(self._file.fileno()).st_size + _HEADER_BYTES, len(answer))
        self._append(b"A", sequence, answer)

    def forget(self) -> None:
        """Delete a file in which nothing was asked, so that the next run of its folder may be another."""
        if not self._intents:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()
