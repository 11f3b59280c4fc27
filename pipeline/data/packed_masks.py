"""Masks packed into shards of a thousand, so that a large data set is few files: safetensors of PNG bytes by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pipeline.data.manifest import Record
from pipeline.data.masks import encoded_mask, read_mask
from pipeline.data.outlines import Outline, draw
from pipeline.run.errors import UserError
from pipeline.run.files import write_atomic
from pipeline.run.pool import in_processes

SHARD_IMAGES = 1000


def pack_drawn(
    folder: Path, records: Sequence[Record], outlines: Mapping[str, Sequence[Outline]], workers: int
) -> dict[str, str]:
    """Draw the masks of photographs that have outlines, in a pool of processes; same outlines, same bytes.

    Returns:
        The name of the shard in `folder`, by photograph id.
    """
    drawn = [record for record in records if record.id in outlines]
    groups = [drawn[start : start + SHARD_IMAGES] for start in range(0, len(drawn), SHARD_IMAGES)]
    paths = [folder / f"shard-{number:05d}.safetensors" for number in range(len(groups))]
    objects = [[outlines[record.id] for record in group] for group in groups]
    in_processes(write_shard, paths, groups, objects, title="drawing masks", workers=workers)
    return {record.id: path.name for path, group in zip(paths, groups, strict=True) for record in group}


def write_shard(path: Path, records: Sequence[Record], outlines: Sequence[Sequence[Outline]]) -> None:
    """Draw the masks of some photographs into one file."""
    pictures = {
        record.id: np.frombuffer(encoded_mask(draw(objects, record.size)), dtype=np.uint8)
        for record, objects in zip(records, outlines, strict=True)
    }
    write_atomic(path, lambda temporary: save_file(pictures, temporary))


def read_packed(path: Path, record: Record) -> NDArray[np.uint8]:
    """The mask (H, W) of a photograph, from its shard.

    Raises:
        UserError: the shard is missing or damaged, or has no mask of this photograph, or one of another size.
    """
    try:
        with safe_open(path, framework="numpy") as shard:
            data = shard.get_tensor(record.id).tobytes()
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: mask of {record.id} cannot be read ({error}); run `dvc repro prepare_data`"
        ) from error
    return read_mask(path, record.size, data)
