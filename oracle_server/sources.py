"""What an operator names on the command line of the code that this process is to run: `package.module:name`, or
`path/to/file.py:name`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["named"]


def named(source: str) -> object:
    """What `source` names; its module is imported, which runs it. `ValueError` for words that are no source,
    `ImportError` or `AttributeError` where there is no such module or no such name in it; what the module raises.
    """
    place, _, name = source.rpartition(":")
    if not (place and name):
        raise ValueError("give package.module:name, or path/to/file.py:name")
    file = Path(place) if place.endswith(".py") else None
    folder = str(file.parent) if file else ""  # beside the file, or where the command runs, lies what is imported next
    sys.path.insert(0, folder)
    try:
        found: object = getattr(_loaded(file) if file else importlib.import_module(place), name)
    finally:
        sys.path.remove(folder)
    return found


def _loaded(file: Path) -> ModuleType:
    if not file.is_file():
        raise ImportError(f"there is no file {file}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(file.stem, module)  # dataclasses and pickles look their own module up by name
    spec.loader.exec_module(module)
    return module
