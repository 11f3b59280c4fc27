"""Data sets in the folder `photos`, made into a manifest in the current folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline import prepare_data
from pipeline.data.manifest import PREPARED, Manifest, load_manifest
from pipeline.data.sources.source import PrepareDataConfig
from pipeline.run.errors import UserError
from pipeline.run.files import write_json, write_text
from tests.support.stages import run_light, write_runtime

SPLIT_HEADER = "image,labels,split"


def photo(path: str, size: tuple[int, int] = (6, 4), colour: str = "red") -> None:
    (Path("photos") / path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(Path("photos") / path)


def photos(*paths: str) -> None:
    for path in paths:
        photo(path)


def table(*lines: str, header: str = "image,labels") -> None:
    write_text(Path("photos/tags.csv"), "\n".join([header, *lines]) + "\n")


def configuration(name: str, source: dict[str, Any], **knobs: Any) -> PrepareDataConfig:
    given = {"name": name, "root": "photos", "classes": "all", "limit": None, "max_megapixels": 1.0}
    return PrepareDataConfig.model_validate(given | knobs | {"source": source})


def folder(
    images: str = ".", masks: str | None = None, val_share: float = 0.5, tags: str = "tags.csv", **knobs: Any
) -> PrepareDataConfig:
    source = {"tags": tags, "images": images, "masks": masks, "val_share": val_share}
    return configuration("folder", source, **knobs)


def voc(train_split: str = "train", **knobs: Any) -> PrepareDataConfig:
    source = {"train_split": train_split, "sbd_root": knobs.pop("sbd_root", None)}
    source |= {name: knobs.pop(name, False) for name in ("download", "test")}
    return configuration("voc2012", source, **knobs)


def prepare(config: PrepareDataConfig, workers: int = 2) -> Manifest:
    write_json(Path("data/config/prepare_data.json"), config.model_dump(mode="json"))
    write_runtime(Path(), root=config.root, workers=workers)
    run_light(prepare_data)
    return load_manifest()


def refusal(config: PrepareDataConfig) -> str:
    """The one message that the stage ends with; nothing may have been written."""
    with pytest.raises(UserError) as caught:
        prepare(config)
    assert not PREPARED.exists()
    return str(caught.value)


def notes() -> str:
    return "\n".join(json.loads((PREPARED / "notes.json").read_text(encoding="utf-8")))


def ground_truth() -> dict[str, Any]:
    return json.loads((PREPARED / "ground_truth.json").read_text(encoding="utf-8"))


def tags_of(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    return {record.id: record.tags for record in manifest.records}
