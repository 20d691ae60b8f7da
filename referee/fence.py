"""Start the attacker behind a fence: `python fence.py DENIED... -- MODULE ARGUMENTS...`

Run as a file of its own, with the standard library only. An audit hook, which cannot be taken off again, refuses to
open or change anything below the denied folders (the working directory apart, where it lies in one), to import the
victim's or the referee's packages or read their files, to read other processes, to speak to Unix sockets, and to start
processes, which would not carry the hook. It keeps an honest program honest and shows when one is not; it is no sandbox
against native code.

`python fence.py --orders MODULE` imports MODULE once, and forks for each order that it reads, so that a process starts
in a tenth of a second and not in several. The fence is put up in the child, before it does anything.

    stdin   {"arguments", "log", "own_errors", "folder", "environment"} or {"poll": pid}, a JSON object a line;
            arguments are those above, and with own_errors standard error goes where this process's goes
    stdout  {"pid"} or {"status", "refused"}: null while it runs, negative for a signal; and what was refused by then

Children die with this process, and this process ends when its input does. What the fence refuses a child is told here
as well, through a socket: the child may swallow the error, but cannot take back what was sent, and a child that cannot
send any more ends at once.
"""

from __future__ import annotations

import _posixsubprocess
import contextlib
import ctypes
import importlib.util
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

__all__ = ["main"]

_PACKAGES = frozenset({"oracle_server", "referee", "defenses"})
_OPENS = frozenset(
    {
        "open",
        "os.chdir",
        "os.chmod",
        "os.chown",
        "os.getxattr",
        "os.link",
        "os.listdir",
        "os.listxattr",
        "os.mkdir",
        "os.remove",
        "os.removexattr",
        "os.rename",
        "os.rmdir",
        "os.scandir",
        "os.setxattr",
        "os.symlink",
        "os.truncate",
        "os.utime",
        "shutil.copyfile",
    }
)
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_STARTS = frozenset({"subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.fork", "os.forkpty"})
_NEVER = dict.fromkeys(_STARTS, "another process would run without it") | {
    "sqlite3.connect": "it can open further files, which no hook sees"
}
_SPEAKS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_UNREPORTED = 79  # exit status of one that could not tell what it was refused
_MOST = 400  # characters of what is told
_REPORTED = 1 << 16  # bytes that are read of it


def _install(denied: list[str], report: Callable[[str], None]) -> None:
    specs = filter(None, map(importlib.util.find_spec, sorted(_PACKAGES)))
    packages = [place for spec in specs for place in spec.submodule_search_locations or ()]
    folders = tuple(os.path.realpath(folder) for folder in (*denied, *packages))
    realpath, fsdecode, separator = os.path.realpath, os.fsdecode, os.sep
    own, here = f"/proc/{os.getpid()}/", os.path.realpath(os.getcwd()) + separator

    def refuse(what: str, why: str) -> NoReturn:
        report(what)
        raise PermissionError(f"the fence refuses {what}: {why}")

    def look(event: str, path: str, leads_below: bool) -> None:
        place = realpath(path)
        below = place.rstrip(separator) + separator
        for folder in folders:
            inside = below.startswith(folder + separator)
            if inside and not (below.startswith(here) and here.startswith(folder + separator)):
                refuse(f"{event} of {place}", "it is not the attacker's")
            if leads_below and folder.startswith(below):
                refuse(f"{event} of {place}", f"it leads to {folder}")
        if below.startswith("/proc/") and below[6:7].isdigit() and not below.startswith(own):
            refuse(f"{event} of {place}", "it is another process")

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "import":
            name = str(arguments[0])
            if name.partition(".")[0] in _PACKAGES:
                refuse(f"to import {name}", "it is not the attacker's")
            if name == "_posixsubprocess":  # a fresh one
                refuse(f"to import {name}", _NEVER["os.fork"])
        elif event in _NEVER:
            refuse(event, _NEVER[event])
        elif event in _SPEAKS:
            if isinstance(arguments[1], str | bytes):  # of other families it is a tuple
                refuse(f"{event} to {fsdecode(arguments[1])}", "the operator's calls go through such sockets")
        elif event in _OPENS:
            # os.open (which gives no mode) and os.rename of a folder above: the names below it, no hook would see
            leads_below = event == "os.rename" or (event == "open" and arguments[1] is None)
            for path in arguments[: 1 if event == "open" else 2]:
                if isinstance(path, str | bytes | os.PathLike):
                    look(event, fsdecode(path), leads_below)

    def no_process(*_: object) -> NoReturn:
        refuse("to start a process", _NEVER["os.fork"])

    _posixsubprocess.fork_exec = no_process  # what multiprocessing calls, past every audit event
    sys.addaudithook(hook)


def main(arguments: list[str], report: Callable[[str], None] = lambda what: None) -> None:
    """Install the hook, then run MODULE as if by `python -m MODULE ARGUMENTS`; `report` is told what is refused."""
    end = arguments.index("--")
    module = arguments[end + 1]
    sys.argv = [module, *arguments[end + 2 :]]
    _install(arguments[:end], report)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def serve(module: str) -> None:
    """Fork for every order until there are none."""
    importlib.import_module(module)  # and start no thread: a fork takes the calling one alone
    told: dict[int, socket.socket] = {}  # by child, where it says what it was refused
    while line := sys.stdin.readline():
        order = json.loads(line)
        if "poll" in order:
            answer = _poll(order["poll"], told)
        else:
            ours, theirs = socket.socketpair()
            parent, child = os.getpid(), os.fork()
            if not child:
                for one in (ours, *told.values()):
                    one.close()
                return _become(order, parent, theirs)
            theirs.close()
            told[child], answer = ours, {"pid": child}
        print(json.dumps(answer), flush=True)
    os._exit(0)  # children that still run get their signal now


def _poll(child: int, told: dict[int, socket.socket]) -> dict[str, Any]:
    found, status = os.waitpid(child, os.WNOHANG)
    if not found:
        return {"status": None, "refused": []}
    with told.pop(child) as ours:
        ours.setblocking(False)
        sent = b""
        with contextlib.suppress(OSError):
            while len(sent) < _REPORTED and (part := ours.recv(_REPORTED)):
                sent += part
    refused = sent.decode(errors="replace").splitlines()
    code = os.waitstatus_to_exitcode(status)
    return {"status": code, "refused": [*refused, "what it kept from being told"] if code == _UNREPORTED else refused}


def _reporter(theirs: socket.socket) -> Callable[[str], None]:
    """What writes a line to the other end of this socket, or ends the process where it is no longer there."""
    theirs.setblocking(False)
    number = theirs.detach()
    fstat, write, end = os.fstat, os.write, os._exit
    known = fstat(number).st_ino

    def report(what: str) -> None:
        line = " ".join(what.split())[:_MOST] + "\n"
        try:
            if fstat(number).st_ino != known:
                end(_UNREPORTED)
            write(number, line.encode(errors="replace"))
        except BlockingIOError:
            return  # more than anybody will read has been told
        except OSError:
            end(_UNREPORTED)

    return report


def _become(order: dict[str, Any], parent: int, theirs: socket.socket) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before it could be heard
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream, descriptor in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (2 if order["own_errors"] else log, 2)):
        os.dup2(stream, descriptor)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    main(order["arguments"], _reporter(theirs))


if __name__ == "__main__":
    sys.path[:] = [folder for folder in sys.path if folder != os.path.dirname(os.path.abspath(__file__))]
    if sys.argv[1] == "--orders":
        serve(sys.argv[2])
    else:
        main(sys.argv[1:])
