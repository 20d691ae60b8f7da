"""The client sends photos as the bytes that they are, where the card takes them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from attacker.journal import JournalError
from attacker.oracle import Oracle
from attacker.payload import payload
from tests.fixtures import Start
from tests.serving import Caller, Server

LEVELS = np.random.default_rng(0).integers(0, 256, (150, 1, 8, 6), dtype=np.uint8)
RUN = {"method": "a test"}


@contextlib.contextmanager
def opened(caller: Caller, folder: Path) -> Oracle:
    with contextlib.closing(Oracle(caller.server.address, caller.key)) as oracle:
        oracle.begin(folder, RUN)
        yield oracle


@pytest.mark.parametrize("small", [LEVELS, (LEVELS / 256).astype(np.float16)], ids=lambda rows: rows.dtype.name)
def test_small_rows_are_answered_counted_and_replayed(server: Server, tmp_path: Path, small: np.ndarray) -> None:
    caller, other = server.new_key(), server.new_key()
    plain = small / np.float32(255) if small.dtype == np.uint8 else small.astype(np.float32)
    with opened(caller, tmp_path / "small") as oracle, opened(other, tmp_path / "plain") as floats:
        assert oracle.accepted_dtypes == ("uint8", "float16")
        found = oracle.query(small, 0)
        assert found.scores is not None
        np.testing.assert_array_equal(found.scores, floats.query(plain, 0).scores)
        assert oracle.spent == caller.usage().spent == 150
    with opened(caller, tmp_path / "small") as again:
        np.testing.assert_array_equal(again.query(small, 0).scores, found.scores)
        assert again.spent == caller.usage().spent == 150
    with opened(caller, tmp_path / "small") as again, pytest.raises(JournalError, match="request 0 differs"):
        again.query(plain, 0)


def test_what_the_card_does_not_take(start: Start, tmp_path: Path) -> None:
    """uint8 is refused before anything is asked; of a float16 nothing is lost by sending it as float32."""
    server = start()
    path = server.root / "models" / "linear" / "1" / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"accepted_dtypes": []}))
    server.kill()
    server.start()
    caller = server.new_key()
    halves = (LEVELS[:5] / 256).astype(np.float16)
    with opened(caller, tmp_path) as oracle:
        with pytest.raises(ValueError, match="this model takes no uint8 inputs: send float32 values of its range"):
            oracle.query(LEVELS)
        assert caller.usage().spent == 0
        np.testing.assert_array_equal(oracle.query(halves).scores, oracle.query(halves.astype(np.float32)).scores)


def test_all_other_arrays_travel_as_the_model_reads_them() -> None:
    for dtype in (np.float64, np.float32, np.int64, np.bool_):
        assert payload(np.ones((2, 3), dtype), "float32", ("uint8", "float16")).dtype == np.float32
    turned = payload(LEVELS.T, "float32", ("uint8",))
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(turned, LEVELS.T)
