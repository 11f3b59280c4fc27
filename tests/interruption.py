"""A training of train_localizer that is interrupted, continued, and compared with one that was not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline import train_localizer, training
from pipeline.files import sha256


def continued_equals_whole(
    monkeypatch: pytest.MonkeyPatch, outputs: Sequence[Path], stop: Callable[[list[str]], bool]
) -> list[str]:
    """Train in one go, then anew with an interruption; both must leave the same bytes.

    Args:
        monkeypatch: patches the writing of checkpoints.
        outputs: the files that are compared.
        stop: whether to interrupt, given the names of the folders that checkpoints went into so far.

    Returns:
        These names for the second training, before and after its interruption.
    """
    train_localizer.main()
    whole = [sha256(path) for path in outputs]
    for folder in Path(".resume/train_localizer").iterdir():
        folder.rename(folder.with_name("kept-" + folder.name))
    saved: list[str] = []

    def die(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        saved.append(path.parent.name)
        if stop(saved):
            raise KeyboardInterrupt

    save = training.save_checkpoint
    monkeypatch.setattr(training, "save_checkpoint", die)
    with pytest.raises(KeyboardInterrupt):
        train_localizer.main()
    train_localizer.main()
    assert [sha256(path) for path in outputs] == whole
    return saved
