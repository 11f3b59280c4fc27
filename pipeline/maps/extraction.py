"""Activation maps of photographs at several scales, into CAM stores; whoever needs maps of a network calls this.

Photographs of equal size share a batch, each beside its mirror image; only the maps of the classes present are kept.
Propagation rules that read the network's attention run here, in the same forward pass, and attention is never written
to disk. The first rule's maps are a store's own; further rules have stores in folders below it, for comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from models.localizer import Activations, Localizer
from models.maps import FUSIONS, Fusion, fuse_logits
from models.propagation.apply import Observed, propagate
from models.propagation.rule import Rule, RuleKnobs, check_grid
from models.propagation.rules import load_rule
from pipeline.config.cams import CamsKnobs
from pipeline.data.dataset import resized_view
from pipeline.data.images import view_size
from pipeline.data.manifest import Manifest, Record, same_size_batches
from pipeline.data.photographs import Photographs
from pipeline.maps.store import SHARD_IMAGES, CamEntry, grid_extent, shard_path, whole, write_shard
from pipeline.run.errors import UserError
from pipeline.run.runtime import Machine, rank, world_size


def extend_store(
    network: Localizer,
    manifest: Manifest,
    config: CamsKnobs,
    store: Path,
    machine: Machine,
    title: str = "maps",
    alone: bool = False,
) -> None:
    """Compute the shards that a store does not have yet; several processes take every n-th.

    Args:
        network: on its device, in evaluation mode.
        manifest: the photographs.
        config: scales, rules and so on.
        store: folder; a shard that is there is never computed again.
        machine: where the network is, and where the photographs are.
        title: of the progress bar.
        alone: no other process takes part.
    """
    starts = range(0, len(manifest.records), SHARD_IMAGES)
    for number in range(0 if alone else rank(), len(starts), 1 if alone else world_size()):
        paths = {text: shard_path(rule_folder(store, text, config), number) for text in config.rules}
        if not all(whole(path) for path in paths.values()):
            records = manifest.records[starts[number] : starts[number] + SHARD_IMAGES]
            label = f"{title}, shard {number + 1} of {len(starts)}"
            for text, entries in shard_entries(network, manifest, records, config, machine, label).items():
                paths[text].parent.mkdir(parents=True, exist_ok=True)
                write_shard(paths[text], entries, provenance(config, text))


def provenance(config: CamsKnobs, text: str) -> dict[str, Any]:
    """What a rule's shards say of how they were made."""
    name, knobs = config.rule(text)
    views = config.model_dump(exclude={"rules", "rule_knobs", "validation", "code"})
    return views | {"rule": name, "knobs": knobs.model_dump()}


def shard_entries(
    network: Localizer, manifest: Manifest, records: Sequence[Record], config: CamsKnobs, machine: Machine, title: str
) -> dict[str, list[CamEntry]]:
    """The maps of some photographs, in their order, by rule."""
    photographs, class_count = Photographs(manifest, machine.root), len(manifest.classes)
    entries: dict[str, dict[str, CamEntry]] = {text: {} for text in config.rules}
    with tqdm(total=len(records), desc=title, disable=None) as progress:
        for batch in same_size_batches(records, config.batch):
            images = [photographs.read(record) for record in batch]
            classes = [tuple(manifest.class_ids(record)) for record in batch]
            for text, found in batch_entries(network, batch, images, classes, class_count, config, machine).items():
                entries[text] |= {entry.id: entry for entry in found}
            progress.update(len(batch))
    return {text: [entries[text][record.id] for record in records] for text in config.rules}


