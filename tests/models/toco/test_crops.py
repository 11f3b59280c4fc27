"""Local views: where they may start, which are positive, and their mirror images."""

import pytest
import torch

from models.toco.crops import candidates, choose_corners, crop_flags, cut_crops, mirror_views


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("region", "candidate", "positive"), [(0, True, False), (1, True, True), (2, False, True)])
def test_uniform_regions(region: int, candidate: bool, positive: bool) -> None:
    regions = torch.full((2, 64, 80), region, dtype=torch.uint8)
    assert ((regions[:, 12:-12, 12:-12] <= 1) == candidate).all()
    assert candidates(regions, 24, 8).all()  # without a candidate every place is one
    corners = choose_corners(regions, 24, 8, seeded(0))
    assert (crop_flags(regions, corners, 24) == positive).all()


def test_views_are_distinct_candidates_and_reproducible() -> None:
    regions = torch.randint(3, (3, 50, 61), generator=seeded(1), dtype=torch.uint8)
    regions[1] = 2
    regions[1, 20:22, 20:24] = 0  # exactly the eight that are needed
    corners = choose_corners(regions, 24, 8, seeded(2))
    assert torch.equal(corners, choose_corners(regions, 24, 8, seeded(2)))
    assert not torch.equal(corners, choose_corners(regions, 24, 8, seeded(3)))
    allowed = candidates(regions, 24, 8)
    for image in range(3):
        chosen = set(map(tuple, corners[image].tolist()))
        assert len(chosen) == 8
        assert all(allowed[image][corner] for corner in chosen)
    assert set(map(tuple, corners[1].tolist())) == {(y, x) for y in (8, 9) for x in (8, 9, 10, 11)}


@pytest.mark.parametrize("size", [23, 24])
def test_views_are_windows_of_the_image(size: int) -> None:
    images = torch.rand(2, 3, 40, 50, generator=seeded(4))
    corners = choose_corners(torch.zeros(2, 40, 50, dtype=torch.uint8), size, 5, seeded(5))
    crops = cut_crops(images, corners, size)
    for image in range(2):
        for crop, (top, left) in zip(crops[image], corners[image].tolist(), strict=True):
            assert torch.equal(crop, images[image, :, top : top + size, left : left + size])


@pytest.mark.parametrize("shape", [(20, 40), (25, 25)])
def test_no_room_for_views(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no room"):
        choose_corners(torch.zeros(1, *shape, dtype=torch.uint8), 24, 8)


def test_one_flip_keeps_views_and_boxes_together() -> None:
    images = torch.rand(8, 3, 40, 50, generator=seeded(6))
    boxes = torch.tensor([[2, 38, 5, 50]]).repeat(8, 1)
    first, local, turned = mirror_views(images, images.clone(), boxes, seeded(7))
    flipped = [not torch.equal(one, other) for one, other in zip(first, images, strict=True)]
    assert 0 < sum(flipped) < 8
    assert turned.tolist() == [[2, 38, 0, 45] if flip else [2, 38, 5, 50] for flip in flipped]
    corners = choose_corners(torch.zeros(8, 40, 50, dtype=torch.uint8), 24, 5, seeded(8))
    assert torch.equal(cut_crops(first, corners, 24), cut_crops(local, corners, 24))
    bug_first, bug_local, same = mirror_views(images, images.clone(), boxes, seeded(7), flip_bug=True)
    assert torch.equal(same, boxes)
    assert not torch.equal(bug_first, bug_local)
