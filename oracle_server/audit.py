"""The log of everything charged, as Parquet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from protos.mirage.v1 import admin_pb2

__all__ = ["write_parquet"]

_SCHEMA = pa.schema(
    [
        ("sequence", pa.uint64()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("key_id", pa.string()),
        ("rpc", pa.string()),
        ("model", pa.string()),
        ("request_id", pa.binary()),
        ("digest", pa.binary()),
        ("rows", pa.uint64()),
        ("link", pa.binary()),
    ]
)


def write_parquet(batches: Iterable[admin_pb2.AuditBatch], out: Path) -> int:
    """Write the log, batch by batch, and return its number of lines. The file appears when it is complete."""
    unfinished = out.with_name(out.name + ".part")
    lines = 0
    with pq.ParquetWriter(unfinished, _SCHEMA) as writer:
        for batch in batches:
            rows = [
                {name: getattr(entry, name) for name in _SCHEMA.names} | {"time": entry.time.ToMicroseconds()}
                for entry in batch.entries
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
            lines += len(rows)
    unfinished.replace(out)
    return lines
