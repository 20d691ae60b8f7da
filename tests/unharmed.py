"""Whether a real server has come to any harm: charges, tracebacks, memory, and the next honest call."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from tests.serving import Server, inputs

__all__ = ["unharmed"]

_PEAK = 4 * (64 << 20)  # what a few calls in a row may need at most, each with copies of a message of the largest size


def _memory(server: Server, which: str) -> int:
    """Bytes of the server's memory: "VmRSS" now, "VmHWM" at most since `_forget_peak`."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(rf"^{which}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def _forget_peak(server: Server) -> None:
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


@contextlib.contextmanager
def unharmed(server: Server) -> Iterator[None]:
    """The block costs nobody anything, leaves no traceback and no more than `_PEAK` of memory at once, and the server
    answers afterwards.
    """
    _forget_peak(server)
    books, said, before = server.books(), len(server.process.log), _memory(server, "VmRSS")
    yield
    peak, after, told = _memory(server, "VmHWM") - before, server.books(), server.process.log[said:]
    assert peak < _PEAK, f"VmHWM: {peak >> 20} MB more than before"
    assert after == books, f"{after} and not {books}"
    assert "Traceback" not in told, told
    assert server.new_key().predict(inputs(2)).receipt.rows_charged == 2
    assert server.process.poll() is None
