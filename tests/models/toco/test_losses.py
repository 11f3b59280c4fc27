"""ToCo: labels, local views, contrasts, refinement, and the iteration that encodes every view once."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from models.maps import resize
from models.networks.vit import ToCoNetwork
from models.refine.par import PAR
from models.schedules import cosine_threshold, warm_poly_rate
from models.toco.cams import multi_scale_cams
from models.toco.contrast import ContrastHeads, ctc_loss
from models.toco.crops import candidates, choose_corners, crop_flags, cut_crops, mirror_views
from models.toco.labels import (
    cam_labels,
    class_thresholds,
    denormalised,
    inside_boxes,
    pair_labels,
    refined_labels,
    region_mask,
)
from models.toco.losses import (
    WEIGHTS,
    Compat,
    Output,
    Recipe,
    Thresholds,
    Views,
    mask_loss,
    ptc_loss,
    toco_losses,
    token_labels,
    weighted_sum,
)

CLASSES = 5
THRESHOLDS = Thresholds(0.25, 0.7, 0.7, 0.7)
RECIPE = Recipe(crop_size=24)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_tags(batch: int, *classes: int) -> Tensor:
    tags = torch.zeros(batch, CLASSES)
    tags[:, list(classes)] = 1
    return tags


def whole(batch: int, height: int, width: int) -> Tensor:
    return torch.tensor([[0, height, 0, width]]).repeat(batch, 1)


# ---------------------------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize(
    ("step", "total", "rate"),
    [
        (199, 20000, 7.960e-6),
        (1399, 20000, 5.596e-5),
        (1599, 20000, 5.566e-5),
        (1999, 20000, 5.457e-5),
        (9999, 20000, 3.216e-5),
        (19799, 20000, 9.552e-7),
        (19999, 20000, 8.077e-9),
        (8199, 80000, 5.444e-5),
        (72199, 80000, 7.384e-6),
    ],
)
def test_learning_rates_of_the_published_logs(step: int, total: int, rate: float) -> None:
    assert warm_poly_rate(step, 6e-5, total) == pytest.approx(rate, rel=1e-3)


def test_learning_rate_without_warm_up_and_past_the_end() -> None:
    assert warm_poly_rate(0, 0.1, 100, warmup=0) == 0.1
    assert warm_poly_rate(120, 0.1, 100, warmup=0) == 0


@pytest.mark.parametrize(
    ("step", "threshold"),
    [(0, 0.7), (2000, 0.6963), (5000, 0.6780), (10000, 0.6250), (15000, 0.5720), (18000, 0.5537), (30000, 0.55)],
)
def test_threshold_falls_along_a_cosine(step: int, threshold: float) -> None:
    assert cosine_threshold(step, 0.7, 0.55, 20000) == pytest.approx(threshold, abs=5e-5)


def test_class_thresholds() -> None:
    values = torch.tensor([0.7, 0.55, 0.6])
    tags = torch.tensor([[0.0, 1, 1], [1, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(class_thresholds(values, tags), torch.tensor([0.6, 0.7, 0.55]))


# ------------------------------------------------------------------------------------------------------------- labels


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


def test_released_boxes_of_padded_images_leave_no_pair() -> None:
    none = torch.zeros(0)
    views = Views(none, none, none, torch.ones(1, 1), torch.tensor([[100, 448, 0, 448]]))
    cams = torch.rand(1, 1, 448, 448, generator=seeded(0))
    grid = torch.Size((28, 28))
    assert (token_labels(cams, views, THRESHOLDS, grid) != 255).any()
    assert (token_labels(cams, views, THRESHOLDS, grid, pixel_boxes=True) == 255).all()


def test_pairs_of_labels() -> None:
    pairs = pair_labels(torch.tensor([[[0, 1], [1, 255]]], dtype=torch.uint8))
    assert pairs[0].tolist() == [[255, 0, 0, 255], [0, 255, 1, 255], [0, 1, 255, 255], [255] * 4]


# --------------------------------------------------------------------------------------------------------- refinement


def test_position_weights() -> None:
    weights = PAR().position_weights()
    assert weights.sum() == pytest.approx(0.01, rel=1e-5)
    straight, diagonal = weights[[1, 3, 4, 6]], weights[[0, 2, 5, 7]]
    torch.testing.assert_close(straight, torch.full((4,), 7.65e-4), rtol=0, atol=1e-6)
    torch.testing.assert_close(diagonal, torch.full((4,), 6.83e-4), rtol=0, atol=1e-6)
    assert weights[16:].max() < 1.41e-4


def test_weights_of_a_pixel_add_up_to_slightly_more_than_one() -> None:
    affinity = PAR().affinity(torch.rand(2, 3, 20, 30, generator=seeded(1)))
    assert affinity.shape == (2, 48, 20, 30)
    torch.testing.assert_close(affinity.sum(1), torch.full((2, 20, 30), 1.01))


def test_constant_images_and_constant_masks() -> None:
    image = torch.full((1, 3, 9, 11), 0.3)
    affinity = PAR().affinity(image)
    assert torch.equal(affinity, affinity[:, :, :1, :1].expand_as(affinity))
    refined = PAR().refine(torch.rand(1, 3, 9, 11, generator=seeded(2)), torch.full((1, 2, 9, 11), 0.5))
    torch.testing.assert_close(refined, torch.full_like(refined, 0.5 * 1.01**10))


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


# -------------------------------------------------------------------------------------------------------- local views


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


# ---------------------------------------------------------------------------------------------------------- contrasts


def plain_ctc(student: Tensor, teacher: Tensor, flags: Tensor, temperature: float, extra: bool) -> float:
    total = 0.0
    for image in range(flags.shape[0]):
        scores = [[math.exp(float(p @ q) / temperature) for q in student[:, image]] for p in teacher[:, image]]
        sides = flags[image].tolist()
        for row in scores:
            away = sum(score for score, side in zip(row, sides, strict=True) if not side)
            terms = [math.log((score + away + 1e-4) / score) for score, side in zip(row, sides, strict=True) if side]
            total += (sum(terms) + extra * math.log(1 + away + 1e-4)) / len(scores) / (sum(sides) + 1e-4)
    return total / flags.shape[0]


@pytest.mark.parametrize("extra", [False, True])
def test_class_token_contrast_against_plain_loops(extra: bool) -> None:
    generator = seeded(9)
    student, teacher = torch.randn(10, 3, 16, generator=generator) / 3, torch.randn(2, 3, 16, generator=generator) / 3
    flags = torch.rand(3, 10, generator=generator) < 0.5
    flags[:, :2] = True
    flags[1] = True  # an image without negative views
    ours = ctc_loss(student, teacher, flags, 0.5, extra_term=extra)
    assert float(ours) == pytest.approx(plain_ctc(student, teacher, flags, 0.5, extra), rel=1e-5)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("size", [0.0, 1.0, 1000.0])
def test_class_token_contrast_is_always_finite(size: float, positive: bool) -> None:
    student = torch.full((10, 2, 4), size, requires_grad=True)
    loss = ctc_loss(student, torch.full((2, 2, 4), size), torch.full((2, 10), positive))
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_patch_token_contrast_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.0], [0.0, 5.0]]).T.reshape(1, 2, 2, 2)
    labels = torch.tensor([[[1, 1], [0, 255]]], dtype=torch.uint8)
    half = 2**-0.5
    # One equal pair, two different ones; each counts in both directions.
    assert float(ptc_loss(features, labels)) == pytest.approx((1 - 2 * half / 3) / 2 + 2 * (-1 - half) / 5 / 2)
    absolute = (1 - 2 * half / 3) / 2 + 2 * (1 + half) / 5 / 2
    assert float(ptc_loss(features, labels, absolute=True)) == pytest.approx(absolute)


@pytest.mark.parametrize("label", [0, 255])
def test_patch_token_contrast_without_pairs_of_a_kind(label: int) -> None:
    features = torch.randn(2, 4, 3, 3, generator=seeded(10)).requires_grad_()
    loss = ptc_loss(features, torch.full((2, 3, 3), label, dtype=torch.uint8))
    loss.backward()
    assert loss.isfinite()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    if label == 255:
        assert not features.grad.any()


def test_tokens_of_zeros_have_finite_gradients() -> None:
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    ptc_loss(features, torch.tensor([[[0, 1], [0, 1]]], dtype=torch.uint8)).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_mask_loss_of_ignored_pixels_is_zero() -> None:
    logits = torch.randn(1, 3, 4, 4, generator=seeded(11)).requires_grad_()
    loss = mask_loss(logits, torch.full((1, 4, 4), 255, dtype=torch.uint8))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_teacher_follows_the_student() -> None:
    torch.manual_seed(0)
    heads = ContrastHeads(8, momentum=0.9, outputs=16, hidden=12)
    tokens = torch.randn(3, 2, 8)
    student, teacher = heads(tokens[:2], tokens[2:])
    assert student.shape == (3, 2, 16)
    assert student.detach().abs().max() <= 1
    torch.testing.assert_close(teacher, student[:2].detach())
    assert student.requires_grad
    assert not teacher.requires_grad
    old = [parameter.clone() for parameter in heads.teacher.parameters()]
    with torch.no_grad():
        for parameter in heads.student.parameters():
            parameter.add_(1)
    heads.update_teacher()
    for before, after in zip(old, heads.teacher.parameters(), strict=True):
        torch.testing.assert_close(after, before + 0.1)


# ------------------------------------------------------------------------------------------------------ one iteration


@pytest.fixture
def network() -> ToCoNetwork:
    torch.manual_seed(0)
    network = ToCoNetwork("vit_test", CLASSES, width=16)
    with torch.no_grad():  # large enough to give maps some contrast
        network.head.weight.mul_(3)
        network.aux_head.weight.mul_(3)
    return network


@pytest.fixture
def contrast() -> ContrastHeads:
    torch.manual_seed(1)
    return ContrastHeads(48, outputs=32, hidden=24)


def some_views(batch: int, seed: int = 0) -> Views:
    generator = seeded(seed)
    smooth = resize(torch.randn(batch, 9, 8, 8, generator=generator), (64, 64))
    first, second, local = smooth.chunk(3, dim=1)
    return Views(first, second, local, some_tags(batch, 0, 3), whole(batch, 64, 64))


def released_losses(
    network: ToCoNetwork, contrast: ContrastHeads, views: Views, thresholds: Thresholds, recipe: Recipe, seed: int
) -> dict[str, Tensor]:
    """The iteration as the released program runs it: encodings and decodings are repeated for every purpose."""

    def decoded_cams(images: Tensor) -> Tensor:
        encoding = network(images).encoding
        return torch.cat(network.cams(encoding), dim=1)

    first, second, local_image, tags, boxes = views
    final, aux = multi_scale_cams(decoded_cams, first, recipe.scales).chunk(2, dim=1)
    regions = region_mask(aux, tags, thresholds.low, thresholds.regions)
    corners = choose_corners(regions, recipe.crop_size, recipe.crop_count, seeded(seed))
    crops = cut_crops(local_image, corners, recipe.crop_size).transpose(0, 1)
    output = network(first)
    contrast.update_teacher()
    teacher = contrast.teacher(torch.stack([network.backbone(view).token.detach() for view in (first, second)]))
    local = network.backbone(crops.flatten(0, 1)).token.unflatten(0, crops.shape[:2])
    student = contrast.student(torch.cat([torch.stack([network.backbone(v).token for v in (first, second)]), local]))
    flags = functional.pad(crop_flags(regions, corners, recipe.crop_size), (2, 0), value=True)
    grid = output.encoding.final.shape[2:]
    inside = inside_boxes(boxes, grid, first.shape[2:])
    return {
        "tags": functional.multilabel_soft_margin_loss(output.logits, tags),
        "aux_tags": functional.multilabel_soft_margin_loss(output.aux_logits, tags),
        "ptc": ptc_loss(output.encoding.final, cam_labels(resize(aux, grid), tags, 0.25, thresholds.pairs, inside)),
        "ctc": ctc_loss(student, teacher, flags, recipe.temperature),
        **released_mask_loss(network, output, final, views, thresholds),
    }


def released_mask_loss(
    network: ToCoNetwork, output: Output, cams: Tensor, views: Views, thresholds: Thresholds
) -> dict[str, Tensor]:
    if views.first.is_meta:  # counting operations only: labels cost none that count
        return {"masks": output.masks.mean()}
    pixels = denormalised(views.first, network.mean, network.std)
    labels = refined_labels(pixels, cams, views.tags, thresholds.low, thresholds.masks, views.boxes)
    return {"masks": mask_loss(resize(output.masks, labels.shape[1:]), labels)}


def our_losses(
    network: ToCoNetwork, contrast: ContrastHeads, views: Views, thresholds: Thresholds, recipe: Recipe, seed: int
) -> dict[str, Tensor]:
    output = network(views.first)
    weights = WEIGHTS | {"masks": 0.0} if views.first.is_meta else WEIGHTS
    losses = toco_losses(network, contrast, output, views, thresholds, weights, recipe, seeded(seed))
    return losses | {"masks": output.masks.mean()} if views.first.is_meta else losses


Iteration = Callable[[ToCoNetwork, ContrastHeads, Views, Thresholds, Recipe, int], dict[str, Tensor]]


def gradients(*modules: torch.nn.Module) -> Iterator[Tensor | None]:
    for module in modules:
        for parameter in module.parameters():
            yield parameter.grad
            parameter.grad = None


def test_one_encoding_gives_the_losses_and_gradients_of_three(network: ToCoNetwork, contrast: ContrastHeads) -> None:
    views = some_views(2)
    before = {name: value.clone() for name, value in contrast.state_dict().items()}
    results = []
    for iteration in (our_losses, released_losses):
        contrast.load_state_dict(before)
        losses = iteration(network, contrast, views, THRESHOLDS, RECIPE, 5)
        weighted_sum(losses, WEIGHTS).backward()
        results.append((losses, list(gradients(network, contrast))))
    (ours, our_gradients), (theirs, their_gradients) = results
    assert ours.keys() == theirs.keys() == WEIGHTS.keys()
    for name, loss in ours.items():
        assert loss > 0
        torch.testing.assert_close(loss, theirs[name], rtol=1e-5, atol=1e-6)
    assert sum(gradient is None for gradient in our_gradients) == 1 + len(list(contrast.teacher.parameters()))
    for our, their in zip(our_gradients, their_gradients, strict=True):
        assert (our is None) == (their is None)
        if our is not None and their is not None:
            torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5 * float(their.abs().max()) + 1e-8)


def multiply_adds(
    iteration: Iteration, network: ToCoNetwork, contrast: ContrastHeads, views: Views, size: int
) -> float:
    with FlopCounterMode(display=False) as counter:
        losses = iteration(network, contrast, views, THRESHOLDS, Recipe(crop_size=size), 5)
        weighted_sum(losses, WEIGHTS).backward()
    return counter.get_total_flops() / 2


def test_one_encoding_saves_operations(network: ToCoNetwork, contrast: ContrastHeads) -> None:
    views = some_views(2)
    ours, theirs = (multiply_adds(each, network, contrast, views, 24) for each in (our_losses, released_losses))
    assert ours <= 0.73 * theirs


def test_saved_operations_of_the_published_network() -> None:
    with torch.device("meta"):
        network, contrast = ToCoNetwork("vit_base", 20), ContrastHeads(768)
        image = torch.empty(1, 3, 448, 448)
        views = Views(image, image, image, torch.empty(1, 20), torch.empty(1, 4, dtype=torch.int64))
    ours, theirs = (multiply_adds(each, network, contrast, views, 96) for each in (our_losses, released_losses))
    assert ours <= 0.73 * theirs
    # One image: two whole views and eight local ones with gradient, and the five remaining CAM passes without.
    assert ours == pytest.approx(1.092e12, rel=0.005)


def test_losses_without_weight_are_not_computed(network: ToCoNetwork, contrast: ContrastHeads) -> None:
    views = some_views(1)
    output = network(views.first)
    network.backbone.forward = None  # type: ignore[method-assign, assignment]  # nothing may be encoded any more
    weights = {"tags": 1.0, "aux_tags": 1.0, "ptc": 0.0, "consistency": 0.1}
    assert toco_losses(network, contrast, output, views, THRESHOLDS, weights, RECIPE).keys() == {"tags", "aux_tags"}
    with pytest.raises(TypeError):
        toco_losses(network, contrast, output, views, THRESHOLDS, WEIGHTS, RECIPE)


def test_mixed_precision_leaves_labels_and_losses_in_single_precision(
    network: ToCoNetwork, contrast: ContrastHeads
) -> None:
    views, generator = some_views(2), seeded(12)
    features, student = torch.randn(2, 8, 4, 4, generator=generator), torch.randn(10, 2, 8, generator=generator)
    labels = torch.randint(3, (2, 4, 4), generator=generator, dtype=torch.uint8)
    pixels, masks = torch.rand(1, 3, 16, 16, generator=generator), torch.rand(1, 2, 16, 16, generator=generator)
    flags = torch.arange(10).expand(2, 10) < 5

    def calculations() -> list[Tensor]:
        return [ptc_loss(features, labels), ctc_loss(student, student[:2], flags), PAR().refine(pixels, masks)]

    usual = calculations()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for low, full in zip(calculations(), usual, strict=True):
            assert torch.equal(low, full)
        losses = toco_losses(network, contrast, network(views.first), views, THRESHOLDS, WEIGHTS, RECIPE, seeded(0))
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


def background_only(views: Views) -> Views:
    return views._replace(first=torch.zeros_like(views.first), local=torch.zeros_like(views.local))


def padding_only(views: Views) -> Views:
    return views._replace(boxes=torch.zeros_like(views.boxes))


def without_tags(views: Views) -> Views:
    return views._replace(tags=torch.zeros_like(views.tags))


def with_all_tags(views: Views) -> Views:
    return views._replace(tags=torch.ones_like(views.tags))


@pytest.mark.parametrize("change", [background_only, padding_only, without_tags, with_all_tags])
@pytest.mark.parametrize("compat", [Compat(), Compat(True, True, True)])
@pytest.mark.parametrize("batch", [1, 2])
def test_losses_and_gradients_are_finite(
    network: ToCoNetwork, contrast: ContrastHeads, change: Callable[[Views], Views], compat: Compat, batch: int
) -> None:
    views = some_views(batch)
    odd = change(views)
    if batch == 2:  # one ordinary image beside the odd one
        views = Views(*(torch.cat([one[:1], other[1:]]) for one, other in zip(views, odd, strict=True)))
    else:
        views = odd
    recipe = Recipe(crop_size=24, compat=compat)
    losses = toco_losses(network, contrast, network(views.first), views, THRESHOLDS, WEIGHTS, recipe, seeded(0))
    weighted_sum(losses, WEIGHTS).backward()
    for name, loss in losses.items():
        assert loss.isfinite(), name
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients(network, contrast))


def test_label_source_and_thresholds_reach_the_losses(network: ToCoNetwork, contrast: ContrastHeads) -> None:
    views = some_views(2)
    output = network(views.first)
    weights = {"masks": 1.0}

    def loss(recipe: Recipe, thresholds: Thresholds) -> float:
        return toco_losses(network, contrast, output, views, thresholds, weights, recipe)["masks"].item()

    usual = loss(RECIPE, THRESHOLDS)
    assert loss(Recipe(label_source="aux"), THRESHOLDS) != usual
    assert loss(RECIPE, THRESHOLDS._replace(masks=torch.tensor([0.7, 0.3]))) != usual
    assert loss(RECIPE, THRESHOLDS._replace(regions=0.3, pairs=0.3)) == usual
