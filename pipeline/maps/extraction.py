"""Activation maps of photographs at several scales, into CAM stores; whoever needs maps of a network calls this.

Photographs of equal size share a batch, each beside its mirror image; only the maps of the classes present are kept.
Propagation rules that read the network's attention run here, in the same forward pass, and attention is never written
to disk. The first rule's maps are a store's own; further rules have stores in folders below it, for comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from models.localizer import Localizer
from models.maps import fuse_logits
from models.networks.conformer import Conformer
from models.propagation.knobs import Settings
from models.propagation.rule import RULES, Observed, Rule, check_grid
from pipeline.config.params import Cams
from pipeline.data.dataset import Photographs, resized_view
from pipeline.data.images import SMALLEST_SIDE, scaled_size
from pipeline.data.manifest import Manifest, Record, same_size_batches
from pipeline.maps.store import SHARD_IMAGES, CamEntry, grid_extent, shard_path, write_shard
from pipeline.run.errors import UserError
from pipeline.run.runtime import rank, world_size
from pipeline.training.loop import autocast

Rules = Mapping[str, tuple[Rule, range, Settings]]


def extend_store(
    network: Localizer, manifest: Manifest, config: Cams, store: Path, title: str = "maps", alone: bool = False
) -> int:
    """Compute the shards that a store does not have yet; several processes take every n-th.

    Args:
        network: on its device, in evaluation mode.
        manifest: the photographs.
        config: scales, rules and so on.
        store: folder; a shard that is there is never computed again.
        title: of the progress bar.
        alone: no other process takes part.

    Returns:
        How many shards the store has when every process is done.
    """
    starts = range(0, len(manifest.records), SHARD_IMAGES)
    rules = network_rules(config, network.depth)
    for number in range(0 if alone else rank(), len(starts), 1 if alone else world_size()):
        paths = {rule: shard_path(rule_folder(store, rule, config), number) for rule in config.rules}
        if not all(path.exists() for path in paths.values()):
            records = manifest.records[starts[number] : starts[number] + SHARD_IMAGES]
            label = f"{title}, shard {number + 1} of {len(starts)}"
            for rule, entries in shard_entries(network, manifest, records, config, rules, label).items():
                paths[rule].parent.mkdir(parents=True, exist_ok=True)
                name, knobs = config.rule(rule)
                about = config.model_dump(exclude={"rules", "propagation"}) | {
                    "rule": name,
                    "knobs": knobs.model_dump(),
                }
                write_shard(paths[rule], entries, about)
    return len(starts)


def shard_entries(
    network: Localizer, manifest: Manifest, records: Sequence[Record], config: Cams, rules: Rules, title: str
) -> dict[str, list[CamEntry]]:
    """The maps of some photographs, in their order, by rule."""
    photographs = Photographs(manifest)
    entries: dict[str, dict[str, CamEntry]] = {rule: {} for rule in config.rules}
    with tqdm(total=len(records), desc=title, disable=None) as progress:
        for batch in same_size_batches(records, config.batch):
            images = [photographs.read(record) for record in batch]
            classes = [tuple(manifest.class_ids(record)) for record in batch]
            scales: list[dict[str, list[Tensor]]] = []
            extents: list[tuple[int, int]] = []
            for scale in config.scales:
                size = view_size(batch[0].size, scale, config)
                normalisation = (network.backbone.mean, network.backbone.std)
                views = torch.stack([resized_view(image, size, normalisation) for image in images])
                scales.append(view_maps(network, views, classes, len(manifest.classes), rules, config.fusion))
                grid = scales[-1][config.rules[0]][0].shape[1:]
                extents.append(grid_extent(batch[0].size, size, grid, network.stride))
            for number, (record, class_ids) in enumerate(zip(batch, classes, strict=True)):
                for rule in config.rules:
                    maps = [found[rule][number] for found in scales]
                    entries[rule][record.id] = cam_entry(network, record, class_ids, maps, extents, config)
            progress.update(len(batch))
    return {rule: [entries[rule][record.id] for record in records] for rule in config.rules}


def cam_entry(
    network: Localizer,
    record: Record,
    class_ids: tuple[int, ...],
    maps: Sequence[Tensor],
    extents: Sequence[tuple[int, int]],
    config: Cams,
) -> CamEntry:
    """The maps of one photograph at all scales, as `view_maps` gives them, as an entry of the store.

    Logits of all classes become scores on the finest grid: softmax needs every class, the store keeps those present.
    """
    if network.softmax:
        finest = max(range(len(maps)), key=lambda number: maps[number][0].numel())
        grid = (maps[finest].shape[1], maps[finest].shape[2])
        factors = [cells / side for cells, side in zip(grid, extents[finest], strict=True)]
        covered = [(round(height * factors[0]), round(width * factors[1])) for height, width in extents]
        scores = fuse_logits(maps, grid, [(max(h, grid[0]), max(w, grid[1])) for h, w in covered], class_ids)
        where = (extents[finest],)
        return CamEntry(record.id, record.size, class_ids, (scores[1:],), where, (scores[0],), fusion="scores")
    behind = tuple(grid[len(class_ids)] for grid in maps if len(grid) > len(class_ids))
    kept = tuple(grid[: len(class_ids)] for grid in maps)
    return CamEntry(record.id, record.size, class_ids, kept, tuple(extents), behind, config.fusion)


def view_size(size: tuple[int, int], scale: float, config: Cams) -> tuple[int, int]:
    """Height and width of the view of a photograph at a scale."""
    long_side = config.long_side or max(size)
    if config.square:
        return (max(SMALLEST_SIDE, round(long_side * scale)),) * 2
    height, width = scaled_size(size, long_side)
    return scaled_size((height, width), max(height, width) * scale, SMALLEST_SIDE)


@torch.inference_mode()
def view_maps(
    network: Localizer,
    views: Tensor,
    classes: Sequence[Sequence[int]],
    class_count: int,
    rules: Rules,
    fusion: str = "max",
) -> dict[str, list[Tensor]]:
    """For each rule the maps of every view, its and its mirror image's merged, on the CPU.

    Args:
        network: gives maps, and lets attention be observed.
        views: (B, 3, H, W), normalised.
        classes: mask labels of the classes present in each.
        class_count: of all classes.
        rules: from `network_rules`.
        fusion: of the scales later; `toco` also takes the larger of both images' values, the others their mean.

    Returns:
        Maps (K, h, w) of the K classes present, a background map behind them where the network has one; or, from
        networks whose maps compete in a softmax, (1 + class_count, h, w) logits, the background first.
    """
    device = next(network.parameters()).device
    refuse_large(rules, (-(-views.shape[2] // network.stride), -(-views.shape[3] // network.stride)))
    if isinstance(network.backbone, Conformer):  # pads right and below: the mirror image needs its padding on the left
        views = functional.pad(views, (0, -views.shape[3] % network.stride, 0, -views.shape[2] % network.stride))
    both = torch.cat([views, views.flip(3)]).to(device).contiguous(memory_format=torch.channels_last)
    observed = Observed(((rule.needs, blocks) for rule, blocks, _ in rules.values()), network.tokens)
    tags = torch.zeros(len(views), class_count)
    for row, ids in zip(tags, classes, strict=True):
        row[torch.tensor(ids, dtype=torch.int64) - 1] = 1
    with autocast(device):
        maps, background, earlier = network.activations(both, torch.cat([tags, tags]).to(device), observed.observers)
    if network.softmax:
        assert background is not None, "logits come with a background"
        logits = torch.cat([background[:, None], maps], dim=1).float()
        return {text: list(merged(logits).cpu()) for text in rules}
    grid = (maps.shape[2], maps.shape[3])
    present = [torch.tensor(ids, dtype=torch.int64, device=device) - 1 for ids in classes]
    behind = [] if background is None else [background[:, None].float()]
    found: dict[str, list[Tensor]] = {}
    for text, (rule, blocks, settings) in rules.items():
        moved: list[Tensor] = []
        source = maps if rule.earlier is None else earlier[rule.earlier]
        for view in range(len(both)):
            own = source[view, present[view % len(views)]].float()
            if len(own) and rule.needs:
                attention = observed.attention(view, blocks)
                own = rule.propagate(own.flatten(1), attention, grid, settings).unflatten(1, grid)
            moved.append(torch.cat([own, *(extra[view] for extra in behind)]))
        pairs = zip(moved[: len(views)], moved[len(views) :], strict=True)
        found[text] = [merged(torch.stack(pair), larger=fusion == "toco")[0].cpu() for pair in pairs]
    return found


def merged(maps: Tensor, larger: bool = False) -> Tensor:
    """Maps (2 B, K, h, w) of views and then of their mirror images to the means, or the larger values, (B, K, h, w)."""
    plain, mirrored = maps.chunk(2)
    return torch.maximum(plain, mirrored.flip(3)) if larger else (plain + mirrored.flip(3)) / 2


def network_rules(config: Cams, depth: int) -> Rules:
    """Each rule asked for, with the blocks of a network of that depth that it reads, and its knobs."""
    found: dict[str, tuple[Rule, range, Settings]] = {}
    for text in config.rules:
        name, knobs = config.rule(text)
        blocks = RULES[name].block_numbers(depth) if knobs.blocks == "rule" else range(depth)
        if isinstance(knobs.blocks, int):
            blocks = blocks[-knobs.blocks :]
        found[text] = (RULES[name], blocks, knobs.settings())
    return found


def refuse_large(rules: Rules, grid: tuple[int, int]) -> None:
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
