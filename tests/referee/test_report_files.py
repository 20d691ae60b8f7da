"""The report's files: Parquet, timings and summary."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from referee.report import (
    Figure,
    parquet,
    summary,
    write_report,
)

HITS = (True,) * 12 + (False,) * 8


def test_two_writes_give_the_same_bytes_whatever_the_time(cells, make_cell, campaign, tmp_path):
    write_report(cells, campaign, tmp_path / "a")
    slower = [make_cell(HITS, name="numeric/a", seconds=99.0) if cell.name == "numeric/a" else cell for cell in cells]
    write_report(slower, campaign, tmp_path / "b")
    for file in ("results.parquet", "summary.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a/timings.json").read_bytes() != (tmp_path / "b/timings.json").read_bytes()
    other = [make_cell(HITS, name="numeric/a", seed=1), *cells[2:]]
    parquet.write(other, tmp_path / "c")
    assert (tmp_path / "c").read_bytes() != (tmp_path / "a/results.parquet").read_bytes()


def test_a_row_for_each_cell_target_and_mark(cells, tmp_path):
    parquet.write(cells, tmp_path / "results.parquet")
    table = pq.read_table(tmp_path / "results.parquet")
    assert table.schema.equals(parquet.SCHEMA)
    rows = table.to_pylist()
    assert len(rows) == 4 * 2 * 20 + 1
    row = next(row for row in rows if row["cell"] == "numeric/a" and row["mark"] == 3000 and row["target"] == 7)
    cell = cells[1]
    assert (row["top1"], row["own"], row["counts_equal"]) == (True, cell.own[1, 7], True)
    assert json.loads(row["parameters"]) == cell.parameters
    refused = rows[-1]
    assert refused["status"] == "refused"
    assert refused["sentence"].startswith("numeric needs scores")
    assert all(refused[key] is None for key in parquet.SCHEMA.names[10:])
    assert not {"seconds"} & set(parquet.SCHEMA.names)


def test_a_row_says_where_its_cell_stands_in_a_matrix(cells, campaign, tmp_path):
    place = {"task": "faces", "defence": "mid", "strength": "beta=0.01", "attack": "numeric"}
    matrix = {("numeric/a", 0): place, ("numeric/b", 1): place}  # there is no numeric/b with this seed
    write_report(cells, dataclasses.replace(campaign, matrix=matrix), tmp_path)
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert {row["cell"] for row in rows if row["defence"] == "mid"} == {"numeric/a"}
    assert {(row["task"], row["strength"]) for row in rows} == {("faces", "beta=0.01"), (None, None)}


def test_timings_are_beside_the_results(cells, make_cell, tmp_path):
    parquet.write_timings([*cells, make_cell(seconds=float("nan"))], tmp_path / "timings.json")
    got = json.loads((tmp_path / "timings.json").read_text())
    assert got["cells"][0] == {"cell": "mi_face", "split": "att40", "seed": 0, "seconds": 1.5}
    assert got["cells"][-1]["seconds"] is None
    assert got["seconds"] == 6.0


def test_summary_keeps_order_bounds_and_extra_keys(tmp_path):
    path = tmp_path / "summary.json"
    figures = [
        Figure("z", np.float32(0.5), at_least=0.2, at_most=0.4, extra={"seconds": 1.5}),
        Figure("a", 1, low=0.5, high=1.0, paper=0.9, unit="rows"),
    ]
    summary.write(figures, path)
    assert json.loads(path.read_text())["figures"] == [
        {"name": "z", "value": 0.5, "low": None, "high": None, "unit": "ratio", "paper": None}
        | {"bound": ">= 0.2 and <= 0.4", "passed": False, "seconds": 1.5},
        {"name": "a", "value": 1, "low": 0.5, "high": 1.0, "unit": "rows", "paper": 0.9},
    ]
    assert list(summary.read(path)) == ["z", "a"]


def test_a_whole_interval_may_have_to_lie_beyond_the_bound():
    above = [Figure("x", 0.5, low=low, high=0.9, at_least=0.0, whole=True) for low in (0.1, 0.0, None)]
    assert [figure.passed for figure in above] == [True, False, False]
    assert above[0].bound == "interval > 0"
    below = [Figure("x", 0.5, low=0.1, high=high, at_most=1.0, whole=True) for high in (0.9, 1.0)]
    assert [figure.passed for figure in below] == [True, False]
    assert Figure("x", 0.0, low=-1.0, high=0.9, at_least=0.0).passed is True


@pytest.mark.parametrize(
    ("figures", "sentence"),
    [
        ([Figure("x", float("nan"))], "value is nan"),
        ([Figure("x", 1.0, low=-np.inf)], "low is -inf"),
        ([Figure("x", 1.0), Figure("x", 2.0)], "given twice"),
        ([Figure("x", 1.0, extra={"unit": "m"})], "'unit' is taken"),
        ([Figure("x", 1.0, extra={"seconds": float("nan")})], "not JSON compliant"),
    ],
)
def test_a_bad_figure_is_refused_and_the_old_file_stays(tmp_path, figures, sentence):
    path = tmp_path / "summary.json"
    summary.write([Figure("x", 1.0)], path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=sentence):
        summary.write(figures, path)
    assert path.read_bytes() == before
