"""Token contrast (ToCo): the losses of one training iteration, with one encoding of every view.

Ru et al., CVPR 2023; "the dual-branch paper" is doi:10.19651/j.cnki.emt.2416644. Labels are as in `toco_labels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from models.cam.classifier import tag_loss
from models.labels import IGNORE
from models.maps import resize
from models.precision import full_precision
from models.refine.par import PAR
from models.toco.cams import SCALES, multi_scale_cams
from models.toco.contrast import ContrastHeads, ctc_loss
from models.toco.crops import choose_corners, crop_flags, cut_crops
from models.toco.knobs import TocoKnobs
from models.toco.labels import (
    Threshold,
    cam_labels,
    denormalised,
    inside_boxes,
    pair_labels,
    refined_labels,
    region_mask,
)
from models.toco.network import Output, ToCoNetwork

WEIGHTS = {"tags": 1.0, "aux_tags": 1.0, "ptc": 0.2, "ctc": 0.5, "masks": 0.1}
"""Weights of the losses (`released`); that of `masks` is 0 in the first 2000 steps."""


class Views(NamedTuple):
    """A training batch.

    Attributes:
        first: (B, 3, H, W) the network's view, normalised.
        second: (B, 3, H', W') another view of the whole image, normalised.
        local: (B, 3, H, W) the crop of `first` in other colours, from which local views are cut.
        tags: (B, K) of 0 and 1.
        boxes: (B, 4) int64, the part of `first` that is image and not padding, see `toco_labels.inside_boxes`.
    """

    first: Tensor
    second: Tensor
    local: Tensor
    tags: Tensor
    boxes: Tensor


class Thresholds(NamedTuple):
    """Background scores: `low` everywhere, and the high one where it serves regions, pairs and decoder masks.

    `labelled_by` says whose maps label the decoder's masks: those of the last or of the earlier block.
    """

    low: Threshold
    regions: Threshold
    pairs: Threshold
    masks: Threshold
    labelled_by: Literal["final", "aux"] = "final"


def toco_losses(
    network: ToCoNetwork,
    contrast: ContrastHeads,
    output: Output,
    views: Views,
    thresholds: Thresholds,
    weights: Mapping[str, float],
    knobs: TocoKnobs,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """All losses of an iteration whose weight is not 0; the others cost nothing.

    Moves the teacher of `contrast` one step when the contrast has a weight.

    Args:
        network: gives maps and encodes the remaining views.
        contrast: heads of class token contrast.
        output: `network(views.first)`.
        views: the batch.
        thresholds: background scores of this step.
        weights: by name; missing names count as 0, and names not in `WEIGHTS` belong to the caller.
        knobs: settings.
        generator: draws the local views.

    Returns:
        Scalars by name, finite for images without objects, without background or without tags.

    Source: released code of ToCo (`scripts/dist_train_voc_seg_neg.py`), which encodes `first` three times and
    `second` twice; without dropout the values are the same.
    """
    wanted = {name for name in WEIGHTS if weights.get(name)}
    losses = {"tags": tag_loss(output.logits, views.tags), "aux_tags": tag_loss(output.aux_logits, views.tags)}
    if wanted <= losses.keys():
        return {name: losses[name] for name in losses if name in wanted}
    final, aux = training_cams(network, output, views.first, tuple(knobs.scales))
    if "ptc" in wanted:
        labels = token_labels(aux, views, thresholds, output.encoding.final.shape[2:], "pixel_boxes" in knobs.compat)
        losses["ptc"] = ptc_loss(output.encoding.final, labels, "absolute_pairs" in knobs.compat)
    if "ctc" in wanted:
        regions = region_mask(aux, views.tags, thresholds.low, thresholds.regions)
        losses["ctc"] = contrast_of_views(network, contrast, output, views, regions, knobs, generator)
    if "masks" in wanted:
        cams = final if thresholds.labelled_by == "final" else aux
        pixels = denormalised(views.first, network.mean, network.std)
        labels = refined_labels(
            pixels, cams, views.tags, thresholds.low, thresholds.masks, views.boxes, PAR(tuple(knobs.dilations))
        )
        losses["masks"] = mask_loss(resize(output.masks.float(), labels.shape[1:]), labels)
    return {name: loss for name, loss in losses.items() if name in wanted}


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The loss to minimise: the sum of the named losses times their weights."""
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


