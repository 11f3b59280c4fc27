"""What holds for all tests: one thread each, and no pools of processes."""

from __future__ import annotations

import os

import pytest
import torch

from pipeline.run import pool
from tests.support.stages import InlinePool

os.environ["OMP_NUM_THREADS"] = "1"  # of stages that tests start; equal bits need an equal number of threads
torch.set_num_threads(1)  # what tests compute is small: threads would wait for each other most of the time


@pytest.fixture(autouse=True)
def work_of_pools_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that start PyTorch anew take seconds; what they do is the same."""
    monkeypatch.setattr(pool, "ProcessPoolExecutor", InlinePool)
