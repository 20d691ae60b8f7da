"""Starts this project's commands as processes of their own, forked from one that has imported everything: a tenth of a
second each instead of four. Run as `python tests/forker.py`; see `tests.serving.Forker` for the other end.

    stdin   {"module", "arguments", "log", "folder", "environment", "before"} or {"poll": pid}, a JSON object a line
    stdout  {"pid"} or {"status"}: null while it runs, negative for a signal

`before` is Python source that the child runs first, to stand for a changed installation. Children die with this
process.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from protos.archive import load

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def _warm_up(archive: str) -> None:
    """Import what a server or an attacker would, and no more: no thread and no gRPC object may exist before a fork."""
    for module in ("attacker.cli", "oracle_server.cli", "oracle_server.audit"):
        importlib.import_module(module)
    torch.set_num_threads(1)
    load(Path(archive))(torch.zeros((1, 1, 8, 6)))
    gc.freeze()


def _become(order: dict[str, Any]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # even where the tests run in the background
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream, descriptor in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(stream, descriptor)
    os.chdir(order["folder"])
    os.environ.update(order["environment"])
    exec(order["before"], {})
    sys.argv = [order["module"], *order["arguments"]]
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


def _poll(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def main() -> None:
    """Serve orders until the other end closes."""
    _warm_up(sys.argv[1])
    print(json.dumps({"ready": True}), flush=True)
    while line := sys.stdin.readline():
        order = json.loads(line)
        if "poll" in order:
            answer = {"status": _poll(order["poll"])}
        else:
            pid = os.fork()
            if not pid:
                return _become(order)
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)
    os._exit(0)  # children that still run get their signal now


if __name__ == "__main__":
    main()
