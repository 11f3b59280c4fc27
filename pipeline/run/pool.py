"""Work on every photograph's maps in a pool of processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from pipeline.data.manifest import Record
from pipeline.maps.store import store_index
from pipeline.run.stage import die_with_parent

R = TypeVar("R")


def map_photographs(
    job: Callable[[Path, Record], R], store: Path, records: Sequence[Record], title: str, workers: int
) -> list[R]:
    """Call `job` with the shard and the record of every photograph, in `workers` processes of one thread each.

    Args:
        job: a function of a module, or a partial of one, since processes receive it by name.
        store: the CAM store whose shards are passed.
        records: photographs.
        title: of the progress bar.
        workers: processes; at least one is started.

    Returns:
        Results in the order of the records.
    """
    index = store_index(store)
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes that start now
    with ProcessPoolExecutor(max(1, workers), get_context("spawn"), initializer=die_with_parent) as pool:
        shards = [index[record.id] for record in records]
        return list(tqdm(pool.map(job, shards, records, chunksize=4), total=len(records), desc=title, disable=None))
