"""Quantities that change with the training step."""

from __future__ import annotations

import math


def warm_poly_rate(
    step: int, base: float, total: int, warmup: int = 1500, ratio: float = 1e-6, power: float = 0.9
) -> float:
    """Learning rate of ToCo: linear rise, then polynomial decay.

    Args:
        step: from 0.
        base: the rate that is scaled.
        total: number of steps; from there on the rate is 0.
        warmup: steps of the rise.
        ratio: share of `base` at step 0.
        power: exponent of the decay. It counts from step 0, so the rate drops a little where the rise ends.

    Returns:
        The rate of that step.

    Source: released code of ToCo (`utils/optimizer.py`): `released`.
    """
    if step < warmup:
        return base * (1 - (1 - step / warmup) * (1 - ratio))
    return base * max(0.0, 1 - step / total) ** power


def cosine_threshold(step: float, start: float, end: float, total: float) -> float:
    """High threshold that goes from `start` at step 0 to `end` at step `total` along half a cosine, and stays there.

    Source: the dual-branch paper (doi:10.19651/j.cnki.emt.2416644), eq. 8: `published`. DuPL (Wu et al., CVPR 2024)
    has the same curve and constants.
    """
    progress = min(max(step / total, 0.0), 1.0)
    return start - (start - end) * (1 - math.cos(math.pi * progress)) / 2
