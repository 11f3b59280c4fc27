"""The training of a segmentation network on pseudo masks."""

from __future__ import annotations

from torch import Tensor, nn

from models.knobs import Rates
from models.segmenters.segmenter import Segmenter, pixel_loss
from models.task import Batch, Part, Task, Terms


class SegmenterTask(Task):
    """Cross entropy over the pixels that are not ignored."""

    views = "labelled"

    def __init__(self, network: Segmenter, rates: Rates) -> None:
        super().__init__(network, [Part(network, network.head, rates)])

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Terms]:
        """Loss of the pixel labels; no further terms to log."""
        return pixel_loss(network(batch["image"]).float(), batch["labels"]), {}
