"""What learns in the dual branch: ToCo's training and a convolutional classifier, whose maps are drawn together.

"The dual-branch paper" is doi:10.19651/j.cnki.emt.2416644.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from models.cam.classifier import tag_loss
from models.dual_branch.knobs import ConsistencyKnobs
from models.dual_branch.modulation import ModulatedClassifier, consistency_loss
from models.toco.contrast import ContrastHeads
from models.toco.knobs import TocoKnobs
from models.toco.losses import Thresholds, Views
from models.toco.network import Output, ToCoNetwork
from models.toco.one_stage import OneStage

BRANCH_LOSSES = ("branch_tags", "aux_consistency", "consistency")
"""The losses that the convolutional branch adds: tags, and the two terms of the dual-branch paper's eq. 1."""


class TwoBranches(OneStage):
    """ToCo's training beside a convolutional classifier.

    Args:
        network: what remains after training.
        contrast: heads of class token contrast.
        branch: the convolutional classifier.
        knobs: of ToCo's iteration.
        consistency: how the maps of both branches are drawn together.

    Raises:
        ValueError: the branches expect differently normalised images.
    """

    def __init__(
        self,
        network: ToCoNetwork,
        contrast: ContrastHeads,
        branch: ModulatedClassifier,
        knobs: TocoKnobs = TocoKnobs(),
        consistency: ConsistencyKnobs = ConsistencyKnobs(),
    ) -> None:
        super().__init__(network, contrast, knobs)
        if (branch.mean, branch.std) != (network.mean, network.std):
            raise ValueError(
                f"one branch normalises images by {network.mean} and {network.std}, the other by {branch.mean} and "
                f"{branch.std}"
            )
        self.branch, self.consistency = branch, consistency

    def losses(
        self, output: Output, views: Views, thresholds: Thresholds, weights: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """ToCo's losses and those in `BRANCH_LOSSES` whose weight is not 0."""
        return super().losses(output, views, thresholds, weights) | self._branch_losses(output, views, weights)

    def _branch_losses(self, output: Output, views: Views, weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Losses of the convolutional branch, whose maps are compared with those of both transformer blocks."""
        wanted = [name for name in BRANCH_LOSSES if weights.get(name)]
        if not wanted:
            return {}
        cams = self.branch.cams(views.first)
        losses = {"branch_tags": tag_loss(cams.mean(dim=(2, 3)), views.tags)}
        fixed = self.consistency.stop_gradient
        for name, others in zip(("consistency", "aux_consistency"), self.network.cams(output.encoding), strict=True):
            if name in wanted:
                first = others.detach() if fixed == "transformer" else others
                second = cams.detach() if fixed == "convolution" else cams
                losses[name] = consistency_loss(first, second, views.tags, self.consistency)
        return {name: loss for name, loss in losses.items() if name in wanted}
