"""Patch token contrast, the decoder's loss, and the iteration that encodes every view once."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from models.maps import resize
from models.refine.par import PAR
from models.toco.cams import multi_scale_cams
from models.toco.contrast import ContrastHeads, ctc_loss
from models.toco.crops import choose_corners, crop_flags, cut_crops
from models.toco.knobs import Compat, TocoKnobs
from models.toco.labels import cam_labels, denormalised, inside_boxes, refined_labels, region_mask
from models.toco.losses import (
    WEIGHTS,
    Thresholds,
    Views,
    mask_loss,
    ptc_loss,
    toco_losses,
    token_labels,
    weighted_sum,
)
from models.toco.network import Output, ToCoNetwork

CLASSES = 5
THRESHOLDS = Thresholds(0.25, 0.7, 0.7, 0.7)
KNOBS = TocoKnobs(crop=24)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_tags(batch: int, *classes: int) -> Tensor:
    tags = torch.zeros(batch, CLASSES)
    tags[:, list(classes)] = 1
    return tags


def whole(batch: int, height: int, width: int) -> Tensor:
    return torch.tensor([[0, height, 0, width]]).repeat(batch, 1)


def test_released_boxes_of_padded_images_leave_no_pair() -> None:
    none = torch.zeros(0)
    views = Views(none, none, none, torch.ones(1, 1), torch.tensor([[100, 448, 0, 448]]))
    cams = torch.rand(1, 1, 448, 448, generator=seeded(0))
    grid = torch.Size((28, 28))
    assert (token_labels(cams, views, THRESHOLDS, grid) != 255).any()
    assert (token_labels(cams, views, THRESHOLDS, grid, pixel_boxes=True) == 255).all()


# --------------------------------------------------------------------------------------------------- losses of labels


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
    network: ToCoNetwork, contrast: ContrastHeads, views: Views, thresholds: Thresholds, knobs: TocoKnobs, seed: int
) -> dict[str, Tensor]:
    """The iteration as the released program runs it: encodings and decodings are repeated for every purpose."""

    def decoded_cams(images: Tensor) -> Tensor:
        encoding = network(images).encoding
        return torch.cat(network.cams(encoding), dim=1)

    first, second, local_image, tags, boxes = views
    final, aux = multi_scale_cams(decoded_cams, first, knobs.scales).chunk(2, dim=1)
    regions = region_mask(aux, tags, thresholds.low, thresholds.regions)
    corners = choose_corners(regions, knobs.crop, knobs.crops, seeded(seed))
    crops = cut_crops(local_image, corners, knobs.crop).transpose(0, 1)
    output = network(first)
    contrast.update_teacher()
    teacher = contrast.teacher(torch.stack([network.backbone(view).token.detach() for view in (first, second)]))
    local = network.backbone(crops.flatten(0, 1)).token.unflatten(0, crops.shape[:2])
    student = contrast.student(torch.cat([torch.stack([network.backbone(v).token for v in (first, second)]), local]))
    flags = functional.pad(crop_flags(regions, corners, knobs.crop), (2, 0), value=True)
    grid = output.encoding.final.shape[2:]
    inside = inside_boxes(boxes, grid, first.shape[2:])
    return {
        "tags": functional.multilabel_soft_margin_loss(output.logits, tags),
        "aux_tags": functional.multilabel_soft_margin_loss(output.aux_logits, tags),
        "ptc": ptc_loss(output.encoding.final, cam_labels(resize(aux, grid), tags, 0.25, thresholds.pairs, inside)),
        "ctc": ctc_loss(student, teacher, flags, knobs.temperature),
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
    network: ToCoNetwork, contrast: ContrastHeads, views: Views, thresholds: Thresholds, knobs: TocoKnobs, seed: int
) -> dict[str, Tensor]:
    output = network(views.first)
    weights = WEIGHTS | {"masks": 0.0} if views.first.is_meta else WEIGHTS
    losses = toco_losses(network, contrast, output, views, thresholds, weights, knobs, seeded(seed))
    return losses | {"masks": output.masks.mean()} if views.first.is_meta else losses


Iteration = Callable[[ToCoNetwork, ContrastHeads, Views, Thresholds, TocoKnobs, int], dict[str, Tensor]]


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
        losses = iteration(network, contrast, views, THRESHOLDS, KNOBS, 5)
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
        losses = iteration(network, contrast, views, THRESHOLDS, TocoKnobs(crop=size), 5)
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
    assert toco_losses(network, contrast, output, views, THRESHOLDS, weights, KNOBS).keys() == {"tags", "aux_tags"}
    with pytest.raises(TypeError):
        toco_losses(network, contrast, output, views, THRESHOLDS, WEIGHTS, KNOBS)


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
        losses = toco_losses(network, contrast, network(views.first), views, THRESHOLDS, WEIGHTS, KNOBS, seeded(0))
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
@pytest.mark.parametrize("compat", [[], ["absolute_pairs", "extra_term", "pixel_boxes"]])
@pytest.mark.parametrize("batch", [1, 2])
def test_losses_and_gradients_are_finite(
    network: ToCoNetwork, contrast: ContrastHeads, change: Callable[[Views], Views], compat: list[Compat], batch: int
) -> None:
    views = some_views(batch)
    odd = change(views)
    if batch == 2:  # one ordinary image beside the odd one
        views = Views(*(torch.cat([one[:1], other[1:]]) for one, other in zip(views, odd, strict=True)))
    else:
        views = odd
    knobs = TocoKnobs(crop=24, compat=compat)
    losses = toco_losses(network, contrast, network(views.first), views, THRESHOLDS, WEIGHTS, knobs, seeded(0))
    weighted_sum(losses, WEIGHTS).backward()
    for name, loss in losses.items():
        assert loss.isfinite(), name
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients(network, contrast))


def test_label_source_and_thresholds_reach_the_losses(network: ToCoNetwork, contrast: ContrastHeads) -> None:
    views = some_views(2)
    output = network(views.first)
    weights = {"masks": 1.0}

    def loss(knobs: TocoKnobs, thresholds: Thresholds) -> float:
        return toco_losses(network, contrast, output, views, thresholds, weights, knobs)["masks"].item()

    usual = loss(KNOBS, THRESHOLDS)
    assert loss(KNOBS, THRESHOLDS._replace(labelled_by="aux")) != usual
    assert loss(KNOBS, THRESHOLDS._replace(masks=torch.tensor([0.7, 0.3]))) != usual
    assert loss(KNOBS, THRESHOLDS._replace(regions=0.3, pairs=0.3)) == usual
