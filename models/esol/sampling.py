"""The samplers of ESOL: a deformable convolution whose offset branch decides where each cell reads its features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from models.esol.knobs import SamplingKnobs


def clip_features(features: Tensor, knobs: SamplingKnobs) -> Tensor:
    """Features of any dtype, (B, C, h, w), not above the bound that `knobs.clip` describes; the bound has no gradient.

    Source: that ESOL clips features between its samplers is `published`; how is `reconstructed`.
    """
    if knobs.clip == "none":
        return features
    if knobs.clip == "const":
        return features.clamp(max=knobs.clip_level)
    cells = features.detach().flatten(2)
    if knobs.clip == "maxfrac":
        bound = knobs.clip_level * cells.amax(2)
    else:  # torch.quantile refuses large inputs, and kthvalue is not deterministic on a GPU
        below = max(math.ceil(knobs.clip_level * cells.shape[2]) - 1, 0)
        bound = cells.topk(cells.shape[2] - below, dim=2, sorted=False).values.amin(2)
    bound = bound[:, :, None, None]
    return torch.where(features > bound, bound, features)


def bound_offsets(raw: Tensor, reach: float) -> Tensor:
    """Offsets that stay within reach and do not leave the grid.

    A tap that lies outside already, as those of a 3 x 3 kernel beside the border, moves no further out: otherwise
    reading nothing at all would be the easiest way to raise the loss.

    Args:
        raw: (B, 2 n^2, h, w), any values; of an n x n kernel (n odd), row and column offset of each tap in turn.
        reach: the largest displacement along an axis, in cells.

    Returns:
        (B, 2 n^2, h, w) float32 or wider, in [-reach, reach]; `raw` 0 gives 0, with slope 1.
    """
    raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
    rows, columns = _tap_positions(raw)
    height, width = raw.shape[2:]
    offsets = reach * torch.tanh(raw / reach)
    y, x = offsets[:, 0::2], offsets[:, 1::2]
    y = _between(y, (-rows).clamp(max=0), (height - 1 - rows).clamp(min=0))
    x = _between(x, (-columns).clamp(max=0), (width - 1 - columns).clamp(min=0))
    return torch.stack([y, x], 2).flatten(1, 2)


def _between(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`clamp`, but on its bounds, where cells beside the border start, the whole gradient passes instead of half."""
    values = torch.where(values < low, low.to(values.dtype), values)
    return torch.where(values > high, high.to(values.dtype), values)


def _tap_positions(offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (n^2, h, 1) and columns (n^2, 1, w), in cells, of undisplaced taps for offsets (B, 2 n^2, h, w)."""
    side = round((offsets.shape[1] // 2) ** 0.5)
    taps = torch.arange(side, device=offsets.device) - side // 2
    rows, columns = (torch.arange(cells, device=offsets.device) for cells in offsets.shape[2:])
    return (
        taps.repeat_interleave(side)[:, None, None] + rows[:, None],
        taps.repeat(side)[:, None, None] + columns,
    )


def sampled_positions(offsets: Tensor, cells: Sequence[tuple[int, int]], stride: int) -> Tensor:
    """Where in the image cells read: for pictures.

    Args:
        offsets: (B, 2 n^2, h, w) from `Sampler.offsets`; zeros give the positions before any learning.
        cells: K rows and columns on the grid.
        stride: input pixels per cell.

    Returns:
        (B, K, n^2, 2) row and column in input pixels; the centre of pixel (0, 0) is (0.5, 0.5).
    """
    rows, columns = _tap_positions(offsets)
    y, x = rows + offsets[:, 0::2], columns + offsets[:, 1::2]
    at = torch.tensor(list(cells), dtype=torch.int64, device=offsets.device).view(-1, 2)
    positions = torch.stack([y, x], -1)[:, :, at[:, 0], at[:, 1]]
    return (positions.transpose(1, 2) + 0.5) * stride


def bilinear_gather(features: Tensor, offsets: Tensor) -> Tensor:
    """Each cell's features from its displaced position, interpolated: a deformable convolution with a Dirac kernel.

    With offsets 0 the result is the input, bit for bit, which `grid_sample` cannot promise: it rounds positions.

    Args:
        features: (B, C, h, w).
        offsets: (B, 2, h, w) of the same dtype, row and column in cells; displaced positions lie on the grid
            (`bound_offsets`).

    Returns:
        (B, C, h, w) in the memory format channels_last.
    """
    batch, channels, height, width = features.shape
    rows, columns = _tap_positions(offsets)
    y, x = rows + offsets[:, 0:1], columns + offsets[:, 1:2]
    top = y.detach().floor().clamp(0, max(height - 2, 0))  # on the last row the gradient looks inwards
    left = x.detach().floor().clamp(0, max(width - 2, 0))
    down, right = (y - top).view(-1, 1), (x - left).view(-1, 1)
    image = torch.arange(batch, device=features.device)[:, None, None, None]
    first = ((image * height + top.long()) * width + left.long()).flatten()
    cells = features.permute(0, 2, 3, 1).reshape(-1, channels)  # a view of features in the format channels_last

    def corner(below: int, beside: int) -> Tensor:
        return cells.index_select(0, first + min(below, height - 1) * width + min(beside, width - 1))

    above = corner(0, 0).lerp(corner(0, 1), right)
    under = corner(1, 0).lerp(corner(1, 1), right)
    return above.lerp(under, down).view(batch, height, width, channels).permute(0, 3, 1, 2)


class Sampler(nn.Module):
    """A deformable convolution that keeps the number of channels; it starts as the identity.

    Attributes:
        branch: the offset branch, a 3 x 3 convolution that starts at 0.
        weight: (C, C, 3, 3), which starts at the Dirac kernel; None where it stays there.
        reach: see `SamplingKnobs`.

    Source: an offset branch of 2N channels is `published` (figure); depth and start are `reconstructed`.
    """

    def __init__(self, channels: int, knobs: SamplingKnobs) -> None:
        super().__init__()
        taps = 1 if knobs.kernel == "dirac" else 9
        self.reach = knobs.reach
        self.branch = nn.Conv2d(channels, 2 * taps, kernel_size=3, padding=1)
        nn.init.zeros_(self.branch.weight)
        nn.init.zeros_(torch.as_tensor(self.branch.bias))
        self.weight: nn.Parameter | None = None
        if knobs.kernel == "trained":
            self.weight = nn.Parameter(nn.init.dirac_(torch.empty(channels, channels, 3, 3)))

    def offsets(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) to bounded offsets (B, 2 or 18, h, w), float32 or wider."""
        return bound_offsets(self.branch(features), self.reach)

    def forward(self, features: Tensor, offsets: Tensor, fixed: bool = False) -> Tensor:
        """Features (B, C, h, w) read at displaced positions and convolved, in float32 under autocast too.

        Torchvision has no deformable convolution in 16 bits on a CPU, and 16 bits are few for positions.

        Args:
            features: of any floating type.
            offsets: from `offsets`.
            fixed: the kernel gets no gradient.
        """
        with torch.autocast(features.device.type, enabled=False):
            if self.weight is None:
                moved = bilinear_gather(features.float(), offsets)
            else:
                weight = self.weight.detach() if fixed else self.weight
                moved = deform_conv2d(features.float(), offsets, weight, padding=1)
        # The same memory format: convolutions of two formats round differently, and equal features must give equal maps
        last = features.is_contiguous(memory_format=torch.channels_last)
        return moved.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
