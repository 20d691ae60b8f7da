"""`results.parquet`: a row for each cell, target and mark. The same cells give the same bytes.

A cell without a result (refused, failed) has one row, whose measurements are null; so are mse, psnr and ssim where no
particular image was to be recovered, and task, defence, strength and attack of a cell that stands in no matrix. Times
differ from run to run, so they are kept out and written to `timings.json`.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from referee.atomic import write_atomically
from referee.cell import Cell, contract_hash

__all__ = ["SCHEMA", "write", "write_timings"]

SCHEMA = pa.schema(
    [
        pa.field("cell", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("victim", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("parameters", pa.string(), nullable=False),
        pa.field("contract", pa.string(), nullable=False),
        pa.field("contract_hash", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("sentence", pa.string(), nullable=False),
        pa.field("target", pa.int64()),
        pa.field("mark", pa.float64()),
        pa.field("self_reported", pa.bool_()),
        pa.field("top1", pa.bool_()),
        pa.field("top5", pa.bool_()),
        pa.field("own", pa.float64()),
        pa.field("others", pa.float64()),
        pa.field("confidence", pa.float64()),
        pa.field("mse", pa.float64()),
        pa.field("psnr", pa.float64()),
        pa.field("ssim", pa.float64()),
        pa.field("rows_ledger", pa.int64()),
        pa.field("rows_attacker", pa.int64()),
        pa.field("counts_equal", pa.bool_()),
        pa.field("capacity_bits", pa.float64()),
        *(pa.field(name, pa.string()) for name in ("task", "defence", "strength", "attack")),
    ]
)


def write(cells: Sequence[Cell], path: Path, matrix: Mapping[tuple[str, int], Mapping[str, str]] | None = None) -> None:
    """Write all cells to a Parquet file (zstd), whole or not at all, in the order given. `matrix` says by name and seed
    of a cell its task, defence, strength and attack, where it has them.
    """
    rows = [row | dict((matrix or {}).get((cell.name, cell.seed), {})) for cell in cells for row in _rows(cell)]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())


def write_timings(cells: Sequence[Cell], path: Path) -> None:
    """Write `{"cells": [{"cell", "seed", "seconds"}], "seconds": total}`; a time that isn't known is null."""
    seconds = [None if math.isnan(cell.seconds) else round(cell.seconds, 3) for cell in cells]
    entries = [
        {"cell": cell.name, "split": cell.split, "seed": cell.seed, "seconds": value}
        for cell, value in zip(cells, seconds, strict=True)
    ]
    total = round(sum(value for value in seconds if value is not None), 3)
    text = json.dumps({"cells": entries, "seconds": total}, indent=1, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def _rows(cell: Cell) -> Iterator[dict[str, Any]]:
    """One row a mark and target, or a single one with nulls."""
    shared: dict[str, Any] = {
        "cell": cell.name,
        "split": cell.split,
        "victim": cell.victim,
        "method": cell.method,
        "seed": cell.seed,
        "parameters": json.dumps(cell.parameters, sort_keys=True),
        "contract": json.dumps(cell.contract, sort_keys=True),
        "contract_hash": contract_hash(cell.contract),
        "status": cell.status,
        "sentence": cell.sentence,
    }
    if cell.status != "done":
        yield shared
        return
    shared |= {
        "self_reported": cell.self_reported,
        "rows_ledger": cell.rows_ledger,
        "rows_attacker": cell.rows_attacker,
        "counts_equal": cell.counts_equal,
        "capacity_bits": None if math.isnan(cell.capacity_bits) else cell.capacity_bits,
    }
    for m, mark in enumerate(cell.marks.tolist()):
        for t, target in enumerate(cell.targets.tolist()):
            measured = {key: getattr(cell, key)[m, t].item() for key in ("top1", "top5", "own", "others", "confidence")}
            compared = {key: getattr(cell, key)[m, t].item() for key in ("mse", "psnr", "ssim")}
            compared = {key: None if math.isnan(value) else value for key, value in compared.items()}
            yield shared | {"target": target, "mark": mark} | measured | compared
