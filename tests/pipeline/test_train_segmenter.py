"""Stage train_segmenter: pseudo masks that show nothing stop it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import train_segmenter
from pipeline.data.masks import write_mask
from pipeline.run.errors import UserError
from tests.support.project import write_photographs


def test_black_pseudo_masks_stop_the_segmenter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = write_photographs(tmp_path, [("a",), ("a",)], [(4, 6)])
    for record in manifest.records:
        write_mask(Path(f"data/masks/{record.id}.png"), np.zeros((4, 6), dtype=np.uint8))
    with pytest.raises(UserError, match="nothing to learn"):
        train_segmenter.check_masks(manifest)
