"""The training of AMN on static labels from the classifier's maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from models.amn.knobs import AmnKnobs
from models.amn.network import AmnNetwork
from models.localizer import Localizer
from models.task import Batch, LocalizerTask, Part, Start, Terms


def tasks(start: Start) -> Iterator[LocalizerTask]:
    """The one training of AMN."""
    yield AmnTask(start, start.knobs("amn", AmnKnobs))


class AmnTask(LocalizerTask):
    """A backbone and a head that knows the tags, on pixel labels.

    Source: Lee et al., CVPR 2022; spec bao_transcam_amn 4.2.
    """

    views = "labelled"

    def __init__(self, start: Start, knobs: AmnKnobs) -> None:
        network = AmnNetwork(knobs.backbone, start.classes)
        start.load_pretrained(network, knobs.backbone, knobs.weights)
        super().__init__(network, [Part(network, network.head, start.rates)])
        self.own, self.knobs, self.static_labels, self.classes = network, knobs, knobs, start.classes

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Terms]:
        """The balanced loss of the labels."""
        return self.own.loss(network(batch["image"], batch["tags"]), batch["labels"], self.knobs)

    def result(self) -> tuple[Localizer, dict[str, Any]]:
        """The network."""
        return self.own, {"network": "amn", "backbone": self.knobs.backbone, "classes": self.classes}
