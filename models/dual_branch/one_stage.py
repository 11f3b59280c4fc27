"""What learns in ToCo's one-stage training and in the dual branch: the network with all that exists only in training.

"The dual-branch paper" is doi:10.19651/j.cnki.emt.2416644.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from models.cam.classifier import tag_loss
from models.dual_branch.modulation import ModulatedClassifier, consistency_loss
from models.networks.vit import Output, ToCoNetwork
from models.toco.contrast import ContrastHeads
from models.toco.losses import Recipe, Thresholds, Views, toco_losses

BRANCH_LOSSES = ("branch_tags", "aux_consistency", "consistency")
"""The losses that the convolutional branch adds: tags, and the two terms of the dual-branch paper's eq. 1."""


@dataclass(frozen=True)
class Consistency:
    """How the maps of the two branches are drawn together.

    Attributes:
        norm: 1 for absolute, 2 for squared differences.
        spread: bring every map to [0, 1] first.
        leader: whose maps the other's follow without being pulled themselves; with `none` both move (`published`).
    """

    norm: Literal[1, 2] = 1
    spread: bool = True
    leader: Literal["none", "transformer", "convolution"] = "none"


class OneStage(nn.Module):
    """A ToCo network, the heads of class token contrast and, in the dual branch, a convolutional classifier.

    All losses are the result of one forward pass, so that several processes can share a batch.

    Args:
        network: what remains after training.
        contrast: heads of class token contrast.
        branch: the convolutional classifier, or None.
        recipe: settings of an iteration; None for the published ones.
        consistency: of both branches; likewise.

    Raises:
        ValueError: the branches expect differently normalised images.
    """

    def __init__(
        self,
        network: ToCoNetwork,
        contrast: ContrastHeads,
        branch: ModulatedClassifier | None = None,
        recipe: Recipe | None = None,
        consistency: Consistency | None = None,
    ) -> None:
        super().__init__()
        if branch is not None and (branch.mean, branch.std) != (network.mean, network.std):
            raise ValueError(
                f"one branch normalises images by {network.mean} and {network.std}, the other by {branch.mean} and "
                f"{branch.std}"
            )
        self.network, self.contrast, self.branch = network, contrast, branch
        self.recipe, self.consistency = recipe or Recipe(), consistency or Consistency()

    def forward(self, views: Views, thresholds: Thresholds, weights: Mapping[str, float]) -> dict[str, Tensor]:
        """All losses of an iteration whose weight is not 0, by their names in `toco.WEIGHTS` and `BRANCH_LOSSES`.

        The teacher of the contrast moves one step where the contrast has a weight.
        """
        output: Output = self.network(views.first)
        losses = toco_losses(self.network, self.contrast, output, views, thresholds, weights, self.recipe)
        return losses | self._branch_losses(output, views, weights)

    def _branch_losses(self, output: Output, views: Views, weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Losses of the convolutional branch, whose maps are compared with those of both transformer blocks."""
        wanted = [name for name in BRANCH_LOSSES if weights.get(name)]
        if self.branch is None or not wanted:
            return {}
        cams = self.branch.cams(views.first)
        losses = {"branch_tags": tag_loss(cams.mean(dim=(2, 3)), views.tags)}
        settings = self.consistency
        for name, others in zip(("consistency", "aux_consistency"), self.network.cams(output.encoding), strict=True):
            if name in wanted:
                led = others.detach() if settings.leader == "transformer" else others
                leading = cams.detach() if settings.leader == "convolution" else cams
                losses[name] = consistency_loss(led, leading, views.tags, settings.norm, settings.spread)
        return {name: loss for name, loss in losses.items() if name in wanted}
