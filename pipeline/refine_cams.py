"""Stage refine_cams: a propagation rule on the CAM store, with the affinity that the method learned.

A rule reads the seeds' store and writes one of the same form; the walks write scores that compete as they are. The
rule `par` follows the photograph's colours and needs no learned affinity; `none` hands the seeds on. Maps of validation
photographs, where there are some, are refined into a store of their own. Shards are finished one by one, so a killed
stage continues; several processes share them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from models.affinity.task import AffinityNetwork
from models.refine.knobs import NEEDS, RefineKnobs
from models.refine.par import PAR
from models.refine.walk import irn_walk, psa_walk
from pipeline.data.dataset import resized_view
from pipeline.data.images import SMALLEST_SIDE, scaled_size
from pipeline.data.manifest import load_manifest, same_size_batches
from pipeline.data.photographs import Photographs
from pipeline.maps.store import (
    CamEntry,
    copy_shards,
    fused_maps,
    grid_extent,
    read_shard,
    shard_path,
    shards_in,
    whole,
    write_shard,
)
from pipeline.run.errors import UserError
from pipeline.run.files import new_folder, read_json
from pipeline.run.resume import resume_folder
from pipeline.run.runtime import Machine, barrier, rank, world_size
from pipeline.run.stage import run_distributed_stage
from pipeline.run.told import Computed, told
from pipeline.scoring.artefacts import VALIDATION
from pipeline.training.weights import load_network

AFFINITY = Path("data/affinity")
SEEDS = {"train": Path("data/seeds"), "val": VALIDATION / "seeds"}
OUTPUT = {"train": Path("data/refined"), "val": VALIDATION / "refined"}
PIXELS = ((0.0,) * 3, (1.0,) * 3)  # a normalisation that leaves colours in [0, 1]


class RefineCamsConfig(RefineKnobs, Computed):
    """What refine_cams is told."""


def main(machine: Machine) -> None:
    """Apply the rule of the method to every shard that is not there yet, then put all of them into place."""
    config = told("refine_cams", RefineCamsConfig)
    if config.rule not in RULES:
        if rank() == 0:
            put_into_place(SEEDS)
        return
    network = load_affinity(config.rule, machine) if config.rule in NEEDS else None
    manifest = load_manifest()
    with resume_folder("refine_cams", config, [*SEEDS.values(), AFFINITY]) as folder:
        refined = {split: folder / split for split in SEEDS}
        for split, seeds in SEEDS.items():
            photographs = Photographs(manifest.split(split), machine.root)
            extend_refined(network, photographs, seeds, refined[split], config, machine)
        barrier()
        if rank() == 0:
            put_into_place(refined)


def put_into_place(stores: Mapping[str, Path]) -> None:
    """Copy the store of each split to where the stages after this one find it."""
    for split, store in stores.items():
        with new_folder(OUTPUT[split]) as output:
            copy_shards(store, output)


def extend_refined(
    network: AffinityNetwork | None,
    photographs: Photographs,
    seeds: Path,
    folder: Path,
    config: RefineCamsConfig,
    machine: Machine,
) -> None:
    """Refine the shards of one store that are not there yet; several processes take every n-th."""
    folder.mkdir(exist_ok=True)
    sources = shards_in(seeds)
    for number in range(rank(), len(sources), world_size()):
        if not whole(path := shard_path(folder, number)):
            entries = {entry.id: entry for entry in read_shard(sources[number])}
            title = f"{config.rule}, shard {number + 1} of {len(sources)}"
            refined = refined_entries(network, photographs, entries, config, machine, title)
            write_shard(path, refined, config.model_dump(exclude={"code"}))


def load_affinity(rule: str, machine: Machine) -> AffinityNetwork:
    """The trained affinity network that a rule walks on.

    Raises:
        UserError: the stage before trained another one, or none.
    """
    trained = read_json(AFFINITY / "network.json", "train_affinity")["network"]
    if trained != NEEDS[rule]:
        raise UserError(f"refine.rule = {rule} needs affinity.network = {NEEDS[rule]}, but it is {trained}; set it")
    network = load_network(AFFINITY, "train_affinity")
    placed: AffinityNetwork = network.to(machine.device, memory_format=torch.channels_last).eval()
    return placed


def refined_entries(
    network: AffinityNetwork | None,
    photographs: Photographs,
    entries: dict[str, CamEntry],
    config: RefineKnobs,
    machine: Machine,
    title: str,
) -> list[CamEntry]:
    """The refined maps of some photographs, in their order; photographs of equal size share a batch.

    Without a network the photographs themselves refine them.
    """
    normalisation = PIXELS if network is None else (network.backbone.mean, network.backbone.std)
    records = [record for record in photographs.records if record.id in entries]
    done: dict[str, CamEntry] = {}
    with tqdm(total=len(records), desc=title, disable=None) as progress:
        for batch in same_size_batches(records, config.batch):
            images = [photographs.read(record) for record in batch]
            size = scaled_size(batch[0].size, config.long_side, SMALLEST_SIDE)
            views = torch.stack([resized_view(image, size, normalisation) for image in images]).to(machine.device)
            some = [entries[record.id] for record in batch]
            done |= {entry.id: entry for entry in RULES[config.rule](network, views, some, config, machine)}
            progress.update(len(batch))
    return [done[name] for name in entries]


def class_stack(entries: Sequence[CamEntry], size: tuple[int, int], device: torch.device) -> Tensor:
    """The normalised maps of several images as (B, K, H, W); images with fewer classes have zero maps at the end.

    There is at least one map, also where no image has a class.
    """
    most = max(1, *(len(entry.class_ids) for entry in entries))
    stack = torch.zeros(len(entries), most, *size)
    for maps, entry in zip(stack, entries, strict=True):
        maps[: len(entry.class_ids)] = torch.from_numpy(fused_maps(entry, size)[0])
    return stack.to(device)


def psa_entries(
    network: AffinityNetwork | None, views: Tensor, entries: Sequence[CamEntry], config: RefineKnobs, machine: Machine
) -> list[CamEntry]:
    """AffinityNet's walk of classes and background; the walked background competes, as in the released code."""
    assert network is not None, "psa_walk runs on AffinityNet's affinities"
    with machine.autocast():
        affinity, _ = network.affinity(views, config.radius, config.border)
    size = (views.shape[2], views.shape[3])
    walked = psa_walk(
        class_stack(entries, size, views.device),
        affinity,
        radius=config.radius,
        beta=config.beta,
        steps=2**config.log2_steps,
        alpha=config.alpha,
        stride=network.stride,
        tolerance=config.tolerance,
    )
    walked = walked.cpu()
    return [
        walked_entry(entry, size, scores[1:], network.stride, background=scores[0])
        for entry, scores in zip(entries, walked, strict=True)
    ]


