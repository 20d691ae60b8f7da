from __future__ import annotations

import pytest

from oracle_server.victims import att
from oracle_server.victims.images import ImageSet


@pytest.fixture(scope="session")
def faces() -> ImageSet:
    return att.faces()
