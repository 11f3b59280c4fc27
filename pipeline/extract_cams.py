"""Stage extract_cams: activation maps of the training photographs, into the CAM store (see `pipeline.extraction`).

With several processes each takes every n-th shard. A shard that is complete is never computed again after a kill.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from models.localizers import LOCALIZERS
from pipeline.cam_store import shard_path
from pipeline.config import Cams, stage_config
from pipeline.extraction import extend_store, rule_folder
from pipeline.files import new_folder
from pipeline.manifest import PREPARED, load_manifest
from pipeline.resume import resume_folder
from pipeline.runtime import barrier, pick_device, rank
from pipeline.stage import run_distributed_stage
from pipeline.weights import load_network

LOCALIZER, OUTPUT = Path("data/localizer"), Path("data/seeds")


def main() -> None:
    """Compute the shards that are not there yet, then put all of them into place."""
    config = stage_config("extract_cams", Cams)
    network = load_network(LOCALIZER, LOCALIZERS, "train_localizer")
    network.to(pick_device(), memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    inputs = [LOCALIZER / "weights.safetensors", PREPARED / "manifest.csv", PREPARED / "classes.json"]
    with resume_folder("extract_cams", config, inputs) as folder:
        count = extend_store(network, load_manifest().split("train"), config, folder)
        barrier()
        if rank() == 0:
            with new_folder(OUTPUT) as output:
                for rule in config.rules:
                    source, store = (rule_folder(root, rule, config) for root in (folder, output))
                    store.mkdir(exist_ok=True)
                    for number in range(count):
                        shutil.copyfile(shard_path(source, number), shard_path(store, number))


if __name__ == "__main__":
    run_distributed_stage(main)
