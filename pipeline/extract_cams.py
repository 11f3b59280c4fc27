"""Stage extract_cams: activation maps of the training photographs, into the CAM store (see `pipeline.maps.extraction`).

Maps of another program take the place of a network's where `cams.source` is `import` (see `pipeline.maps.imported`).
With `none` there are no maps, and all folders stay empty.

`data/seeds` holds the first rule's maps. Folders below it hold those that the network gives of earlier blocks or
stages, which `evaluate seeds` alone reads. Where several rules are asked for, `data/rules` holds a store of each, which
only `evaluate rules` reads. `data/validation/seeds` holds the validation photographs' maps, where they are asked for:
`refine_cams` refines them, and `evaluate seeds` reads them. With several processes each takes every n-th shard. A shard
that is complete is never computed again after a kill.
"""

from __future__ import annotations

from pathlib import Path

import torch

from models.propagation.rules import load_rule
from pipeline.data.manifest import PREPARED, Manifest, load_manifest
from pipeline.maps.extraction import extend_store, rule_folder
from pipeline.maps.imported import import_store
from pipeline.maps.localize import ExtractCamsConfig, Localizer
from pipeline.maps.store import copy_shards
from pipeline.run.files import new_folder
from pipeline.run.resume import resume_folder
from pipeline.run.runtime import Machine, barrier, rank
from pipeline.run.stage import run_distributed_stage
from pipeline.run.told import told
from pipeline.scoring.artefacts import VALIDATION
from pipeline.training.weights import load_network

__all__ = ["ExtractCamsConfig", "Localizer", "main"]

LOCALIZER, OUTPUT, COMPARED = Path("data/localizer"), Path("data/seeds"), Path("data/rules")
HELD_OUT = VALIDATION / "seeds"


def main(machine: Machine) -> None:
    """Compute the shards that are not there yet, then put all of them into place."""
    config = told("extract_cams", ExtractCamsConfig)
    inputs = [PREPARED / "manifest.csv", PREPARED / "classes.json"]
    if config.source == "network":
        inputs = [LOCALIZER / "network.json", LOCALIZER / "weights.safetensors", *inputs]
    with resume_folder("extract_cams", config, inputs) as folder:
        held_out = folder / "validation"
        MAKERS[config.source](config, load_manifest(), folder, held_out, machine)
        barrier()
        if rank() == 0:
            with new_folder(OUTPUT) as output:
                copy_shards(rule_folder(folder, config.rules[0], config), output)
                for text in config.rules[1:]:
                    if load_rule(config.rule(text)[0]).earlier is not None:
                        copy_shards(rule_folder(folder, text, config), output / text)
            with new_folder(COMPARED) as output:
                for text in config.rules if len(config.rules) > 1 else ():
                    copy_shards(rule_folder(folder, text, config), output / text)
            with new_folder(HELD_OUT) as output:
                copy_shards(held_out, output)


def network_maps(config: ExtractCamsConfig, manifest: Manifest, store: Path, held_out: Path, machine: Machine) -> None:
    """The localizer's maps of the training photographs and, where they are asked for, of the validation photographs."""
    machine = machine.computing_in(config.inference_precision)
    network = load_network(LOCALIZER, "train_localizer")
    network.to(machine.device, memory_format=torch.channels_last).eval()
    extend_store(network, manifest.split("train"), config, store, machine)
    if config.validation:
        knobs = config.of_validation()
        extend_store(network, manifest.split("val"), knobs, held_out, machine, "validation maps")


def imported_maps(config: ExtractCamsConfig, manifest: Manifest, store: Path, held_out: Path, machine: Machine) -> None:
    """The same of another program."""
    assert config.imported is not None, "configure tells where maps lie"
    config.imported.check_unchanged("cams.folder")
    import_store(manifest.split("train"), config.imported, config.first_id, store)
    if config.validation:
        import_store(manifest.split("val"), config.imported, config.first_id, held_out, "validation maps")


def no_maps(config: ExtractCamsConfig, manifest: Manifest, store: Path, held_out: Path, machine: Machine) -> None:
    """Nothing: masks come from elsewhere."""


MAKERS = {"network": network_maps, "import": imported_maps, "none": no_maps}
"""By `cams.source`."""


if __name__ == "__main__":
    run_distributed_stage(main)
