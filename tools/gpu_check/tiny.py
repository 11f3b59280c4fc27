"""The small form of the check, which a CPU runs: small networks in place of large ones, and small sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.run.runtime import world_size

SMALL = {
    "resnet50": "efficientnet_lite0",
    "resnet38": "efficientnet_lite0",
    "conformer_ti": "conformer_tiny",
    "conformer_s": "conformer_tiny",
    "conformer_b": "conformer_tiny",
    "vit_base": "lite0_early_vit",
    "deeplabv1_resnet38": "efficientnet_lite0_deeplabv3plus",
    "two_convolutions_resnet38": "efficientnet_lite0_deeplabv3plus",
    "deeplabv2_resnet50": "efficientnet_lite0_deeplabv3plus",
    "deeplabv2_resnet101": "efficientnet_lite0_deeplabv3plus",
    "deeplabv3_resnet101": "efficientnet_lite0_deeplabv3plus",
}
"""The network of the registry that stands for a large one."""


def small(name: str) -> str:
    """The network that stands for a network."""
    return SMALL.get(name, name)


def eighth(side: Any) -> Any:
    """About an eighth of a side in pixels, a multiple of 16; of each side of a list; None stays None."""
    if isinstance(side, list):
        return [eighth(one) for one in side]
    return None if side is None else 16 * round(side / 128)


CHANGES: Mapping[str, Callable[[Any], Any]] = {
    "network": small,
    "backbone": small,
    "crop": eighth,
    "long_side": eighth,
    "size": eighth,
    "radius": lambda radius: 2,  # so that small grids have pairs
    "batch": lambda batch: 2 * world_size(),
    "accumulate": lambda parts: 1,
    "train": lambda photographs: 4,
    "scales": lambda scales: scales[:1],
    "workers": lambda workers: 0,
}
"""What becomes of knobs, by the last part of their names."""
