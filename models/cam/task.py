"""The training of the classifier on tags."""

from __future__ import annotations

from torch import Tensor, nn

from models.cam.classifier import tag_loss
from models.knobs import Rates
from models.localizer import Localizer
from models.task import Batch, Part, Task, Terms


class ClassifierTask(Task):
    """The tag loss of a classifier; nothing else changes."""

    def __init__(self, network: Localizer, rates: Rates) -> None:
        super().__init__(network, [Part(network, network.head, rates)])

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Terms]:
        """Loss of the tags; no further terms to log."""
        return tag_loss(network(batch["image"]), batch["tags"]), {}
