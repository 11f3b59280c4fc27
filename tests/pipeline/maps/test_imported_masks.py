"""Masks of other programs become this run's masks, whatever their kind of PNG and their numbering."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import make_masks
from pipeline.data.manifest import Manifest, load_manifest, save_manifest
from pipeline.data.masks import read_mask, write_mask
from pipeline.evaluate import EvaluateConfig, evaluate
from pipeline.run import pool
from pipeline.run.errors import UserError
from pipeline.run.told import told
from tests.support.project import PHOTOGRAPHS, SIZE, configure, write_masks, write_photographs
from tests.support.stages import InlinePool, run_light

FOREIGN, MASKS = Path("foreign"), Path("data/masks")
KNOBS: dict[str, Any] = {
    "data__name": "folder",
    "data__root": PHOTOGRAPHS,
    "masks__source": "import",
    "masks__folder": str(FOREIGN),
}


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Labels for two training photographs, and ground truth."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pool, "ProcessPoolExecutor", InlinePool)
    manifest = write_photographs(Path(), [("a",), ("b",), ("a",)], val=1)
    rng = np.random.default_rng(0)
    write_masks(Path(), manifest, lambda _, record: rng.integers(0, 3, record.size, dtype=np.uint8))
    FOREIGN.mkdir()
    return {name: rng.choice([0, 1, 2, 255], SIZE).astype(np.uint8) for name in ("0", "1")}


def masks() -> dict[str, np.ndarray]:
    run_light(make_masks)
    return {path.stem: read_mask(path, SIZE) for path in MASKS.iterdir()}


def test_palette_and_grey_masks_give_the_scores_of_the_same_masks_made_here(drawn: dict[str, np.ndarray]) -> None:
    for name, labels in drawn.items():
        write_mask(MASKS / f"{name}.png", labels)
    config = EvaluateConfig(bg_thresh=None, protocol={}, code={})
    train = load_manifest().split("train")
    Path("plots").mkdir()
    expected = evaluate("masks", train, config, Path(PHOTOGRAPHS), Path("plots"))
    Image.fromarray(drawn["0"], mode="L").save(FOREIGN / "0.png")
    write_mask(FOREIGN / "1.png", drawn["1"])
    configure(**KNOBS)
    found = masks()
    assert found.keys() == drawn.keys() and all((found[name] == drawn[name]).all() for name in drawn)
    stated = told("evaluate_masks", EvaluateConfig)
    scores = evaluate("masks", train, stated, Path(PHOTOGRAPHS), Path("plots"))
    assert {**scores, "protocol": 0, "code": 0} == {**expected, "protocol": 0, "code": 0}
    protocol = scores["protocol"]
    assert protocol["method"] == "imported" and protocol["imported"].startswith("masks of foreign, ")
    assert {protocol[key] for key in ("crf", "refine", "bg_thresh", "bg_thresh_used")} == {"not known"}
    assert protocol["tags_restrict_classes"] is False and "imported masks: not known" in protocol["pixel_labels"]
    assert not [key for key in protocol if key.startswith("cam_") or key in ("rule", "initial_weights")]


def test_labels_are_those_of_a_list_beside_the_masks(drawn: dict[str, np.ndarray]) -> None:
    (FOREIGN / "classes.txt").write_text("b\nzebra\na\n", encoding="utf-8")
    save_manifest(Path("data/prepared"), Manifest(load_manifest().records, ("a", "b")))
    for name in drawn:
        write_mask(FOREIGN / f"{name}.png", np.resize(np.array([0, 1, 2, 3, 255], dtype=np.uint8), SIZE))
    configure(**KNOBS)
    expected = np.resize(np.array([0, 2, 0, 1, 255], dtype=np.uint8), SIZE)
    assert all((labels == expected).all() for labels in masks().values())


def test_masks_that_cannot_be_used_are_named_at_once_and_nothing_is_lost(drawn: dict[str, np.ndarray]) -> None:
    write_mask(MASKS / "old.png", drawn["0"])
    write_mask(FOREIGN / "0.png", np.full(SIZE, 3, dtype=np.uint8))
    configure(**KNOBS)
    words = r"(?s)masks\.folder = foreign: .*0\.png: label 3 in the mask is that of no class.*no 1\.png"
    with pytest.raises(UserError, match=words):
        masks()
    assert (MASKS / "old.png").exists()
    write_mask(FOREIGN / "0.png", drawn["0"])
    with pytest.raises(UserError, match=r"masks\.folder = foreign: the files have changed"):
        masks()
