"""The one-stage training of ToCo: transformer and decoder learn together from tags, without a classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.localizer import Localizer
from models.schedules import cosine_threshold
from models.task import Batch, LocalizerTask, Part, Progress, Start, Terms
from models.toco.contrast import ContrastHeads
from models.toco.crops import mirror_views
from models.toco.knobs import TocoKnobs
from models.toco.labels import class_thresholds
from models.toco.losses import Thresholds, Views, weighted_sum
from models.toco.network import ToCoNetwork
from models.toco.one_stage import OneStage

USES: tuple[Literal["regions", "pairs", "masks"], ...] = ("regions", "pairs", "masks")


def tasks(start: Start) -> Iterator[LocalizerTask]:
    """The one training of ToCo.

    Source: Ru et al., CVPR 2023 (ToCo).
    """
    knobs = start.knobs("toco", TocoKnobs)
    network = new_network(start, knobs)
    model = OneStage(network, ContrastHeads(network.backbone.dim), knobs)
    yield TocoTask(model, [first_part(model, start)], start, knobs)


def new_network(start: Start, knobs: TocoKnobs) -> ToCoNetwork:
    """The network with its initial weights."""
    network = ToCoNetwork(knobs.backbone, start.classes, knobs.decoder_width)
    start.load_pretrained(network, knobs.backbone, knobs.weights)
    return network


def first_part(model: OneStage, start: Start) -> Part:
    """All that learns at the training's common rates; what ImageNet weights do not cover learns faster."""
    network = model.network
    heads = [network.head, network.aux_head, network.decoder, model.contrast.student]
    return Part(model, nn.ModuleList([*heads, network.backbone.untrained()]), start.rates)


class TocoTask(LocalizerTask):
    """Losses and thresholds that change with the share of the training that is done; the transformer is the result.

    Raises:
        ValueError: there are not as many thresholds as classes.
    """

    views = "three"
    partial = True

    def __init__(self, model: OneStage, parts: Sequence[Part], start: Start, knobs: TocoKnobs) -> None:
        super().__init__(model, parts)
        if knobs.high_of_classes is not None and len(knobs.high_of_classes) != start.classes:
            raise ValueError(
                f"localizer.toco.high_of_classes has {len(knobs.high_of_classes)} thresholds for {start.classes} "
                "classes"
            )
        self.own, self.knobs, self.classes, self.done = model, knobs, start.classes, 0.0

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Terms]:
        """The weighted losses of a batch; those that do not count yet are logged as 0, and how alike tokens are."""
        flip_bug = "flip_bug" in self.knobs.compat
        first, local, boxes = mirror_views(batch["image"], batch["local"], batch["boxes"], flip_bug=flip_bug)
        views, weights = Views(first, batch["second"], local, batch["tags"], boxes), self.weights()
        losses = network(views, self.thresholds(batch["tags"]), weights)
        similarity = losses.pop("similarity")
        total = weighted_sum(losses, weights)
        none = torch.zeros((), device=total.device)
        return total, {name: losses.get(name, none) for name in weights} | {"similarity": similarity}

    def weights(self) -> dict[str, float]:
        """Weight of every loss now; 0 costs nothing."""
        knobs = self.knobs
        contrast = self.done >= knobs.contrast_start
        weights = {"tags": 1.0, "aux_tags": 1.0}
        weights |= {"ptc": knobs.ptc_weight, "ctc": knobs.ctc_weight} if contrast else {"ptc": 0.0, "ctc": 0.0}
        return weights | {"masks": knobs.mask_weight if self.done >= knobs.mask_start else 0.0}

    def thresholds(self, tags: Tensor) -> Thresholds:
        """Background scores now: the high one moves where the knobs say so, elsewhere it keeps its first value.

        The maps that label the decoder's masks change once, where the knobs say so.
        """
        start, end = self.knobs.high
        moving: float | Tensor = cosine_threshold(self.done, start, end, total=1)
        if self.knobs.high_of_classes is not None:
            ends = [cosine_threshold(self.done, start, value, total=1) for value in self.knobs.high_of_classes]
            moving = class_thresholds(torch.tensor(ends, device=tags.device), tags)
        regions, pairs, masks = (moving if use in self.knobs.high_moves else start for use in USES)
        source: Literal["final", "aux"] = "final" if self.done >= self.knobs.final_labels_start else "aux"
        return Thresholds(self.knobs.low, regions, pairs, masks, source)

    def after_step(self, progress: Progress) -> None:
        """Note the share of the training that is done."""
        self.done = progress.done

    def state_dict(self) -> dict[str, Any]:
        """The share of the training that is done."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from that share."""
        self.done = state["done"]

    def result(self) -> tuple[Localizer, dict[str, Any]]:
        """The transformer with its decoder."""
        arguments = {"encoder": self.knobs.backbone, "classes": self.classes, "width": self.knobs.decoder_width}
        return self.own.network, {"network": "toco"} | arguments
