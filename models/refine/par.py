"""Pixel-adaptive refinement (PAR): masks follow the colours of the photograph.

Every pixel looks at 48 neighbours, eight in each of six rings, and takes over their masks in proportion to how much
their colours resemble its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.precision import full_precision

RING = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


@dataclass(frozen=True)
class PAR:
    """The refinement and its settings; it learns nothing.

    Attributes:
        dilations: distances of the rings of eight neighbours, in pixels. Coordinates beyond the border are clamped.
        iterations: how often masks are passed on.
        sharpness: w1; differences are divided by it, in units of their standard deviation.
        position_weight: w2, the weight of the purely positional part. Weights of a pixel add up to 1 + w2, so
            masks grow by that factor in every iteration: compare them, do not read them as probabilities.

    Source: Ru et al., CVPR 2022 (AFA); constants, unbiased deviations and squares from the released code of AFA and
    ToCo: `released`.
    """

    dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
    iterations: int = 10
    sharpness: float = 0.3
    position_weight: float = 0.01

    def refine(self, images: Tensor, masks: Tensor) -> Tensor:
        """Refine all masks of a batch at once.

        The affinity is computed once for each image, whatever the number of masks: several stacks belong side by
        side as channels.

        Args:
            images: (B, 3, H, W) float in [0, 1].
            masks: (B, C, h, w) float, resized to the images bilinearly with aligned corners if smaller.

        Returns:
            (B, C, H, W) float32, without gradient.
        """
        with torch.no_grad(), full_precision(images.device):
            weights = self.affinity(images)
            masks = masks.float()
            if masks.shape[2:] != images.shape[2:]:
                masks = functional.interpolate(masks, images.shape[2:], mode="bilinear", align_corners=True)
            for _ in range(self.iterations):
                refined = torch.zeros_like(masks)
                for number, neighbour in enumerate(self._neighbours(masks)):
                    refined.addcmul_(neighbour, weights[:, number : number + 1])
                masks = refined
            return masks

    @torch.no_grad()
    def affinity(self, images: Tensor) -> Tensor:
        """Weights (B, 8 * rings, H, W) of every pixel's neighbours, ring by ring; images as in `refine`."""
        images = images.float()
        count = len(RING) * len(self.dilations)
        mean = torch.zeros_like(images)
        for neighbour in self._neighbours(images):
            mean += neighbour / count
        variance = torch.zeros_like(images)
        for neighbour in self._neighbours(images):
            variance += (neighbour - mean).square_() / (count - 1)
        unit = (variance.sqrt_() + 1e-8) * self.sharpness
        similarity = [-((images - other) / unit).square_().mean(dim=1) for other in self._neighbours(images)]
        colour = torch.stack(similarity, dim=1).softmax(dim=1)
        return colour + self.position_weights().to(colour)[:, None, None]

    def position_weights(self) -> Tensor:
        """The positional part (8 * rings,) of the affinity, the same for all pixels; adds up to `position_weight`."""
        distances = torch.tensor(
            [dilation * (dy * dy + dx * dx) ** 0.5 for dilation in self.dilations for dy, dx in RING]
        )
        unit = (distances.std() + 1e-8) * self.sharpness
        return self.position_weight * (-((distances / unit).square())).softmax(dim=0)

    def _neighbours(self, maps: Tensor) -> Iterator[Tensor]:
        """For each neighbour in turn the maps (B, C, H, W) seen from it: views, never 48 copies."""
        height, width = maps.shape[2:]
        margin = max(self.dilations)
        padded = functional.pad(maps, (margin,) * 4, mode="replicate")
        for dilation in self.dilations:
            for dy, dx in RING:
                top, left = margin + dy * dilation, margin + dx * dilation
                yield padded[:, :, top : top + height, left : left + width]


PUBLISHED = PAR()
"""With the released settings."""
