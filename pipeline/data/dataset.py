"""Photographs of the manifest as training samples and as test-time views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.knobs import Augmentation
from models.labels import IGNORE
from pipeline.data.augment import normalise, random_view, size_range
from pipeline.data.images import resize_image
from pipeline.data.manifest import Manifest, Record
from pipeline.data.masks import read_mask
from pipeline.data.outside import OutsideFiles
from pipeline.data.photographs import Photographs
from pipeline.data.saliency import read_saliency

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
SALIENT = 254  # the level of full saliency in a view, where 255 is what lies outside the photograph


class TaggedViews(Photographs):
    """Random views of photographs with their tags."""

    def __init__(self, manifest: Manifest, root: Path, settings: Augmentation, normalisation: Normalisation) -> None:
        super().__init__(manifest, root)
        self.tags = torch.from_numpy(manifest.tag_matrix())
        self.settings, self.normalisation = settings, normalisation

    def shown(self, record: Record) -> NDArray[np.uint8]:
        """A photograph (H, W, 3) uint8, in the size of its largest view or more."""
        return self.read(record, size_range(record.size, self.settings)[1])

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """`image` (3, crop, crop), `tags` (classes,), `id`."""
        record = self.records[index]
        view, _ = random_view(self.shown(record), None, self.settings, self.normalisation, rng, record.size)
        return {"image": view, "tags": self.tags[index], "id": record.id}


class LabelledViews(TaggedViews):
    """Random views of photographs with their tags and, where a folder of masks is given, their pixel labels."""

    def __init__(
        self,
        manifest: Manifest,
        root: Path,
        settings: Augmentation,
        normalisation: Normalisation,
        masks: Path | None = None,
    ) -> None:
        super().__init__(manifest, root, settings, normalisation)
        self.masks = masks

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """`image` (3, crop, crop), `tags` (classes,), `labels` (crop, crop) int64, `id`.

        Labels are 255 outside the photograph; inside they come from the masks, or are 0 without any.
        """
        record = self.records[index]
        labels = np.zeros(record.size, dtype=np.uint8)
        if self.masks is not None:
            labels = read_mask(self.masks / f"{record.id}.png", record.size)
        view, targets = random_view(self.shown(record), labels, self.settings, self.normalisation, rng, record.size)
        return {"image": view, "labels": targets, "tags": self.tags[index], "id": record.id}


class SalientViews(TaggedViews):
    """Random views of photographs with their tags and their saliency."""

    def __init__(
        self,
        manifest: Manifest,
        root: Path,
        settings: Augmentation,
        normalisation: Normalisation,
        saliency: OutsideFiles,
    ) -> None:
        super().__init__(manifest, root, settings, normalisation)
        self.saliency = saliency

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """`image` (3, crop, crop), `tags` (classes,), `saliency` (crop, crop) in [0, 1], `id`.

        Saliency is 0 outside the photograph.
        """
        record = self.records[index]
        levels = np.rint(read_saliency(self.saliency.path, record) * SALIENT).astype(np.uint8)
        view, levels_seen = random_view(self.shown(record), levels, self.settings, self.normalisation, rng, record.size)
        saliency = torch.where(levels_seen == IGNORE, 0, levels_seen).float() / SALIENT
        return {"image": view, "tags": self.tags[index], "saliency": saliency, "id": record.id}


def resized_view(image: NDArray[np.uint8], size: tuple[int, int], normalisation: Normalisation) -> Tensor:
    """A test-time view (3, h, w) of a photograph (H, W, 3)."""
    return normalise(resize_image(image, size), *normalisation)