def batch_entries(
    network: Localizer,
    batch: Sequence[Record],
    images: Sequence[NDArray[np.uint8]],
    classes: Sequence[tuple[int, ...]],
    class_count: int,
    config: CamsKnobs,
    machine: Machine,
) -> dict[str, list[CamEntry]]:
    """The maps of photographs of one size, by rule.

    Args:
        network: on its device, in evaluation mode.
        batch: the photographs' records; ids and sizes are read.
        images: (H, W, 3) uint8 each.
        classes: mask labels (1-based) of the classes of each.
        class_count: of the data set.
        config: scales, rules and so on.
        machine: where the network is.
    """
    scales: list[dict[str, list[Tensor]]] = []
    extents: list[tuple[int, int]] = []
    for scale in config.scales:
        size = view_size(batch[0].size, scale, config.long_side, config.square)
        normalisation = (network.backbone.mean, network.backbone.std)
        views = torch.stack([resized_view(image, size, normalisation) for image in images])
        scales.append(view_maps(network, views, classes, class_count, config, machine))
        grid = scales[-1][config.rules[0]][0].shape[1:]
        extents.append(grid_extent(batch[0].size, size, grid, network.stride))
    return {
        text: [
            cam_entry(network, record, class_ids, [found[text][number] for found in scales], extents, config)
            for number, (record, class_ids) in enumerate(zip(batch, classes, strict=True))
        ]
        for text in config.rules
    }


def cam_entry(
    network: Localizer,
    record: Record,
    class_ids: tuple[int, ...],
    maps: Sequence[Tensor],
    extents: Sequence[tuple[int, int]],
    config: CamsKnobs,
) -> CamEntry:
    """The maps of one photograph at all scales, as `view_maps` gives them, as an entry of the store.

    Logits of all classes become scores on the finest grid: softmax needs every class, the store keeps those present.
    """
    fusion = network.fusion or config.fusion
    if FUSIONS[fusion].softmax:
        finest = max(range(len(maps)), key=lambda number: maps[number][0].numel())
        grid = (maps[finest].shape[1], maps[finest].shape[2])
        factors = [cells / side for cells, side in zip(grid, extents[finest], strict=True)]
        covered = [(round(height * factors[0]), round(width * factors[1])) for height, width in extents]
        scores = fuse_logits(maps, grid, [(max(h, grid[0]), max(w, grid[1])) for h, w in covered], class_ids)
        where = (extents[finest],)
        return CamEntry(record.id, record.size, class_ids, (scores[1:],), where, (scores[0],), fusion)
    behind = tuple(grid[len(class_ids)] for grid in maps if len(grid) > len(class_ids))
    kept = tuple(grid[: len(class_ids)] for grid in maps)
    return CamEntry(record.id, record.size, class_ids, kept, tuple(extents), behind, fusion)


class Chosen(NamedTuple):
    """A rule that was asked for, with its knobs and the blocks that it reads of a network."""

    rule: Rule[Any]
    knobs: RuleKnobs
    blocks: range


def chosen_rules(config: CamsKnobs, depth: int) -> dict[str, Chosen]:
    """Each rule asked for, by its entry in `cams.rules`, on a network with `depth` transformer blocks."""
    found: dict[str, Chosen] = {}
    for text in config.rules:
        name, knobs = config.rule(text)
        found[text] = Chosen(load_rule(name), knobs, knobs.blocks_of(depth))
    return found


