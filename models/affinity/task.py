"""The training of an affinity network on confident labels."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from models.affinity.pairs import Border
from models.knobs import Rates
from models.networks.backbone import Backbone
from models.task import Batch, Part, Task, Terms


class AffinityNetwork(Protocol):
    """What training and walks need of an affinity network.

    Attributes:
        backbone: its trunk.
        head: the new layers.
        stride: input pixels per cell of its grid.
    """

    backbone: Backbone
    head: nn.Module
    stride: int

    def loss(self, outputs: Tensor, labels: Tensor, radius: int) -> tuple[Tensor, Terms]:
        """Loss of the pairs of confident labels (B, H, W), and its terms."""

    def affinity(self, images: Tensor, radius: int, border: Border) -> tuple[Tensor, Tensor | None]:
        """Affinities (B, offsets, h, w) in [0, 1] of normalised images, and the boundary (B, h, w) where it has one."""


class AffinityTask(Task):
    """Which neighbours carry the same confident label."""

    views = "labelled"

    def __init__(self, network: Any, rates: Rates, radius: int) -> None:
        super().__init__(network, [Part(network, network.head, rates)])
        self.own: AffinityNetwork = network
        self.radius = radius

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Terms]:
        """Loss of the pairs of a batch."""
        return self.own.loss(network(batch["image"]), batch["labels"], self.radius)
