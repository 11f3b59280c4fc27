"""Published settings of the dense CRF, by the names that knobs give them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernels:
    """Iterations, and the two kernels: standard deviations in pixels and grey levels, weights as Potts penalties."""

    smooth_sxy: float
    smooth_weight: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_weight: float
    iterations: int = 10


# All released code: PSA tool/imutils.py, IRN misc/imutils.py, kazuto1011/deeplab-pytorch, ToCo, AFA.
KERNELS = {
    "psa": Kernels(3, 3, 80, 13, 10),
    "irn": Kernels(3, 3, 50, 5, 10),
    "deeplab": Kernels(1, 3, 67, 3, 4),
    "toco_seg": Kernels(1, 1, 121, 5, 4),
    "toco_cam": Kernels(3, 3, 36, 3, 4),
    "afa": Kernels(3, 3, 64, 5, 4),
}
