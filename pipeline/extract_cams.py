"""Stage extract_cams: activation maps of the training photographs at several scales, into the CAM store.

Photographs of equal size share a batch, each beside its mirror image; only the maps of the classes present are kept.
With several processes each takes every n-th shard. A shard that is complete is never computed again after a kill.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from models.classifier import CamClassifier
from pipeline.cam_store import SHARD_IMAGES, CamEntry, grid_extent, shard_path, write_shard
from pipeline.config import Cams, stage_config
from pipeline.examples import Photographs, resized_view
from pipeline.files import new_folder
from pipeline.images import SMALLEST_SIDE, scaled_size
from pipeline.manifest import PREPARED, Manifest, Record, load_manifest, same_size_batches
from pipeline.resume import resume_folder
from pipeline.runtime import barrier, pick_device, rank, world_size
from pipeline.stage import run_distributed_stage
from pipeline.training import autocast
from pipeline.weights import load_network

LOCALIZER, OUTPUT = Path("data/localizer"), Path("data/seeds")
LOCALIZERS: dict[str, Callable[..., CamClassifier]] = {"cam_classifier": CamClassifier}


def main() -> None:
    """Compute the shards that are not there yet, then put all of them into place."""
    config = stage_config("extract_cams", Cams)
    manifest = load_manifest().split("train")
    network = load_network(LOCALIZER, LOCALIZERS, "train_localizer")
    network.to(pick_device(), memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    produced_by = {"network": "cam_classifier", "scales": config.scales, "long_side": config.long_side}
    inputs = [LOCALIZER / "weights.safetensors", PREPARED / "manifest.csv", PREPARED / "classes.json"]
    with resume_folder("extract_cams", config, inputs) as folder:
        starts = range(0, len(manifest.records), SHARD_IMAGES)
        for number in range(rank(), len(starts), world_size()):
            if not (path := shard_path(folder, number)).exists():
                records = manifest.records[starts[number] : starts[number] + SHARD_IMAGES]
                title = f"maps, shard {number + 1} of {len(starts)}"
                write_shard(path, shard_entries(network, manifest, records, config, title), produced_by)
        barrier()
        if rank() == 0:
            with new_folder(OUTPUT) as output:
                for number in range(len(starts)):
                    shutil.copyfile(shard_path(folder, number), shard_path(output, number))


def shard_entries(
    network: CamClassifier, manifest: Manifest, records: Sequence[Record], config: Cams, title: str
) -> list[CamEntry]:
    """The maps of some photographs, in their order."""
    photographs = Photographs(manifest)
    entries: dict[str, CamEntry] = {}
    with tqdm(total=len(records), desc=title, disable=None) as progress:
        for batch in same_size_batches(records, config.batch):
            images = [photographs.read(record) for record in batch]
            maps: list[list[Tensor]] = [[] for _ in batch]
            extents: list[tuple[int, int]] = []
            for scale in config.scales:
                height, width = scaled_size(batch[0].size, config.long_side)
                size = scaled_size((height, width), max(height, width) * scale, SMALLEST_SIDE)
                normalisation = (network.backbone.mean, network.backbone.std)
                views = torch.stack([resized_view(image, size, normalisation) for image in images])
                for mine, values in zip(maps, mirrored_cams(network, views), strict=True):
                    mine.append(values)
                extents.append(grid_extent(batch[0].size, size, maps[0][-1].shape[1:], network.backbone.strides[-1]))
            for record, values in zip(batch, maps, strict=True):
                class_ids = tuple(manifest.class_ids(record))
                present = torch.tensor(class_ids, dtype=torch.int64) - 1
                kept = tuple(grid[present] for grid in values)
                entries[record.id] = CamEntry(record.id, record.size, class_ids, kept, tuple(extents))
            progress.update(len(batch))
    return [entries[record.id] for record in records]


@torch.inference_mode()
def mirrored_cams(network: CamClassifier, views: Tensor) -> Tensor:
    """Maps (B, classes, h, w) before ReLU, the mean of each view's and its mirror image's, on the CPU."""
    device = next(network.parameters()).device
    both = torch.cat([views, views.flip(3)]).to(device).contiguous(memory_format=torch.channels_last)
    with autocast(device):
        plain, mirrored = network.cams(both).float().chunk(2)
    return ((plain + mirrored.flip(3)) / 2).cpu()


if __name__ == "__main__":
    run_distributed_stage(main)
