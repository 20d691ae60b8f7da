"""ChestX-ray14: chest X-rays of which each shows exactly one of fourteen findings, grey, 64x64.

The folder ``ChestX-ray14`` under the data root is as the NIH Clinical Center hands the data set out:

    Data_Entry_2017_v2020.csv or Data_Entry_2017.csv   one row for each image; the newer table when both are there
    images_001/images/*.png ... images_012/images/*.png, or all images in images/

Most images show nothing or several findings, and are left out. The lists that come with the data (train_val_list.txt,
test_list.txt) may lie there and are not read: they say nothing of what is private and what is public.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oracle_server.victims.image_folders import read_photo
from oracle_server.victims.images import ImageSet, ImagesUnavailableError

__all__ = ["CREDIT", "FINDINGS", "FOLDER", "NAME", "SIDE", "TABLES", "TERMS", "Entry", "available", "entries", "x_rays"]

NAME = "chestxray14"
FOLDER = "ChestX-ray14"
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
SIDE = 64

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""A finding's label is its place here."""

CREDIT = (
    "ChestX-ray14: X. Wang, Y. Peng, L. Lu, Z. Lu, M. Bagheri and R. M. Summers, ChestX-ray8: Hospital-scale Chest"
    " X-ray Database and Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases,"
    " CVPR 2017; provided by the NIH Clinical Center, https://nihcc.app.box.com/v/ChestXray-NIHCC."
)
TERMS = (
    "Cite the CVPR 2017 paper, link to the NIH download site https://nihcc.app.box.com/v/ChestXray-NIHCC, and"
    " acknowledge that the NIH Clinical Center provided the data."
)

_NOTHING = "No Finding"
_IMAGE, _FOUND, _PATIENT = _COLUMNS = ("Image Index", "Finding Labels", "Patient ID")


class Entry(NamedTuple):
    """An image that shows exactly one finding: its file, the finding's place in ``FINDINGS``, and whose chest it is."""

    path: Path
    finding: int
    patient: int


def x_rays(root: Path) -> ImageSet:
    """The images of ``entries(root)`` in that order, ``(N, 1, 64, 64)``; those with colours or alpha are made grey.

    Raises:
        ImagesUnavailableError: as ``entries``, or an image cannot be read.
    """
    found = entries(root)
    images = np.empty((len(found), 1, SIDE, SIDE), dtype=np.float32)
    for image, entry in zip(images, found, strict=True):
        image[:] = read_photo(entry.path, (1, SIDE, SIDE)) / np.float32(255)
    return ImageSet(images, np.array([entry.finding for entry in found], dtype=np.int64), NAME, CREDIT, TERMS)


def available(root: Path) -> bool:
    """Whether the folder holds a table of images."""
    return any((root / FOLDER / table).is_file() for table in TABLES)


def entries(root: Path) -> tuple[Entry, ...]:
    """What the table under the data root says of images with exactly one finding, sorted by file name.

    No image is opened. Files of images that are left out need not be there.

    Raises:
        ImagesUnavailableError: there is no table, it lacks a column, a row is not as it should be, a file that a row
            names is not there, or no image shows exactly one finding.
    """
    folder = root / FOLDER
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if table is None:
        raise ImagesUnavailableError(f"ChestX-ray14 is missing: put {TABLES[1]} and its images into {folder}")
    rows = sorted(_single(table))
    if not rows:
        raise ImagesUnavailableError(f"no row of {table} has exactly one finding: put the data set's own table there")
    files = _files(folder)
    if missing := [name for name, _, _ in rows if name not in files]:
        raise ImagesUnavailableError(
            f"of the images that {table} names, {len(missing)} are not there, {missing[0]} the first: unpack all"
            f" archives into {folder}, as images_001/images and so on or as one folder images, or remove their rows"
        )
    return tuple(Entry(files[name], finding, patient) for name, finding, patient in rows)


def _single(table: Path) -> Iterator[tuple[str, int, int]]:
    """File name, finding and patient of every row with exactly one finding; all rows are checked."""
    seen: set[str] = set()
    for line, row in _rows(table):
        where = f"{table}, line {line}"
        name, found, patient = (row[column] for column in _COLUMNS)
        if name in seen:
            raise ImagesUnavailableError(f"{where} names the image {name!r} again: remove one of its rows")
        seen.add(name)
        findings = () if found == _NOTHING else tuple(found.split("|"))
        if unknown := [finding for finding in findings if finding not in FINDINGS]:
            raise ImagesUnavailableError(
                f"{where} has the unknown finding {unknown[0]!r}: it must be {_NOTHING!r} alone, or one or more of"
                f" {', '.join(FINDINGS)}, joined with |"
            )
        if not re.fullmatch(r"[0-9]{1,18}", patient):
            raise ImagesUnavailableError(f"{where} has the {_PATIENT} {patient!r}: give each patient a number")
        if len(findings) == 1:
            yield name, FINDINGS.index(findings[0]), int(patient)


def _rows(table: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if absent := [column for column in _COLUMNS if column not in (reader.fieldnames or ())]:
                raise ImagesUnavailableError(
                    f"{table} has no column {absent[0]!r}: put the data set's own table there, with its first line"
                )
            for row in reader:
                if any(row[column] is None for column in _COLUMNS):
                    raise ImagesUnavailableError(
                        f"{table}, line {reader.line_num} is cut short: put an undamaged copy there"
                    )
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ImagesUnavailableError(f"cannot read the table {table}: put an undamaged copy there") from error


def _files(folder: Path) -> Mapping[str, Path]:
    places = [folder / "images", *sorted(place / "images" for place in folder.glob("images_*"))]
    return {path.name: path for place in places if place.is_dir() for path in place.iterdir()}
