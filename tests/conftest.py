"""What holds for all tests."""

from __future__ import annotations

import pytest

from pipeline.run import pool
from tests.support.stages import InlinePool


@pytest.fixture(autouse=True)
def work_of_pools_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that start PyTorch anew take seconds; what they do is the same."""
    monkeypatch.setattr(pool, "ProcessPoolExecutor", InlinePool)
