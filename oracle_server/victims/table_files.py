"""Any CSV file as a table, with a small TOML file that says what its columns mean.

[table]
name = "survey"
response = "diet"
sensitive = ["smoker"]
missing = ["", "n/a"]          # answers that are none: their rows are dropped; "" by default

[features."Do you smoke?"]     # the column's header
name = "smoker"                # optional
kind = "nominal"
levels = ["no", "yes"]         # optional: those that occur, sorted

[features.age]
kind = "numeric"

[features.diet]
kind = "nominal"
"""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle_server.victims.table import Table, nominal, numeric, table_of
from protos.schema import Feature

__all__ = ["read_table"]

_SHOWN = 20  # levels that a sentence names


def read_table(path: Path, schema: Path) -> Table:
    """Read a table; columns that the schema does not name are ignored.

    Raises `ValueError` with one sentence: a file that cannot be read, a schema that names no response or no sensitive
    feature, a missing column, a value that is no level or no number, no rows left.
    """
    plan = _Schema(schema)
    header, rows = _lines(path)
    for column in plan.columns:
        if column not in header:
            raise ValueError(f"{path} has no column {column!r}, which {schema} names; it has {', '.join(header)}")
    used = [header.index(column) for column in plan.columns]
    kept = [(line, row) for line, row in rows if not any(row[j] in plan.missing for j in used)]
    if not kept:
        raise ValueError(f"{path}: no rows are left, each of its {len(rows):,} has a missing answer")
    columns = {}
    for (column, (name, kind)), j in zip(plan.columns.items(), used, strict=True):
        words = [row[j] for _, row in kept]
        lines = [line for line, _ in kept]
        columns[name] = (
            _numbers(path, column, name, words, lines)
            if kind is None
            else _levels(path, column, name, words, lines, kind)
        )
    return table_of(plan.name, columns, plan.response, plan.sensitive, dropped=len(rows) - len(kept))


class _Schema:
    """What a schema file says.

    columns  of each header its name, and its levels: empty for those that occur, None for numbers
    """

    def __init__(self, path: Path) -> None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot read the schema {path}: {error}") from error
        table, features = values.get("table", {}), values.get("features", {})
        if not isinstance(table, dict) or not isinstance(features, dict) or not features:
            raise ValueError(f"{path} describes no columns: write a section [features.NAME] for each")
        self.name = str(table.get("name", path.stem))
        self.missing = set(table.get("missing", [""]))
        self.columns = {column: self._column(path, column, said) for column, said in features.items()}
        kinds = dict(self.columns.values())
        if len(kinds) < len(self.columns):
            raise ValueError(f"{path} gives two columns the same name")
        self.response = str(table.get("response", ""))
        if self.response not in kinds:
            raise ValueError(f"{path}: response = {self.response!r} under [table] must be one of {', '.join(kinds)}")
        self.sensitive = table.get("sensitive", [])
        if not isinstance(self.sensitive, list) or not self.sensitive:
            raise ValueError(f"{path} names no sensitive feature: write sensitive = [NAME] under [table]")
        for name in self.sensitive:
            if name not in kinds or name == self.response:
                raise ValueError(f"{path}: the sensitive feature {name!r} is no feature; there is {', '.join(kinds)}")
            if kinds[name] is None:
                raise ValueError(f"{path}: the sensitive feature {name!r} must be nominal, since values are tried out")

    @staticmethod
    def _column(path: Path, column: str, said: Any) -> tuple[str, tuple[str, ...] | None]:
        kind = said.get("kind") if isinstance(said, dict) else None
        if kind not in ("nominal", "numeric"):
            raise ValueError(f'{path}: write kind = "nominal" or kind = "numeric" for the column {column!r}')
        if unknown := set(said) - {"kind", "name", "levels"}:
            raise ValueError(f"{path}: the column {column!r} has an unknown setting {sorted(unknown)[0]!r}")
        levels = tuple(map(str, said.get("levels", ())))
        if kind == "numeric" and levels:
            raise ValueError(f"{path}: the column {column!r} is numeric and has no levels")
        return str(said.get("name", column)), levels if kind == "nominal" else None


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, [word.strip() for word in row]) for row in reader if row]
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"cannot read the table {path}: {error}") from error
    if not lines:
        raise ValueError(f"{path} is empty: it needs a header and a row for each person")
    (_, header), *rows = lines
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: {len(row)} values for {len(header)} columns")
    return header, rows


def _levels(
    path: Path, column: str, name: str, words: list[str], lines: list[int], levels: tuple[str, ...]
) -> tuple[Feature, NDArray[np.float32]]:
    known = levels or tuple(sorted(set(words)))
    try:
        return nominal(name, words, known)
    except KeyError as error:
        line = lines[words.index(error.args[0])]
        shown = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
        raise ValueError(f"{path}, line {line}, column {column!r}: {error.args[0]!r} is none of {shown}") from None


def _numbers(
    path: Path, column: str, name: str, words: list[str], lines: list[int]
) -> tuple[Feature, NDArray[np.float32]]:
    values = []
    for line, word in zip(lines, words, strict=True):
        try:
            values.append(float(word))
        except ValueError:
            raise ValueError(f"{path}, line {line}, column {column!r}: {word!r} is no number") from None
    if not np.isfinite(np.asarray(values, dtype=np.float32)).all():
        raise ValueError(f"{path}, column {column!r}: a number is not finite")
    return numeric(name, values)
