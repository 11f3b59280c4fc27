"""Pairs of cells as the reference files list them."""

import numpy as np
import torch
from torch import Tensor

from models.affinity.pairs import Neighbourhood
from tests.support.golden_files import File


def order(file: File) -> list[int]:
    """Positions of the file's offsets in the stencil (files may sort them by path length)."""
    offsets = Neighbourhood(int(file["radius"])).offsets
    assert sorted(offsets) == sorted(map(tuple, file["offsets"].tolist()))
    return [offsets.index((dy, dx)) for dy, dx in file["offsets"].tolist()]


def packed(stencil: Tensor, file: File) -> Tensor:
    """(..., n_offsets, h, w) -> (..., n_offsets, n_sources) in the file's order of offsets."""
    h, w = stencil.shape[-2:]
    source, _ = next(Neighbourhood(int(file["radius"])).windows(h, w))
    index = torch.arange(h * w).view(h, w)[source].flatten()
    if "source_index" in file:
        assert torch.equal(index, torch.from_numpy(file["source_index"]))
    return stencil[..., order(file), :, :].flatten(-2)[..., index]


def unpacked(pairs: np.ndarray, file: File, grid: tuple[int, int]) -> Tensor:
    """The inverse, zeros where no source is."""
    stencil = torch.zeros(len(pairs), grid[0] * grid[1])
    rows = torch.tensor(order(file))[:, None]
    stencil[rows, torch.from_numpy(file["source_index"])] = torch.from_numpy(pairs)
    return stencil.view(-1, *grid)