@torch.inference_mode()
def view_maps(
    network: Localizer,
    views: Tensor,
    classes: Sequence[Sequence[int]],
    class_count: int,
    config: CamsKnobs,
    machine: Machine,
) -> dict[str, list[Tensor]]:
    """For each rule the maps of every view, its and its mirror image's merged, on the CPU.

    Args:
        network: gives maps, and lets attention be observed.
        views: (B, 3, H, W), normalised.
        classes: mask labels of the classes present in each.
        class_count: of all classes.
        config: rules and fusion; the fusion says how mirror images are merged.
        machine: where the network is, and the number format.

    Returns:
        Maps (K, h, w) of the K classes present, a background map behind them where the network has one; or, from
        networks whose maps compete in a softmax, (1 + class_count, h, w) logits, the background first.

    Raises:
        UserError: see `refuse_unfit`.
    """
    device, rules = machine.device, chosen_rules(config, network.depth)
    grid = (-(-views.shape[2] // network.stride), -(-views.shape[3] // network.stride))
    refuse_unfit(rules, network, grid, config.max_tokens)
    images = with_mirror_images(views, network.pad_to).to(device).contiguous(memory_format=torch.channels_last)
    tags = hot_tags(classes, class_count).repeat(2, 1).to(device)
    observed = Observed(((rule.needs, blocks) for rule, _, blocks in rules.values()), network.tokens)
    with machine.autocast():
        activations = network.activations(images, tags, observed.observers)
    fusion = FUSIONS[network.fusion or config.fusion]
    if fusion.softmax:
        logits = merged(with_background(activations), fusion)
        return {text: list(logits.cpu()) for text in rules}
    return {text: rule_maps(one, activations, observed, classes, fusion) for text, one in rules.items()}


def rule_maps(
    chosen: Chosen, activations: Activations, observed: Observed, classes: Sequence[Sequence[int]], fusion: Fusion
) -> list[Tensor]:
    """The maps of every view after one rule, merged with its mirror image's, as `view_maps` gives them."""
    rule, knobs, blocks = chosen
    source = activations.classes if rule.earlier is None else activations.earlier[rule.earlier]
    grid = (source.shape[2], source.shape[3])
    present = [torch.tensor(ids, dtype=torch.int64, device=source.device) - 1 for ids in classes]
    moved: list[Tensor] = []
    for number, maps in enumerate(source):
        own = maps[present[number % len(classes)]].float()
        if len(own):
            observation = observed.observation(number, blocks)
            own = propagate(rule, own.flatten(1), observation, grid, knobs).unflatten(1, grid)
        if activations.background is not None:
            own = torch.cat([own, activations.background[number, None].float()])
        moved.append(own)
    pairs = zip(moved[: len(classes)], moved[len(classes) :], strict=True)
    return [merged(torch.stack(pair), fusion)[0].cpu() for pair in pairs]


def with_mirror_images(views: Tensor, pad_to: int) -> Tensor:
    """Views (B, 3, H, W), padded right and below to a multiple, and then their mirror images, (2 B, 3, H', W')."""
    views = functional.pad(views, (0, -views.shape[3] % pad_to, 0, -views.shape[2] % pad_to))
    return torch.cat([views, views.flip(3)])


def hot_tags(classes: Sequence[Sequence[int]], class_count: int) -> Tensor:
    """Mask labels of the classes present as rows of 0 and 1, (B, class_count) float32."""
    tags = torch.zeros(len(classes), class_count)
    for row, ids in zip(tags, classes, strict=True):
        row[torch.tensor(ids, dtype=torch.int64) - 1] = 1
    return tags


def with_background(activations: Activations) -> Tensor:
    """Maps of the background and of all classes, (B, 1 + classes, h, w) float32."""
    assert activations.background is not None, "logits come with a background"
    return torch.cat([activations.background[:, None], activations.classes], dim=1).float()


def merged(maps: Tensor, fusion: Fusion) -> Tensor:
    """Maps (2 B, K, h, w) of views and then of their mirror images to one map each, (B, K, h, w)."""
    plain, mirrored = maps.chunk(2)
    return fusion.mirrors(plain, mirrored.flip(3))


def refuse_unfit(rules: dict[str, Chosen], network: Localizer, grid: tuple[int, int], max_tokens: int) -> None:
    """Stop before any attention is computed.

    Raises:
        UserError: the grid is too large for a rule that reads attention, or the network has no such earlier maps; it
            names the rule, and what to lower or what there is.
    """
    for text, (rule, _, _) in rules.items():
        try:
            if rule.needs:
                check_grid(grid, max_tokens)
            if rule.earlier not in (None, *network.earlier):
                raise ValueError(f"the network gives no such maps; it gives {', '.join(network.earlier) or 'its own'}")
        except ValueError as error:
            raise UserError(f"cams.rules: {text}: {error}") from error


def rule_folder(store: Path, text: str, config: CamsKnobs) -> Path:
    """Where a rule's shards lie: the first rule's in the store itself, the others' in folders of its own."""
    return store if text == config.rules[0] else store / text
