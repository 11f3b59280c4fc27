"""From maps to labels: thresholds, boxes, pairs, refinement."""

import pytest
import torch

from models.toco.labels import (
    cam_labels,
    class_thresholds,
    denormalised,
    inside_boxes,
    pair_labels,
    refined_labels,
    region_mask,
)

CLASSES = 5


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_class_thresholds() -> None:
    values = torch.tensor([0.7, 0.55, 0.6])
    tags = torch.tensor([[0.0, 1, 1], [1, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(class_thresholds(values, tags), torch.tensor([0.6, 0.7, 0.55]))


def test_thresholds_belong_to_the_lower_label() -> None:
    ramp = torch.tensor([0.0, 0.25, 0.26, 0.7, 0.71, 1.0]).view(1, 1, 1, 6)
    tags = torch.ones(1, 1)
    assert cam_labels(ramp, tags, 0.25, 0.7).flatten().tolist() == [0, 0, 255, 255, 1, 1]
    assert region_mask(ramp, tags, 0.25, 0.7).flatten().tolist() == [0, 0, 1, 2, 2, 2]
    by_image = cam_labels(ramp.repeat(2, 1, 1, 1), tags.repeat(2, 1), 0.25, torch.tensor([0.7, 0.25]))
    assert by_image.flatten(1).tolist() == [[0, 0, 255, 255, 1, 1], [0, 0, 1, 1, 1, 1]]


def test_absent_classes_never_win_and_an_image_without_classes_is_background() -> None:
    cams = torch.tensor([0.9, 0.8]).view(1, 2, 1, 1).repeat(2, 1, 3, 3)
    tags = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    labels = cam_labels(cams, tags, 0.25, 0.7)
    assert (labels[0] == 2).all()
    assert (labels[1] == 0).all()
    assert (region_mask(cams, tags, 0.25, 0.7)[1] == 0).all()


def test_too_many_classes_for_a_byte() -> None:
    with pytest.raises(ValueError, match="254"):
        cam_labels(torch.zeros(1, 255, 1, 1), torch.zeros(1, 255), 0.25, 0.7)


def test_boxes_on_a_coarser_grid() -> None:
    boxes = torch.tensor([[0, 448, 0, 448], [100, 448, 0, 328], [440, 448, 0, 4]])
    assert torch.equal(
        inside_boxes(boxes, (448, 448)).sum((1, 2)), (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    )
    cells = inside_boxes(boxes, (28, 28), (448, 448))
    assert cells.sum((1, 2)).tolist() == [28 * 28, 22 * 20, 0]
    assert not cells[1, 5].any()
    assert cells[1, 6, :20].all()


def test_pairs_of_labels() -> None:
    pairs = pair_labels(torch.tensor([[[0, 1], [1, 255]]], dtype=torch.uint8))
    assert pairs[0].tolist() == [[255, 0, 0, 255], [0, 255, 1, 255], [0, 1, 255, 255], [255] * 4]


def test_refining_a_batch_equals_refining_each_image() -> None:
    generator = seeded(3)
    pixels, cams = torch.rand(4, 3, 48, 40, generator=generator), torch.rand(4, CLASSES, 48, 40, generator=generator)
    tags = (torch.rand(4, CLASSES, generator=generator) < 0.4).float()
    tags[1] = 0
    boxes = torch.tensor([[0, 48, 0, 40], [3, 40, 5, 40], [0, 48, 0, 40], [0, 20, 0, 40]])
    together = refined_labels(pixels, cams, tags, 0.25, 0.7, boxes)
    for image in range(4):
        one = slice(image, image + 1)
        assert torch.equal(refined_labels(pixels[one], cams[one], tags[one], 0.25, 0.7, boxes[one]), together[one])
    assert set(together[1].unique().tolist()) == {0, 255}
    for labels, present in zip(together, tags, strict=True):
        assert set(labels.unique().tolist()) <= {0, 255, *(present.nonzero().flatten() + 1).tolist()}


def test_denormalised_pictures_are_truncated() -> None:
    pixels = torch.tensor([10.6, 254.9, 300.0, -4.0]).view(1, 1, 1, 4) / 255
    normalised = (pixels.expand(1, 3, 1, 4) - 0.5) / 0.5
    back = denormalised(normalised, (0.5,) * 3, (0.5,) * 3) * 255
    torch.testing.assert_close(back[0, 0, 0], torch.tensor([10.0, 254.0, 255.0, 0.0]))
