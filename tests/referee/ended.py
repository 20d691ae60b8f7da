"""Whether a process has ended."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["gone"]


def gone(pid: int) -> bool:
    """Whether the process has ended, a moment later at most."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True  # nobody has asked for its status yet
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False
