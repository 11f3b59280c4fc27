"""Stage extract_cams: activation maps of the training photographs at several scales, into CAM stores.

Photographs of equal size share a batch, each beside its mirror image; only the maps of the classes present are kept.
Propagation rules that read the network's attention run here, in the same forward pass, and attention is never written
to disk. The first rule's maps are what later stages use; further rules only add their own stores, for comparison.
With several processes each takes every n-th shard. A shard that is complete is never computed again after a kill.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from models.classifier import Classifier
from models.classifiers import CLASSIFIERS
from models.propagation import RULES, Observed, Rule, check_grid
from models.propagation_settings import Settings
from pipeline.cam_store import SHARD_IMAGES, CamEntry, grid_extent, shard_path, write_shard
from pipeline.config import Cams, stage_config
from pipeline.errors import UserError
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


def main() -> None:
    """Compute the shards that are not there yet, then put all of them into place."""
    config = stage_config("extract_cams", Cams)
    manifest = load_manifest().split("train")
    network = load_network(LOCALIZER, CLASSIFIERS, "train_localizer")
    network.to(pick_device(), memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    inputs = [LOCALIZER / "weights.safetensors", PREPARED / "manifest.csv", PREPARED / "classes.json"]
    with resume_folder("extract_cams", config, inputs) as folder:
        starts = range(0, len(manifest.records), SHARD_IMAGES)
        for number in range(rank(), len(starts), world_size()):
            paths = {rule: shard_path(rule_folder(folder, rule, config), number) for rule in config.rules}
            if not all(path.exists() for path in paths.values()):
                records = manifest.records[starts[number] : starts[number] + SHARD_IMAGES]
                title = f"maps, shard {number + 1} of {len(starts)}"
                for rule, entries in shard_entries(network, manifest, records, config, title).items():
                    paths[rule].parent.mkdir(exist_ok=True)
                    about = {"rule": rule, "scales": config.scales, "long_side": config.long_side}
                    write_shard(paths[rule], entries, about)
        barrier()
        if rank() == 0:
            with new_folder(OUTPUT) as output:
                for rule in config.rules:
                    store = rule_folder(output, rule, config)
                    store.mkdir(exist_ok=True)
                    for number in range(len(starts)):
                        shutil.copyfile(
                            shard_path(rule_folder(folder, rule, config), number), shard_path(store, number)
                        )


def shard_entries(
    network: Classifier, manifest: Manifest, records: Sequence[Record], config: Cams, title: str
) -> dict[str, list[CamEntry]]:
    """The maps of some photographs, in their order, by rule."""
    photographs = Photographs(manifest)
    entries: dict[str, dict[str, CamEntry]] = {rule: {} for rule in config.rules}
    with tqdm(total=len(records), desc=title, disable=None) as progress:
        for batch in same_size_batches(records, config.batch):
            images = [photographs.read(record) for record in batch]
            classes = [tuple(manifest.class_ids(record)) for record in batch]
            maps: dict[str, list[list[Tensor]]] = {rule: [[] for _ in batch] for rule in config.rules}
            extents: list[tuple[int, int]] = []
            for scale in config.scales:
                size = view_size(batch[0].size, scale, config)
                normalisation = (network.backbone.mean, network.backbone.std)
                views = torch.stack([resized_view(image, size, normalisation) for image in images])
                for rule, grids in view_maps(network, views, classes, config).items():
                    for mine, grid in zip(maps[rule], grids, strict=True):
                        mine.append(grid)
                extents.append(grid_extent(batch[0].size, size, grids[0].shape[1:], network.stride))
            for rule in config.rules:
                for record, class_ids, kept in zip(batch, classes, maps[rule], strict=True):
                    entries[rule][record.id] = CamEntry(
                        record.id, record.size, class_ids, tuple(kept), tuple(extents), fusion=config.fusion
                    )
            progress.update(len(batch))
    return {rule: [entries[rule][record.id] for record in records] for rule in config.rules}


def view_size(size: tuple[int, int], scale: float, config: Cams) -> tuple[int, int]:
    """Height and width of the view of a photograph at a scale."""
    long_side = config.long_side or max(size)
    if config.square:
        return (max(SMALLEST_SIDE, round(long_side * scale)),) * 2
    height, width = scaled_size(size, long_side)
    return scaled_size((height, width), max(height, width) * scale, SMALLEST_SIDE)


@torch.inference_mode()
def view_maps(
    network: Classifier, views: Tensor, classes: Sequence[Sequence[int]], config: Cams
) -> dict[str, list[Tensor]]:
    """For each rule the maps (K, h, w) of every view, the mean of its and its mirror image's, on the CPU.

    Args:
        network: gives maps, and lets attention be observed.
        views: (B, 3, H, W), normalised.
        classes: mask labels of the classes present in each.
        config: rules and their settings.
    """
    device = next(network.parameters()).device
    both = torch.cat([views, views.flip(3)]).to(device).contiguous(memory_format=torch.channels_last)
    rules = {text: network_rule(text, config, network.depth) for text in config.rules}
    refuse_large(rules, (-(-views.shape[2] // network.stride), -(-views.shape[3] // network.stride)))
    observed = Observed(((rule.needs, blocks) for rule, blocks, _ in rules.values()), network.tokens)
    with autocast(device):
        activations = network.activations(both, observed.observers)
    grid = (activations.shape[2], activations.shape[3])
    present = [torch.tensor(ids, dtype=torch.int64, device=device) - 1 for ids in classes]
    found: dict[str, list[Tensor]] = {}
    for text, (rule, blocks, settings) in rules.items():
        moved = []
        for view in range(len(both)):
            own = activations[view, present[view % len(views)]].flatten(1)
            moved.append(rule.propagate(own, observed.attention(view, blocks), grid, settings).unflatten(1, grid))
        pairs = zip(moved[: len(views)], moved[len(views) :], strict=True)
        found[text] = [((plain + mirrored.flip(2)) / 2).cpu() for plain, mirrored in pairs]
    return found


def network_rule(text: str, config: Cams, depth: int) -> tuple[Rule, range, Settings]:
    """The rule that an entry of `rules` names, the blocks of the network that it reads, and its knobs."""
    name, knobs = config.rule(text)
    rule = RULES[name]
    blocks = rule.block_numbers(depth) if knobs.blocks == "rule" else range(depth)
    if isinstance(knobs.blocks, int):
        blocks = blocks[-knobs.blocks :]
    return rule, blocks, knobs.settings()


def refuse_large(rules: Mapping[str, tuple[Rule, range, Settings]], grid: tuple[int, int]) -> None:
    """Stop before any attention of too large a grid is computed.

    Raises:
        UserError: naming the rule, the grid and what to lower.
    """
    for text, (rule, _, settings) in rules.items():
        try:
            check_grid(grid, settings.max_tokens if rule.needs else None)
        except ValueError as error:
            raise UserError(f"cams.rules: {text}: {error}") from error


def rule_folder(store: Path, text: str, config: Cams) -> Path:
    """Where a rule's shards lie: the first rule's in the store itself, the others' in folders of its own."""
    return store if text == config.rules[0] else store / text


if __name__ == "__main__":
    run_distributed_stage(main)
