"""What every test shares: one torch thread, seeds, the cache of trained models, a ledger of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for the processes that tests start
os.environ.setdefault("MIRAGE_CACHE", str(ROOT / ".cache" / "mirage"))  # trained once, for every worker and run

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

from oracle_server.ledger import Key, SqliteLedger  # noqa: E402
from oracle_server.threat_model import Access, Contract  # noqa: E402

pytest_plugins = ("tests.fixtures",)  # real servers
torch.set_num_threads(1)
settings.register_profile("tests", deadline=None, print_blob=True)  # a shared machine keeps no deadlines
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _seeds() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - for libraries that draw from it


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """The folder that holds pyproject.toml."""
    return ROOT


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    """An empty ledger in a folder of its own."""
    opened = SqliteLedger(tmp_path / "ledger.db")
    yield opened
    opened.close()


@pytest.fixture
def make_key() -> Callable[..., Key]:
    """`make_key("k", access="label", budget=7)`: a key for the model m/1 that no ledger knows yet."""

    def make(key_id: str = "k", access: str = "scores", model: str = "m/1", **contract: object) -> Key:
        return Key(key_id, "", model, Contract(Access(access), **contract), bytes(32), created=0.0)

    return make
