"""A folder of masks is scored as `evaluate` scores it, without photographs; what cannot be scored is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.manifest import Manifest
from pipeline.data.masks import write_mask
from pipeline.evaluate import EvaluateConfig, evaluate
from pipeline.run import pool
from pipeline.run.errors import UserError
from tests.support.project import CLASSES, PHOTOGRAPHS, SIZE, write_masks, write_photographs
from tests.support.stages import InlinePool
from tools import score

MASKS, TRUTH = Path("masks"), Path("truth")


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Three masks, their truth with void, and photographs for `evaluate`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pool, "ProcessPoolExecutor", InlinePool)
    manifest, rng = write_photographs(Path(), [("a",), ("b",), ()]), np.random.default_rng(0)
    drawn = [rng.choice([0, 0, 1, 2, 255], SIZE).astype(np.uint8) for _ in manifest.records]
    write_masks(Path(), manifest, lambda number, _: drawn[number])
    for number, record in enumerate(manifest.records):
        write_mask(TRUTH / f"{record.id}.png", drawn[number])
        mask = np.where(rng.random(SIZE) < 0.3, rng.choice([0, 1, 2, 255], SIZE), drawn[number]).astype(np.uint8)
        write_mask(MASKS / f"{record.id}.png", mask)
        write_mask(Path("data/masks") / f"{record.id}.png", mask)
    Path("names.txt").write_text("background\n" + "\n".join(CLASSES), encoding="utf-8")
    return manifest


def run(monkeypatch: pytest.MonkeyPatch, *more: str) -> dict[str, Any]:
    given = ["score", str(MASKS), "--truth", str(TRUTH), "--classes", "names.txt", "--json", "scores.json", *more]
    monkeypatch.setattr(sys, "argv", given)
    score.main()
    found: dict[str, Any] = json.loads(Path("scores.json").read_text(encoding="utf-8"))
    return found


def test_numbers_are_those_of_evaluate(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = EvaluateConfig(bg_thresh=None, protocol={}, code={})
    Path("plots").mkdir()
    expected = evaluate("masks", manifest, config, Path(PHOTOGRAPHS), Path("plots"))
    found = run(monkeypatch, "--boundary")
    assert found == {key: expected[key] for key in found} and {"miou", "per_class", "by_size", "boundary_miou"} <= set(
        found
    )
    assert "boundary_miou" not in run(monkeypatch)
    printed = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed["miou"] == f"{100 * found['miou']:.2f}"
    assert printed["IoU a"] == f"{100 * found['per_class']['a']:.2f}"


def test_only_listed_ids_are_scored_and_all_of_them_must_be_there(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("ids.txt").write_text("0\n2\n", encoding="utf-8")
    assert run(monkeypatch, "--ids", "ids.txt")["images"] == 2
    (MASKS / "2.png").unlink()
    with pytest.raises(UserError, match=r"masks/2\.png is missing"):
        run(monkeypatch, "--ids", "ids.txt")
    assert run(monkeypatch)["images"] == 2
    assert "1 masks of truth have none in masks and are not scored" in capsys.readouterr().out


def test_every_mask_that_cannot_be_scored_is_named(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mask(MASKS / "0.png", np.full(SIZE, 3, dtype=np.uint8))
    write_mask(MASKS / "1.png", np.zeros((40, 57), dtype=np.uint8))
    (TRUTH / "2.png").write_bytes(b"no picture")
    words = r"(?s)masks/0\.png: label 3 in the mask.*masks/1\.png: mask of 57x40.*truth/2\.png: no PNG"
    with pytest.raises(UserError, match=words):
        run(monkeypatch)
    (TRUTH / "1.png").unlink()
    with pytest.raises(UserError, match=r"truth/1\.png is missing"):
        run(monkeypatch)


def test_classes_come_by_name_or_from_a_file(tmp_path: Path) -> None:
    assert len(score.classes_of("voc2012")) == 20 and score.classes_of("voc2012")[7] == "cat"
    with pytest.raises(UserError, match="neither voc2012 nor a file"):
        score.classes_of("voc")
    (tmp_path / "names.txt").write_text("cat\ncat\n", encoding="utf-8")
    with pytest.raises(UserError, match="stands there twice"):
        score.classes_of(str(tmp_path / "names.txt"))


def test_folders_that_are_missing_or_empty_are_named(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--truth nowhere: no such folder"):
        score.chosen_ids(MASKS, Path("nowhere"), None)
    for path in MASKS.iterdir():
        path.unlink()
    with pytest.raises(UserError, match="nothing to score"):
        run(monkeypatch)