def irn_entries(
    network: AffinityNetwork | None, views: Tensor, entries: Sequence[CamEntry], config: RefineKnobs, machine: Machine
) -> list[CamEntry]:
    """IRN's walk of the classes away from boundaries, divided by the image's maximum."""
    assert network is not None, "irn_walk runs on IRN's boundaries"
    with machine.autocast():
        affinity, boundary = network.affinity(views, config.radius, config.border)
    assert boundary is not None, "irn_walk runs on a network with boundaries"
    size, grid = (views.shape[2], views.shape[3]), (boundary.shape[1], boundary.shape[2])
    walked, _, highest = irn_walk(
        class_stack(entries, grid, views.device),
        boundary,
        affinity,
        size,
        radius=config.radius,
        beta=config.beta,
        steps=2**config.log2_steps,
        stride=network.stride,
        tolerance=config.tolerance,
    )
    scores = (walked / highest[:, None, None, None]).cpu()
    return [walked_entry(entry, size, maps, network.stride) for entry, maps in zip(entries, scores, strict=True)]


def par_entries(
    network: AffinityNetwork | None, views: Tensor, entries: Sequence[CamEntry], config: RefineKnobs, machine: Machine
) -> list[CamEntry]:
    """Maps that follow the colours of the photographs (B, 3, H, W) in [0, 1], all in one call.

    The maps themselves are refined, so that every background threshold can still be applied to them; ToCo's training
    refines them beside a constant background, after a softmax. Growth by the weights' excess over 1 is taken back.

    Source: Ru et al., CVPR 2022 (AFA), see `models.refine.par`; without softmax `reconstructed`.
    """
    par, size = PAR(tuple(config.dilations), config.iterations), (views.shape[2], views.shape[3])
    refined = par.refine(views, class_stack(entries, size, views.device))
    refined = (refined / (1 + par.position_weight) ** par.iterations).clamp(max=1).cpu()
    return [walked_entry(entry, size, maps, 1) for entry, maps in zip(entries, refined, strict=True)]


def walked_entry(
    entry: CamEntry, size: tuple[int, int], maps: Tensor, stride: int, background: Tensor | None = None
) -> CamEntry:
    """Scores (K or more, h, w) on the grid of a view of the given size, as an entry of the store."""
    extent = grid_extent(entry.size, size, maps.shape[1:], stride)
    kept = maps[: len(entry.class_ids)]
    behind = () if background is None else (background,)
    return CamEntry(entry.id, entry.size, entry.class_ids, (kept,), (extent,), behind, fusion="scores")


RULES = {"psa_walk": psa_entries, "irn_walk": irn_entries, "par": par_entries}


if __name__ == "__main__":
    run_distributed_stage(main)
