"""A store of maps for a test's photographs."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.data.manifest import load_manifest
from pipeline.maps.store import CamEntry, shard_path, write_shard


def write_store(folder: Path, seed: int, tags: bool = True) -> None:
    """Coarse maps of every photograph in the manifest, drawn at random; without `tags` none has a class."""
    manifest, generator = load_manifest(), torch.Generator().manual_seed(seed)
    entries = []
    for record in manifest.records:
        ids = tuple(manifest.class_ids(record)) if tags else ()
        maps = (torch.rand(len(ids), 5, 7, generator=generator),)
        entries.append(CamEntry(record.id, record.size, ids, maps, (record.size,)))
    write_shard(shard_path(folder, 0), entries, {})
