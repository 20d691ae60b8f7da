"""Memory that one forward pass has freed is there for the next.

glibc gives blocks of megabytes back to the system when they are freed, and the next pass pays for each of their pages
anew: a third of the time of a convolutional network. A server runs the same pass again and again.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
_KEPT = 512 << 20  # bytes that stay when nothing needs them
_MAPPED = 128 << 20  # larger blocks go back to the system at once


def keep_freed_memory() -> None:
    """Call it before there are threads: those that follow share one heap, as a thread's own is given back whenever it
    is empty. Where the allocator is not glibc's, nothing changes.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        if not hasattr(libc, "gnu_get_libc_version"):
            return
        for parameter, value in ((_MMAP_THRESHOLD, _MAPPED), (_TRIM_THRESHOLD, _KEPT), (_ARENA_MAX, 1)):
            libc.mallopt(parameter, value)
