"""Hosted models on disk: `models/<name>/<version>/` with `card.json`, the model (`model.pt2`, `tree.json` or
`regression.json`) and its parts; each version is written once and whole.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from oracle_server.models.card import Card

__all__ = ["Repository"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_FILES = {"neural": "model.pt2", "tree": "tree.json", "regression": "regression.json", "features": "model.pt2"}


class Repository:
    """The folder `models/` under the server's root."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "models"

    def cards(self) -> list[Card]:
        """Every model here, by name and version; `ValueError` for a card that cannot be read."""
        return [Card.read(path) for path in sorted(self.folder.glob("*/*/card.json"))]

    def card(self, model: str) -> Card:
        """The card of `name/version`, or of a name's newest version; `LookupError` with the names that exist."""
        name, slash, version = model.partition("/")
        found = []
        if _NAME.fullmatch(name) and (not slash or _NAME.fullmatch(version)):
            found = [Card.read(path) for path in self.folder.glob(f"{name}/{version or '*'}/card.json")]
        if not found:
            known = ", ".join(card.id for card in self.cards()) or "none yet: see oracle-server train and import"
            raise LookupError(f"no model {model!r} here; there is {known}")
        return max(found, key=lambda card: [int(n) if n.isdigit() else -1 for n in card.version.split(".")])

    def archive(self, card: Card, part: str = "") -> Path:
        """The file of a model or, by its name, of one of its parts."""
        return self.folder / card.name / card.version / (f"{part}.pt2" if part else _FILES[card.kind])

    def add(self, archive: Path | bytes | None, card: Card, parts: Mapping[str, Path] | None = None) -> None:
        """Put a model (a file, its content, or none for an upstream's) here, with the files of its parts. The version
        appears whole or not at all; one that exists is never overwritten.
        """
        for word in (card.name, card.version):
            if not _NAME.fullmatch(word):
                raise ValueError(f"{word!r} is no model name or version: use letters, digits, '.', '_' and '-'")
        target = self.folder / card.name / card.version
        if target.exists():
            raise FileExistsError(f"model {card.id} is there already: choose another --version")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".new-") as new:
            if archive is not None:
                data = archive if isinstance(archive, bytes) else archive.read_bytes()
                (Path(new) / _FILES[card.kind]).write_bytes(data)
            for name, path in (parts or {}).items():
                shutil.copyfile(path, Path(new) / f"{name}.pt2")
            card.write(Path(new) / "card.json")
            os.rename(new, target)  # of mode 0700: whoever else is on this machine has no contract for the weights
            os.mkdir(new)  # for TemporaryDirectory to remove
