"""The CAM store: the one interface between stages that make activation maps and stages that use them.

A folder of safetensors shards, `shard-00000.safetensors` and so on, each holding the images of a run of manifest rows.
Per image: the original size, the mask labels of the classes present, one low-resolution float16 map per class and
scale with the area that its grid covers (mirror images merged), and, for methods that have one, a
background map per scale. Each image says how its maps are fused: by a normalisation of maps before ReLU, or as scores.
What produced the store stands in each shard's metadata, beside a checksum of each image's tensors. Same content, same
bytes.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.maps import FUSIONS
from pipeline.run.checksum import checksum
from pipeline.run.errors import UserError
from pipeline.run.files import write_atomic

FORMAT = "tags2masks-cams-4"
FUSION_NAMES = tuple(FUSIONS)  # a shard holds the number of its images' fusion
SHARD_IMAGES = 200  # about a minute of work on two cores: what a kill can lose


@dataclass(frozen=True)
class CamEntry:
    """The maps of one image.

    Attributes:
        id: of the photograph.
        size: its height and width.
        class_ids: mask labels of the classes present, ascending; may be empty.
        maps: one (K, h_i, w_i) float32 map per scale.
        extents: the height and width that each scale's grid covers, in pixels of the photograph (not less than it).
        background: one (h_i, w_i) map per scale, or nothing for methods without a background map.
        fusion: how the scales become one map, a name in `FUSIONS`: `max`, `minmax` and `toco` rectify and normalise
            each class (as IRN, TransCAM and ToCo), `scores` are values in [0, 1] that compete as they are and are
            averaged.
    """

    id: str
    size: tuple[int, int]
    class_ids: tuple[int, ...]
    maps: tuple[Tensor, ...]
    extents: tuple[tuple[int, int], ...]
    background: tuple[Tensor, ...] = ()
    fusion: str = "max"


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard lies."""
    return folder / f"shard-{number:05d}.safetensors"


LARGEST = 2.0**15
"""Maps beyond it are divided by a power of two, since float16 ends at 65,504."""


def check_finite(entry: CamEntry) -> None:
    """Refuse maps that hold a value that is not finite.

    Raises:
        UserError: naming the image and the class.
    """
    for values in (*entry.maps, *entry.background):
        if not (good := torch.isfinite(values).flatten(-2).all(dim=-1)).all():
            bad = good.flatten().logical_not().nonzero()[0].item()
            what = f"the map of class {entry.class_ids[int(bad)]}" if values.dim() == 3 else "the background map"
            raise UserError(
                f"{entry.id}: {what} is not finite; the network that made it has diverged: lower its learning rate"
            )


def scaled(maps: Sequence[Tensor]) -> list[Tensor]:
    """The maps of each scale (K, h, w), or background maps (h, w), small enough for float16.

    A class whose maps are too large is divided by a power of two, at all scales alike: where values may be so large,
    each class is normalised by its own range when scales are fused.
    """
    if not maps or not maps[0].numel():
        return list(maps)
    highest = torch.stack([values.abs().flatten(-2).amax(dim=-1) for values in maps]).amax(dim=0)
    halvings = (highest.double() / LARGEST).clamp(min=1).log2().ceil()
    factor = torch.pow(2.0, -halvings)[..., None, None].float()
    return [values * factor for values in maps]


def write_shard(path: Path, entries: Sequence[CamEntry], produced_by: Mapping[str, Any]) -> None:
    """Write one shard, atomically; maps become float16 (a relative step of 0.05 %), scaled where they are too large.

    Raises:
        UserError: a map is not finite.
    """
    parts = {entry.id: _tensors(entry) for entry in entries}
    checksums = {name: checksum(tensors) for name, tensors in parts.items()}
    about = {"format": FORMAT, "ids": list(parts), "checksums": checksums, "produced_by": dict(produced_by)}
    tensors = {f"{name}/{part}": tensor for name, found in parts.items() for part, tensor in found.items()}
    # One entry alone: safetensors writes several in an order that changes from process to process.
    text = json.dumps(about, sort_keys=True)
    metadata = {"about": f"{crc32(text.encode())} {text}"}
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def _tensors(entry: CamEntry) -> dict[str, Tensor]:
    """What a shard holds of an image, by the part of its name that follows the id."""
    check_finite(entry)
    tensors = {
        "size": torch.tensor(entry.size, dtype=torch.int32),
        "extents": torch.tensor(entry.extents, dtype=torch.int32),
        "fusion": torch.tensor(FUSION_NAMES.index(entry.fusion), dtype=torch.uint8),
        "class_ids": torch.tensor(entry.class_ids, dtype=torch.int16),
    }
    for kind, maps in (("maps", entry.maps), ("background", entry.background)):
        for scale, values in enumerate(scaled([values.cpu() for values in maps])):
            tensors[f"{kind}/{scale}"] = values.to(torch.float16).contiguous()
    return tensors


@contextmanager
def _open_shard(path: Path) -> Iterator[Any]:
    """An opened shard of this format; everything that may be wrong with it becomes one error."""
    advice = f"run `dvc repro --force {_producer(path.parent)}`"
    try:
        with safe_open(path, framework="pt") as shard:
            if _about(shard).get("format") != FORMAT:
                raise UserError(f"{path} is not a CAM shard of format {FORMAT}; {advice}")
            yield shard
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"{path} is damaged ({error}); {advice}") from error


