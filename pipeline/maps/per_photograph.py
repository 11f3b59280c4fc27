"""Work on every photograph's maps in a pool of processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pipeline.data.manifest import Record
from pipeline.maps.store import store_index
from pipeline.run.pool import in_processes

R = TypeVar("R")


def map_photographs(
    job: Callable[[Path, Record], R], store: Path, records: Sequence[Record], title: str, workers: int
) -> list[R]:
    """Call `job` with the shard and the record of every photograph, in `workers` processes.

    Args:
        job: as `in_processes` takes it.
        store: the CAM store whose shards are passed.
        records: photographs.
        title: of the progress bar.
        workers: processes; at least one is started.

    Returns:
        Results in the order of the records.
    """
    index = store_index(store)
    return in_processes(job, [index[record.id] for record in records], records, title=title, workers=workers)
