"""Run a module that ends when whoever started it does: `python -m referee.tether MODULE ARGUMENTS...`

Standard input is a pipe to that process. The system closes it however that process ends, SIGKILL included: then the
module is asked to end, as by SIGTERM, and if that does not help, it is ended.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

__all__ = ["main"]

_STOP_SECONDS = 15.0


def main(arguments: list[str]) -> None:
    """Run the module as if by `python -m MODULE ARGUMENTS`."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def _end_with_input() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_STOP_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