def token_similarity(features: Tensor) -> Tensor:
    """How alike the tokens of an image are: the mean cosine of all pairs, which over-smoothing brings to 1.

    Args:
        features: (B, C, h, w).

    Returns:
        Scalar, mean over the batch, without gradient: the squared length of the mean of unit tokens.
    """
    tokens = functional.normalize(features.detach().float().flatten(2), dim=1)
    return tokens.mean(dim=2).square().sum(dim=1).mean()


def training_cams(
    network: ToCoNetwork, output: Output, images: Tensor, scales: tuple[float, ...] = SCALES
) -> tuple[Tensor, Tensor]:
    """Fused maps (B, K, H, W) in [0, 1] of the last and of the earlier block, reusing the encoding of `images`."""
    with torch.no_grad():
        known = torch.cat(network.cams(output.encoding), dim=1)
    final, aux = multi_scale_cams(network.stacked_cams, images, scales, known).chunk(2, dim=1)
    return final, aux


def token_labels(
    cams: Tensor, views: Views, thresholds: Thresholds, grid: torch.Size, pixel_boxes: bool = False
) -> Tensor:
    """Labels (B, h, w) of the tokens from maps (B, K, H, W), see `toco_labels.cam_labels`."""
    inside = inside_boxes(views.boxes, grid, None if pixel_boxes else cams.shape[2:])
    return cam_labels(resize(cams, grid), views.tags, thresholds.low, thresholds.pairs, inside)


def contrast_of_views(
    network: ToCoNetwork,
    contrast: ContrastHeads,
    output: Output,
    views: Views,
    regions: Tensor,
    knobs: TocoKnobs,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Class token contrast of both whole views and of local views drawn from uncertain regions (B, H, W)."""
    corners = choose_corners(regions, knobs.crop, knobs.crops, generator)
    crops = cut_crops(views.local, corners, knobs.crop).transpose(0, 1)
    second = network.backbone(views.second).token
    local = network.backbone(crops.flatten(0, 1)).token.unflatten(0, crops.shape[:2])
    contrast.update_teacher()
    student, teacher = contrast(torch.stack([output.encoding.token, second]), local)
    flags = functional.pad(crop_flags(regions, corners, knobs.crop), (2, 0), value=True)
    return ctc_loss(student, teacher, flags, knobs.temperature, "extra_term" in knobs.compat)


def ptc_loss(features: Tensor, labels: Tensor, absolute: bool = False) -> Tensor:
    """Patch token contrast: tokens of one label grow alike, of different labels unlike.

    Args:
        features: (B, C, h, w).
        labels: (B, h, w) uint8; pairs with a 255 do not count.
        absolute: compatibility with the released code, which compares by the absolute value of the cosine.

    Returns:
        (1 - mean cosine of equal pairs) / 2 + mean cosine of different pairs / 2, means over the batch with 1 added
        to the counts: finite, and without gradient, if there are none.

    Source: Ru et al., CVPR 2023 (ToCo), as restated in the dual-branch paper, eq. 11 (`published`); halves and counts
    from the released code.
    """
    with full_precision(features.device):
        tokens = functional.normalize(features.float().flatten(2), dim=1)
        cosine = tokens.mT @ tokens
    if absolute:
        cosine = cosine.abs()
    pairs = pair_labels(labels)
    alike, unlike = ((cosine * (pairs == kind)).sum() / ((pairs == kind).sum() + 1) for kind in (1, 0))
    return (1 - alike) / 2 + unlike / 2


def mask_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Half the mean cross entropy over background pixels plus half that over pixels of classes.

    Args:
        logits: (B, K + 1, H, W).
        labels: (B, H, W) uint8; 255 is left out.

    Returns:
        Scalar. A kind without pixels contributes 0, where the released code gives NaN.

    Source: released code of ToCo (`model/losses.py`).
    """
    entropy = functional.cross_entropy(logits.float(), labels.long(), ignore_index=IGNORE, reduction="none")
    kinds = labels == 0, (labels > 0) & (labels < IGNORE)
    background, classes = ((entropy * kind).sum() / kind.sum().clamp(min=1) for kind in kinds)
    return (background + classes) / 2
