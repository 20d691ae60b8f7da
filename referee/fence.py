"""Start the attacker behind a fence: `python fence.py DENIED... -- MODULE ARGUMENTS...`

Run as a file of its own, with the standard library only. An audit hook, which cannot be taken off again, refuses to
open anything below the denied folders, to import the victim's or the referee's packages or read their files, and to
start other processes, which would not carry the hook. It keeps an honest program honest and shows when one is not; it
is no sandbox against native code.

`python fence.py --orders MODULE` imports MODULE once, and forks for each order that it reads, so that a process starts
in a tenth of a second and not in several. The fence is put up in the child, before it does anything.

    stdin   {"arguments", "log", "own_errors", "folder", "environment"} or {"poll": pid}, a JSON object a line;
            arguments are those above, and with own_errors standard error goes where this process's goes
    stdout  {"pid"} or {"status"}: null while it runs, negative for a signal

Children die with this process, and this process ends when its input does.
"""

from __future__ import annotations

import _posixsubprocess
import ctypes
import importlib.util
import json
import os
import runpy
import signal
import sys
from typing import Any, NoReturn

__all__ = ["main"]

_PACKAGES = frozenset({"oracle_server", "referee", "defenses"})
_OPENS = frozenset(
    {
        "open",
        "os.chdir",
        "os.link",
        "os.listdir",
        "os.rename",
        "os.scandir",
        "os.symlink",
        "os.truncate",
        "shutil.copyfile",
    }
)
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_STARTS = frozenset({"subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.fork", "os.forkpty"})
_NEVER = dict.fromkeys(_STARTS, "another process would run without it") | {
    "sqlite3.connect": "it can open further files, which no hook sees"
}


def _install(denied: list[str]) -> None:
    specs = filter(None, map(importlib.util.find_spec, sorted(_PACKAGES)))
    packages = [place for spec in specs for place in spec.submodule_search_locations or ()]
    folders = tuple(os.path.realpath(folder) for folder in (*denied, *packages))
    realpath, fsdecode, separator = os.path.realpath, os.fsdecode, os.sep

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "import":
            if str(arguments[0]).partition(".")[0] in _PACKAGES:
                raise PermissionError(f"the fence refuses to import {arguments[0]}: it is not the attacker's")
        elif event in _NEVER:
            raise PermissionError(f"the fence refuses {event}: {_NEVER[event]}")
        elif event in _OPENS:
            # os.open (which gives no mode) and os.rename of a folder above: the names below it, no hook would see
            leads_below = event == "os.rename" or (event == "open" and arguments[1] is None)
            for path in arguments[: 1 if event == "open" else 2]:
                if isinstance(path, str | bytes | os.PathLike):
                    place = realpath(fsdecode(path))
                    below = place.rstrip(separator) + separator
                    for folder in folders:
                        if below.startswith(folder + separator):
                            raise PermissionError(f"the fence refuses {event} of {place}: it is not the attacker's")
                        if leads_below and folder.startswith(below):
                            raise PermissionError(f"the fence refuses {event} of {place}: it leads to {folder}")

    def refuse(*_: object) -> NoReturn:
        raise PermissionError(f"the fence refuses to start a process: {_NEVER['os.fork']}")

    _posixsubprocess.fork_exec = refuse  # what multiprocessing calls, past every audit event
    sys.addaudithook(hook)


def main(arguments: list[str]) -> None:
    """Install the hook, then run MODULE as if by `python -m MODULE ARGUMENTS`."""
    end = arguments.index("--")
    module = arguments[end + 1]
    sys.argv = [module, *arguments[end + 2 :]]
    _install(arguments[:end])
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def serve(module: str) -> None:
    """Fork for every order until there are none."""
    importlib.import_module(module)  # and start no thread: a fork takes the calling one alone
    while line := sys.stdin.readline():
        order = json.loads(line)
        if "poll" in order:
            found, status = os.waitpid(order["poll"], os.WNOHANG)
            answer = {"status": os.waitstatus_to_exitcode(status) if found else None}
        elif child := os.fork():
            answer = {"pid": child}
        else:
            return _become(order)
        print(json.dumps(answer), flush=True)
    os._exit(0)  # children that still run get their signal now


def _become(order: dict[str, Any]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream, descriptor in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (2 if order["own_errors"] else log, 2)):
        os.dup2(stream, descriptor)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    main(order["arguments"])


if __name__ == "__main__":
    sys.path[:] = [folder for folder in sys.path if folder != os.path.dirname(os.path.abspath(__file__))]
    if sys.argv[1] == "--orders":
        serve(sys.argv[2])
    else:
        main(sys.argv[1:])
