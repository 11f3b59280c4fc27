"""Work in a pool of processes. PyTorch is not imported here, so that light stages start at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from tqdm import tqdm

from pipeline.run.errors import UserError
from pipeline.run.parent import end_like_others

R = TypeVar("R")
KILLED = (
    "a process that worked on this was killed, most often since memory ran out; lower the knob workers (now {workers}) "
    "or, where it is the CRF, masks.max_side"
)
CHUNK = 4
"""So many items are handed to a process at once."""


def in_processes(job: Callable[..., R], *items: Sequence[Any], title: str, workers: int) -> list[R]:
    """Call `job` with every item, in `workers` processes of one thread each.

    Args:
        job: a function of a module, or a partial of one, since processes receive it by name.
        items: one sequence for each argument of `job`, all of one length.
        title: of the progress bar.
        workers: processes; at least one is started.

    Returns:
        Results in the order of the items.

    Raises:
        UserError: one of the processes was killed.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes that start now
    try:
        with ProcessPoolExecutor(max(1, workers), get_context("spawn"), end_like_others, (os.getpid(),)) as pool:
            results = pool.map(job, *items, chunksize=CHUNK)
            return list(tqdm(results, total=len(items[0]), desc=title, disable=None))
    except BrokenProcessPool as error:
        raise UserError(f"{title}: {KILLED.format(workers=workers)}") from error
