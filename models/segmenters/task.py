"""The training of a segmentation network on pseudo masks."""

from __future__ import annotations

from torch import Tensor, nn

from models.knobs import Rates
from models.segmenters.knobs import LossName
from models.segmenters.segmenter import Segmenter, balanced_pixel_loss, pixel_loss
from models.task import Batch, Part, Task, Terms

PIXEL_LOSSES = {"cross_entropy": pixel_loss, "balanced": balanced_pixel_loss}
"""By the names of the knob `segmenter.loss`."""


class SegmenterTask(Task):
    """The network's loss over the pixels that are not ignored."""

    views = "labelled"

    def __init__(self, network: Segmenter, rates: Rates, loss: LossName) -> None:
        super().__init__(network, [Part(network, network.head, rates)])
        self.own, self.term = network, PIXEL_LOSSES[loss]

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Terms]:
        """Loss of the pixel labels; no further terms to log."""
        return self.own.loss(network(batch["image"]), batch["labels"], self.term), {}
