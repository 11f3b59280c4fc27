"""IRN's boundary branch."""

import torch

from models.affinity.irn import BoundaryBranch


def test_boundary_branch_on_the_grid_of_its_second_tap() -> None:
    channels, sides = (8, 16, 32, 64, 128), (16, 16, 8, 4, 4)
    model = BoundaryBranch(channels)
    taps = [torch.randn(2, c, s, 2 * s) for c, s in zip(channels, sides, strict=True)]
    logits = model(taps)
    assert logits.shape == (2, 1, 16, 32)
    torch.testing.assert_close(model([tap[1:] for tap in taps]), logits[1:])
    assert BoundaryBranch(channels, grid_tap=2)(taps).shape == (2, 1, 8, 16)
