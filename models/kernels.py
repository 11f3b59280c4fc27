"""Published settings of the dense CRF, by the names that knobs give them."""

from __future__ import annotations

from dataclasses import dataclass, replace


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
    "deeplabv1_resnet38": Kernels(3, 3, 32, 13, 10, iterations=1),
    "mctformer": Kernels(4, 3, 83, 5, 3),
}


def kernels_for(
    name: str | None, size: tuple[int, int], reference: int | None, iterations: int | None = None
) -> Kernels | None:
    """The kernels of a setting on a picture of a given size.

    The published deviations are pixels of photographs whose longer side is about 500. On a smaller picture they would
    span all of it, and the CRF would group colours wherever they are.

    Args:
        name: a key of `KERNELS`; None leaves the CRF out.
        size: height and width that the CRF works at.
        reference: the longer side that the published deviations are made for; they scale with the picture's. None:
            they stay as published.
        iterations: of mean-field inference; None: as the setting has them.

    Source: `scale_factor` in PSA's released code (`tool/imutils.py`) divides them likewise.
    """
    if name is None:
        return None
    kernels = KERNELS[name] if iterations is None else replace(KERNELS[name], iterations=iterations)
    if reference is None:
        return kernels
    factor = max(size) / reference
    return replace(kernels, smooth_sxy=kernels.smooth_sxy * factor, bilateral_sxy=kernels.bilateral_sxy * factor)
