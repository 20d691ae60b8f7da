"""Hosted models on disk: `models/<name>/<version>/model.pt2` and `card.json`, each version written once and whole."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from oracle_server.models.card import Card

__all__ = ["Repository"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Repository:
    """The folder `models/` under the server's root."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "models"

    def cards(self) -> list[Card]:
        """Every model here, by name and version; `ValueError` for a card that cannot be read."""
        return [Card.read(path) for path in sorted(self.folder.glob("*/*/card.json"))]

    def card(self, model: str) -> Card:
        """The card of `name/version`, or of a name's newest version; `LookupError` with the names that exist."""
        cards = self.cards()
        found = [card for card in cards if model in (card.id, card.name)]
        if not found:
            known = ", ".join(card.id for card in cards) or "none yet: see oracle-server train and import"
            raise LookupError(f"no model {model!r} here; there is {known}")
        return max(found, key=lambda card: [int(n) if n.isdigit() else -1 for n in card.version.split(".")])

    def archive(self, card: Card) -> Path:
        return self.folder / card.name / card.version / "model.pt2"

    def add(self, archive: Path, card: Card) -> None:
        """Put a model here. The version appears whole or not at all; one that exists is never overwritten."""
        for part in (card.name, card.version):
            if not _NAME.fullmatch(part):
                raise ValueError(f"{part!r} is no model name or version: use letters, digits, '.', '_' and '-'")
        target = self.folder / card.name / card.version
        if target.exists():
            raise FileExistsError(f"model {card.id} is there already: choose another --version")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".new-") as new:
            shutil.copyfile(archive, Path(new) / "model.pt2")
            card.write(Path(new) / "card.json")
            os.chmod(new, 0o755)
            os.rename(new, target)
            os.mkdir(new)  # for TemporaryDirectory to remove
