"""The server's log: lines of text, or of JSON with one object each; and a line for each call, where asked for.

A call's line has its method, the public id of its key, the model, the request's id, rows, status, reason and times, and
nothing else. Of what a caller sends only a request's id gets there, in hex; of a key only its id, and only once its
secret was found to be right. No answer, label, score or input does.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from oracle_server.ledger import Key

__all__ = ["FORMATTERS", "Call", "begin_call", "call_under_way"]

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Call:
    """One call and what its line says of it; times in seconds.

    request_id  the caller's; where it sent none that is good, one of the server's own
    queued      from admission until the first row was in a forward pass
    computed    from then until the last row was through
    """

    rpc: str
    key: Key | None = None
    request_id: bytes = field(default_factory=lambda: secrets.token_bytes(8))
    rows: int | None = None
    queued: float | None = None
    computed: float | None = None
    began: float = field(default_factory=time.perf_counter)

    def end(self, status: str, reason: str | None) -> None:
        """Write the line."""
        fields: dict[str, object] = {"rpc": self.rpc}
        if self.key is not None:
            fields |= {"model": self.key.model, "key_id": self.key.key_id}
        fields |= {"request_id": self.request_id.hex(), "rows": self.rows, "status": status, "reason": reason}
        times = {"queue_ms": self.queued, "compute_ms": self.computed, "total_ms": time.perf_counter() - self.began}
        fields |= {name: round(seconds * 1e3, 3) for name, seconds in times.items() if seconds is not None}
        _LOG.info("request", extra={"fields": {name: value for name, value in fields.items() if value is not None}})


_CALL: ContextVar[Call | None] = ContextVar("call", default=None)


def begin_call(rpc: str) -> Call:
    """A call that gets a line when it ends; what is done for it from here on finds it in `call_under_way`."""
    call = Call(rpc)
    _CALL.set(call)
    return call


def call_under_way() -> Call | None:
    """The call for which this code runs; None where calls get no lines."""
    return _CALL.get()


class TextFormatter(logging.Formatter):
    """Time, level and message; then the fields of a call."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 # logging's own name
        return " ".join([super().formatMessage(record), *(f"{n}={value}" for n, value in _fields(record).items())])


class JsonFormatter(logging.Formatter):
    """An object with `time` (UTC, ISO 8601), `level`, `event` (the message; `request` for a call), the fields of a
    call, and `exception`, a traceback, where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


FORMATTERS: Mapping[str, Callable[[], logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    found: dict[str, object] = getattr(record, "fields", {})
    return found
