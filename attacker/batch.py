"""Many runs in one file, a JSON object a line: for experiments that attack a hundred small models."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BatchRun", "read_batch"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=+-]{0,127}")


@dataclass(frozen=True)
class BatchRun:
    """One run: as the arguments of `attacker run`, with its key, and the name of its folder."""

    key: str
    name: str
    method: str
    settings: tuple[str, ...] = ()
    targets: str = "all"
    given: Path | None = None
    seed: int = 0


def read_batch(file: Path) -> list[BatchRun]:
    """All runs of a file, in its order; `ValueError` names the line that cannot be read."""
    runs = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            values = json.loads(line)
            settings = tuple(values.pop("set", ()))
            given = values.pop("given", None)
            run = BatchRun(**values, settings=settings, given=Path(given) if given else None)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{file}, line {number} is no run ({error}): write an object with key, name, method and, if need be,"
                " set, targets, given, seed"
            ) from error
        if not _NAME.fullmatch(run.name):
            raise ValueError(f"{file}, line {number}: {run.name!r} is no name of a folder: use letters, digits, _.=+-")
        runs.append(run)
    if twice := [name for name, times in Counter(run.name for run in runs).items() if times > 1]:
        raise ValueError(f"{file}: two runs are called {twice[0]}: give one of them another name")
    return runs
