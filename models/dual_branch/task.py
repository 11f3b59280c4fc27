"""The one-stage training of the dual branch: ToCo's, and a convolutional classifier with rates of its own."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from models.dual_branch.knobs import DualBranchKnobs
from models.dual_branch.modulation import ModulatedClassifier
from models.dual_branch.two_branches import TwoBranches
from models.task import LocalizerTask, Part, Start
from models.toco.contrast import ContrastHeads
from models.toco.knobs import TocoKnobs
from models.toco.task import TocoTask, first_part, new_network


def tasks(start: Start) -> Iterator[LocalizerTask]:
    """The one training of the dual branch; the transformer is the result.

    Source: the dual-branch paper (doi:10.19651/j.cnki.emt.2416644).
    """
    toco, knobs = start.knobs("toco", TocoKnobs), start.knobs("dual_branch", DualBranchKnobs)
    network = new_network(start, toco)
    contrast = ContrastHeads(network.backbone.dim)
    branch = ModulatedClassifier(knobs.backbone, start.classes, knobs, knobs.stages)
    start.load_pretrained(branch, knobs.backbone, knobs.weights)
    try:
        model = TwoBranches(network, contrast, branch, toco, knobs)
    except ValueError as error:
        raise ValueError(
            f"localizer.toco.backbone = {toco.backbone} and localizer.dual_branch.backbone = {knobs.backbone} do not "
            f"go together: {error}; choose vit_base with resnet50, or a lite0 one with efficientnet_lite0"
        ) from error
    own = Part(branch, nn.ModuleList([branch.modulations, branch.head]), knobs.rates)
    yield DualBranchTask(model, [first_part(model, start), own], start, toco, knobs)


class DualBranchTask(TocoTask):
    """ToCo's training with the losses of the convolutional branch."""

    def __init__(
        self, model: TwoBranches, parts: list[Part], start: Start, toco: TocoKnobs, knobs: DualBranchKnobs
    ) -> None:
        super().__init__(model, parts, start, toco)
        self.branch_knobs = knobs

    def weights(self) -> dict[str, float]:
        """ToCo's weights, and those of the branch's losses."""
        together = self.done >= self.branch_knobs.consistency_start
        aux, final = self.branch_knobs.consistency_weights if together else (0.0, 0.0)
        return super().weights() | {"branch_tags": 1.0, "aux_consistency": aux, "consistency": final}
