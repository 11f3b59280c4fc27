"""Stage train_segmenter: pseudo masks that show nothing stop it; a class more is other work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline import train_segmenter
from pipeline.data.masks import write_mask
from pipeline.run.errors import UserError
from pipeline.run.resume import fingerprint
from pipeline.run.told import Told
from tests.support.project import PHOTOGRAPHS, SIZE, configure, write_photographs
from tests.support.stages import run


def test_black_pseudo_masks_stop_the_segmenter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = write_photographs(tmp_path, [("a",), ("a",)], [(4, 6)])
    for record in manifest.records:
        write_mask(Path(f"data/masks/{record.id}.png"), np.zeros((4, 6), dtype=np.uint8))
    with pytest.raises(UserError, match="nothing to learn"):
        train_segmenter.check_masks(manifest)


def test_class_that_no_photograph_shows_is_no_work_to_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []

    def record(_stage: str, config: Told, inputs: Sequence[Path]) -> None:
        found.append(fingerprint(config, inputs))
        raise InterruptedError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_segmenter, "resume_folder", record)
    configure()
    for classes in (("a",), ("a", "b")):
        write_photographs(tmp_path, [("a",), ("a",)], [(4, 6)], classes=classes)
        with pytest.raises(InterruptedError):
            run(train_segmenter)
    assert found[0] != found[1]


def test_one_photograph_is_too_few_for_batch_normalisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_photographs(Path(), [("a",)])
    write_mask(Path("data/masks/0.png"), np.ones(SIZE, np.uint8))
    configure(data__name="folder", data__root=PHOTOGRAPHS)
    with pytest.raises(
        UserError, match="a batch of 1 photographs in 1 parts leaves each of 1 processes fewer than two"
    ):
        run(train_segmenter)
