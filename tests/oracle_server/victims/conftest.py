from __future__ import annotations

import pytest

from oracle_server.victims import att
from oracle_server.victims.att import Faces


@pytest.fixture(scope="session")
def faces() -> Faces:
    return att.faces()
