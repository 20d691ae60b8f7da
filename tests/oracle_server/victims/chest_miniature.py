"""A miniature of ChestX-ray14 in the real layout: 126 small noise images of 60 patients, and one table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from oracle_server.victims.chest_xray import FINDINGS, FOLDER

__all__ = ["HEADER", "PRIVATE", "PUBLIC", "RGBA", "Row", "miniature", "rows", "write"]

# As the NIH writes it: two of its names hold a comma, and the line ends with one.
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
PRIVATE = (0, 2, 3, 4, 5, 7, 8, 12)  # ten images each
PUBLIC = (6, 13)  # eight images each
RGBA = "00000007_000.png"


class Row(NamedTuple):
    """A line of the table: the image's name, its findings as they stand there, and the patient."""

    image: str
    found: str
    patient: int


def rows() -> list[Row]:
    """Sorted by name. Two images of one finding for most patients; some have two findings, one of them public."""
    chests: list[tuple[str, ...]] = []
    for place, finding in enumerate(PRIVATE):
        name, other = FINDINGS[finding], FINDINGS[PRIVATE[place - 1]]
        chests += [(name, name), (name, name), (name, "No Finding", name), (name, f"{name}|{other}"), (name, other)]
        chests += [(name, FINDINGS[PUBLIC[place % 2]])] if place < 2 else [(name,)]
    for finding in PUBLIC:
        name = FINDINGS[finding]
        # A public finding beside others many times: counted, it would be among the private ones.
        beside = (f"{name}|Mass", f"Edema|{name}|Mass")
        chests += [(name, name), (name, *beside), (name, *beside), (name, *beside), (name, "No Finding"), (name,)]
    return [
        Row(f"{patient:08d}_{image:03d}.png", found, patient)
        for patient, chest in enumerate(chests, start=1)
        for image, found in enumerate(chest)
    ]


def miniature(root: Path, table: str = "Data_Entry_2017.csv", folders: int = 2) -> Path:
    """The whole miniature under the data root `root`, which is returned."""
    write(root, rows(), table, folders)
    return root


def write(root: Path, lines: Iterable[Row], table: str = "Data_Entry_2017.csv", folders: int = 2) -> Path:
    """The data set's folder with images of these lines in as many folders of archives; none for all in ``images``.

    The noise of an image lies between ten times its only finding's place and nine above; of others it starts at 200.
    """
    lines, folder, random = list(lines), root / FOLDER, np.random.default_rng(0)
    for number, row in enumerate(lines):
        place = folder / f"images_{1 + number * folders // len(lines):03d}" / "images" if folders else folder / "images"
        place.mkdir(parents=True, exist_ok=True)
        base = 10 * FINDINGS.index(row.found) if row.found in FINDINGS else 200
        image = Image.fromarray((base + random.integers(0, 10, (80, 80))).astype(np.uint8))
        (image.convert("RGBA") if row.image == RGBA else image).save(place / row.image)
    told = [f"{row.image},{row.found},0,{row.patient},58,M,PA,2682,2749,0.143,0.143," for row in lines]
    (folder / table).write_text("\n".join((HEADER, *told)) + "\n")
    return folder
