"""The training of a segmentation network on pseudo masks."""

from __future__ import annotations

from torch import Tensor, nn

from models.knobs import Rates
from models.segmenters.knobs import PixelLoss
from models.segmenters.segmenter import Segmenter
from models.task import Batch, Part, Task, Terms


class SegmenterTask(Task):
    """The network's loss over the pixels that are not ignored."""

    views = "labelled"

    def __init__(self, network: Segmenter, rates: Rates, loss: PixelLoss) -> None:
        super().__init__(network, [Part(network, network.head, rates)])
        self.own, self.kind = network, loss

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Terms]:
        """Loss of the pixel labels; no further terms to log."""
        return self.own.loss(network(batch["image"]), batch["labels"], self.kind), {}
