"""The bundled scenes."""

from __future__ import annotations

import pytest

from tests.support.sources import (
    PREPARED,
    configuration,
    prepare,
)

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_scenes_are_prepared_too() -> None:
    source = {"train": 6, "val": 6, "size": 64, "seed": 0}
    manifest = prepare(configuration("scenes", source, root=None, limit=2))
    assert [record.split for record in manifest.records] == ["train", "train", "val", "val"]
    assert all((PREPARED / "scenes" / record.image).is_file() for record in manifest.records)
