"""The three views of token contrast: repeatable, different, of the same window, and what a window is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.knobs import Augmentation
from models.toco.crops import mirror_views
from pipeline.data.three_views import ThreeViews, random_part, random_window
from tests.support.project import PHOTOGRAPHS, coarse, write_photographs

PLAIN = ((0.0,) * 3, (1.0,) * 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("views")


@pytest.fixture(scope="module")
def views(folder: Path) -> ThreeViews:
    """Of six photographs, the fifth all grey."""
    return views_of(folder)


def views_of(folder: Path, jitter: float = 0.4) -> ThreeViews:
    manifest = write_photographs(folder, paint=coarse)
    settings = Augmentation(long_side=[48, 72], colour_jitter=jitter, crop=64)
    return ThreeViews(manifest, folder / PHOTOGRAPHS, settings, PLAIN)


def test_views_repeat_with_the_generator_and_differ_from_each_other(views: ThreeViews) -> None:
    first, again, other = (views.sample(0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for name in ("image", "local", "second", "boxes"):
        assert torch.equal(first[name], again[name])
    assert not torch.equal(first["image"], other["image"])
    assert not torch.equal(first["image"], first["local"])
    assert {first[name].shape for name in ("image", "local", "second")} == {(3, 64, 64)}
    assert first["boxes"].dtype == torch.int64


def test_local_views_show_the_same_window_before_colours_change(
    views: ThreeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThreeViews, "augmented", lambda self, image, how, rng: image)
    batch = [views.sample(index, np.random.default_rng(index)) for index in range(6)]
    first, local = (torch.stack([one[name] for one in batch]) for name in ("image", "local"))
    boxes = torch.stack([one["boxes"] for one in batch])
    turned, beside, turned_boxes = mirror_views(first, local, boxes, torch.Generator().manual_seed(1))
    assert torch.equal(turned, beside) and not torch.equal(turned, first)
    for image, (top, bottom, left, right) in zip(turned, turned_boxes.tolist(), strict=True):
        outside = torch.ones(64, 64, dtype=torch.bool)
        outside[top:bottom, left:right] = False
        assert not image[:, outside].any(), "black outside the photograph"


def test_windows_and_parts() -> None:
    image = np.random.default_rng(0).integers(1, 256, (30, 80, 3), dtype=np.uint8)
    for seed in range(9):
        rng = np.random.default_rng(seed)
        window, (top, bottom, left, right) = random_window(image, 40, rng)
        assert (bottom - top, right - left) == (30, 40) and (window[top:bottom, left:right] > 0).all()
        part = random_part(image, rng)
        assert 0.38 <= part.shape[0] * part.shape[1] / 2400 <= 1


def test_augmentation_keeps_a_grey_picture_grey(folder: Path) -> None:
    one = views_of(folder, jitter=0.0).sample(4, np.random.default_rng(3))
    assert torch.equal(one["second"][0], one["second"][1])