def _producer(store: Path) -> str:
    """The stage that writes a store."""
    if "refined" in store.parts:
        return "refine_cams"
    return "train_localizer" if "epochs" in store.parts else "extract_cams"


def _about(shard: Any) -> dict[str, Any]:
    """What a shard says of itself.

    Raises:
        OSError: it is not what was written.
    """
    known, _, text = (shard.metadata() or {}).get("about", "").partition(" ")
    if not text:
        return {}
    if known != str(crc32(text.encode())):
        raise OSError("the checksum of its list does not fit")
    about: dict[str, Any] = json.loads(text)
    return about


def _entry(shard: Any, name: str, names: set[str]) -> CamEntry:
    """An image of an opened shard.

    Raises:
        OSError: its tensors are not those that were written.
    """
    parts = ["size", "class_ids", "extents", "fusion"]
    for kind in ("maps", "background"):
        scales = itertools.takewhile(lambda part: f"{name}/{part}" in names, (f"{kind}/{n}" for n in itertools.count()))
        parts += scales
    tensors = {part: shard.get_tensor(f"{name}/{part}") for part in parts}
    if checksum(tensors) != _about(shard)["checksums"][name]:
        raise OSError(f"the checksum of {name} does not fit")
    facts = {part: tensors[part].tolist() for part in parts[:4]}
    return CamEntry(
        id=name,
        size=(facts["size"][0], facts["size"][1]),
        class_ids=tuple(facts["class_ids"]),
        maps=tuple(tensors[part].float() for part in parts if part.startswith("maps/")),
        extents=tuple((height, width) for height, width in facts["extents"]),
        background=tuple(tensors[part].float() for part in parts if part.startswith("background/")),
        fusion=FUSION_NAMES[facts["fusion"]],
    )


def read_shard(path: Path) -> Iterator[CamEntry]:
    """The entries of one shard, in the order written.

    Raises:
        UserError: the file is not a shard of this format, or is damaged.
    """
    with _open_shard(path) as shard:
        names = set(shard.keys())
        for name in _about(shard)["ids"]:
            yield _entry(shard, name, names)


def read_entry(path: Path, name: str) -> CamEntry:
    """One entry of a shard.

    Raises:
        UserError: the file is not a shard of this format, or is damaged.
    """
    with _open_shard(path) as shard:
        return _entry(shard, name, set(shard.keys()))


def shards_in(folder: Path) -> list[Path]:
    """All shards that lie in a folder, in order; none where no maps are asked for."""
    return sorted(folder.glob("shard-*.safetensors"))


def whole(path: Path) -> bool:
    """Whether a shard is there and as it was written; one that is damaged is said, and made anew by who asks."""
    if not path.exists():
        return False
    try:
        return bool(list(read_shard(path)))
    except UserError:
        print(f"WARNING: {path} is damaged; it is made anew", flush=True)
        return False


def shards(folder: Path) -> list[Path]:
    """All shards of a store, in order.

    Raises:
        UserError: there are none.
    """
    paths = shards_in(folder)
    if not paths:
        raise UserError(f"{folder} holds no CAM shards; run `dvc repro`")
    return paths


def copy_shards(source: Path, target: Path) -> None:
    """Copy all shards that lie in a folder into another, which is made where there is none."""
    target.mkdir(exist_ok=True)
    for shard in shards_in(source):
        shutil.copyfile(shard, target / shard.name)


def read_store(folder: Path) -> Iterator[CamEntry]:
    """All entries of a store, shard after shard; memory holds one image at a time."""
    for path in shards(folder):
        yield from read_shard(path)


def store_index(folder: Path) -> dict[str, Path]:
    """The shard of every image, by id.

    Raises:
        UserError: the store is missing or damaged.
    """
    index: dict[str, Path] = {}
    for path in shards(folder):
        with _open_shard(path) as shard:
            index |= dict.fromkeys(_about(shard)["ids"], path)
    return index


def grid_extent(size: tuple[int, int], scaled: tuple[int, int], grid: Sequence[int], stride: int) -> tuple[int, int]:
    """Height and width that a grid covers, in pixels of the photograph; its last cells may reach beyond the edge.

    Args:
        size: height and width of the photograph.
        scaled: height and width of the view that the network saw.
        grid: rows and columns of its map.
        stride: pixels of the view that a cell spans.
    """
    sides = zip(size, scaled, grid, strict=True)
    height, width = (max(own, round(cells * stride * own / seen)) for own, seen, cells in sides)
    return height, width


def fused_maps(entry: CamEntry, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The maps of all scales as one per class, at any size.

    Returns:
        (K, H, W) in [0, 1], and the background map (H, W) in [0, 1] for methods that have one.
    """
    factors = [side / own for side, own in zip(size, entry.size, strict=True)]
    extents = [(round(height * factors[0]), round(width * factors[1])) for height, width in entry.extents]

    def fuse(maps: Sequence[Tensor]) -> NDArray[np.float32]:
        return np.asarray(FUSIONS[entry.fusion].scales(maps, size, extents).numpy())

    maps = fuse(entry.maps) if entry.class_ids else np.zeros((0, *size), dtype=np.float32)
    return maps, fuse([grid[None] for grid in entry.background])[0] if entry.background else None
