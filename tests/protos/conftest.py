"""Archives to craft from: one that `torch.export.save` wrote, as a table of its entries."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

Entries = dict[str, bytes]
Change = Callable[[Any], Any]

FILES = {
    "model": "models/model.json",
    "weights": "data/weights/model_weights_config.json",
    "constants": "data/constants/model_constants_config.json",
}


class Small(nn.Module):
    """(N, 4) to (N, 3), with a parameter, a buffer, and a constant that the exporter lifts."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("scale", torch.arange(1.0, 4.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).relu() * self.scale + torch.tensor([0.5, 0.25, 0.125])


@pytest.fixture(scope="session")
def plain() -> Entries:
    """The entries that plain `torch.export.save` writes for `Small`, named without their root."""
    torch.manual_seed(0)
    dynamic = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(Small().eval(), (torch.zeros(2, 4),), dynamic_shapes=dynamic)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def craft(plain: Entries, tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a crafted archive and gives its path.

    `model`, `weights` and `constants` change the decoded JSON files in place, `edit` the entries after that.
    """

    def write(edit: Change | None = None, **changes: Change) -> Path:
        entries = dict(plain)
        for name, change in changes.items():
            content = json.loads(entries[FILES[name]])
            change(content)
            entries[FILES[name]] = json.dumps(content).encode()
        if edit is not None:
            edit(entries)
        path = tmp_path / "crafted.pt2"
        with zipfile.ZipFile(path, "w") as archive:
            for entry, content in entries.items():
                archive.writestr(f"root/{entry}", content)
        return path

    return write
