"""Class activation maps as ToCo fuses them: several scales, each with its mirror image, spread to [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.maps import min_max, resize

SCALES = (1.0, 0.5, 1.5)


@torch.no_grad()
def multi_scale_cams(
    network: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float] = SCALES, known: Tensor | None = None
) -> Tensor:
    """Fuse the maps of several scales and of their mirror images.

    Args:
        network: images (N, 3, h', w') to maps (N, C, h'', w'') before ReLU. Channels do not mix, so several sets of
            maps may stand side by side.
        images: (B, 3, H, W), normalised.
        scales: factors of the image size, rounded down to whole pixels.
        known: the maps (B, C, h'', w'') of `images` themselves, if the caller has them; they are not made again.

    Returns:
        (B, C, H, W) float32 in [0, 1]: per scale the larger of the image's and the mirror image's maps, rectified;
        summed; spread by `min_max`. No gradient.

    Source: released code of ToCo (`utils/camutils.py`): `released`; reuse of known maps is ours.
    """
    height, width = images.shape[2:]
    total = torch.zeros(())
    for scale in scales:
        if scale == 1 and known is not None:
            plain, mirrored = known, network(images.flip(3))
        else:
            scaled = images if scale == 1 else resize(images, (int(scale * height), int(scale * width)))
            plain, mirrored = network(torch.cat([scaled, scaled.flip(3)])).chunk(2)
        larger = torch.maximum(
            resize(plain.float(), (height, width)), resize(mirrored.float(), (height, width)).flip(3)
        )
        total = total.to(larger) + larger.relu()
    return min_max(total)
