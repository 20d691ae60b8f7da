"""`python -m benchmarks.host ROOT THREADS`: `oracle-server serve` with a second ledger in memory."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path

import uvloop

from benchmarks.memory_ledger import MemoryLedger
from benchmarks.two_ledgers import TwoLedgers
from oracle_server.ledger import SqliteLedger
from oracle_server.operator import ledger_path
from oracle_server.server import ServeOptions, serve, write_address

__all__ = ["main"]


def main(root: Path, threads: int) -> None:
    """Serve every model below `root` until SIGTERM; `server.json` says where."""
    logging.basicConfig(level=logging.INFO)
    ledger = TwoLedgers(SqliteLedger(ledger_path(root)), MemoryLedger())
    with contextlib.closing(ledger), contextlib.ExitStack() as stack:
        options = ServeOptions(root, device="cpu", threads=threads)

        def started(address: str) -> None:
            stack.callback(write_address(root, address))

        uvloop.run(serve(options, ledger, started))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
