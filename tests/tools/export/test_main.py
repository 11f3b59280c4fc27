"""The command: what it says, what it refuses, and that nothing is lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.manifest import PREPARED, Manifest, load_manifest, save_manifest
from pipeline.data.masks import write_mask
from pipeline.run.errors import UserError
from tests.tools.export.conftest import SIZES
from tools import optional
from tools.export import __main__ as program
from tools.export.__main__ import FORMATS, export


def test_what_255_becomes_is_said_and_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["export", "masks", "--format", "yolo"])
    program.main()
    said = capsys.readouterr().out
    assert "exports/masks-yolo: masks of photographs, 3 of train" in said
    assert "ignored pixels (255): left out, which YOLO takes for background" in said
    told = json.loads(Path("exports/masks-yolo/export.json").read_text("utf-8"))
    assert told["ignored"] == FORMATS["yolo"].ignored and told["photographs"] == 3


def test_an_earlier_export_stays() -> None:
    Path("out").mkdir()
    Path("out/work of mine.json").touch()
    with pytest.raises(UserError, match="out exists, and may hold work of yours"):
        export("masks", "png", Path("out"))
    assert [path.name for path in Path("out").iterdir()] == ["work of mine.json"]


def test_masks_of_both_splits_are_exported_where_they_are_there() -> None:
    for name in ("plain", "last"):
        Path(f"data/predictions/{name}.png").rename(f"data/masks/{name}.png")
    assert "masks of photographs, 3 of train, 2 of val" in export("masks", "png", Path("out"))[0]
    Path("data/masks/last.png").unlink()
    with pytest.raises(UserError, match=r"last\.png: mask not found"):
        export("masks", "png", Path("again"))
    assert not Path("again").exists()


def test_without_masks_the_stage_is_named() -> None:
    save_manifest(PREPARED, Manifest(load_manifest().records[:3], load_manifest().classes))
    with pytest.raises(UserError, match=r"data/predictions holds no mask .*; run `dvc repro predict`"):
        export("predictions", "png", Path("out"))


def test_a_label_that_is_no_class_is_refused() -> None:
    write_mask(Path("data/predictions/plain.png"), np.full(SIZES[3], 4, np.uint8))
    with pytest.raises(UserError, match=r"plain\.png: label 4, but there are 3 classes"):
        export("predictions", "coco", Path("out"))
    assert not Path("out").exists()


def test_a_class_with_the_name_of_255_is_refused() -> None:
    save_manifest(PREPARED, Manifest(load_manifest().records, ("cat", "__ignore__", "dog")))
    with pytest.raises(UserError, match="rename its tag"):
        export("masks", "png", Path("out"))


def test_a_missing_library_names_its_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise ImportError(f"No module named {module!r}")

    monkeypatch.setattr(optional, "import_module", missing)
    with pytest.raises(UserError, match=r"cvat-sdk is needed \(.*\); run `pip install -r requirements-extras\.txt`"):
        export("masks", "cvat", Path("out"))
    assert not Path("out").exists()
