"""What learns in ToCo's one-stage training: the network, and the heads of class token contrast."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from models.toco.contrast import ContrastHeads
from models.toco.knobs import TocoKnobs
from models.toco.losses import Thresholds, Views, toco_losses, token_similarity
from models.toco.network import Output, ToCoNetwork


class OneStage(nn.Module):
    """A ToCo network and the heads of class token contrast.

    All losses are the result of one forward pass, so that several processes can share a batch.

    Args:
        network: what remains after training.
        contrast: exist in training alone.
        knobs: of an iteration.
    """

    def __init__(self, network: ToCoNetwork, contrast: ContrastHeads, knobs: TocoKnobs = TocoKnobs()) -> None:
        super().__init__()
        self.network, self.contrast, self.knobs = network, contrast, knobs

    def forward(self, views: Views, thresholds: Thresholds, weights: Mapping[str, float]) -> dict[str, Tensor]:
        """All losses of an iteration whose weight is not 0, by their names in `losses.WEIGHTS`, and `similarity`.

        The teacher of the contrast moves one step where the contrast has a weight.
        """
        output: Output = self.network(views.first)
        losses = self.losses(output, views, thresholds, weights)
        return losses | {"similarity": token_similarity(output.encoding.final)}

    def losses(
        self, output: Output, views: Views, thresholds: Thresholds, weights: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """The same, given `network(views.first)`."""
        return toco_losses(self.network, self.contrast, output, views, thresholds, weights, self.knobs)
