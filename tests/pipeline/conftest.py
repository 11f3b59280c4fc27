"""What tests of the pipeline share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is empty but for a sub folder `photos` for a data set."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
