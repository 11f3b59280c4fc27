"""Both branches in one iteration: which losses there are, whose maps move, and how images are normalised."""

import pytest
import torch

from models.dual_branch.knobs import ConsistencyKnobs
from models.dual_branch.modulation import ModulatedClassifier
from models.dual_branch.two_branches import BRANCH_LOSSES, TwoBranches
from models.toco.contrast import ContrastHeads
from models.toco.losses import Thresholds, Views
from models.toco.network import ToCoNetwork

THRESHOLDS = Thresholds(0.25, 0.7, 0.7, 0.7)


@pytest.fixture(scope="module")
def model() -> TwoBranches:
    torch.manual_seed(0)
    network, branch = ToCoNetwork("lite0_early_vit", 3, width=8), ModulatedClassifier("efficientnet_lite0", 3)
    return TwoBranches(network, ContrastHeads(network.backbone.dim, outputs=8, hidden=8), branch)


def views() -> Views:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return Views(images, images, images, torch.eye(3)[:2], torch.tensor([[0, 64, 0, 64]] * 2))


def test_losses_without_weight_are_not_computed(model: TwoBranches) -> None:
    losses = model(views(), THRESHOLDS, {"tags": 1.0, "branch_tags": 1.0, "consistency": 0.0})
    assert losses.keys() == {"tags", "branch_tags", "similarity"}
    every = model(views(), THRESHOLDS, dict.fromkeys(("tags", *BRANCH_LOSSES), 1.0))
    assert every.keys() == {"tags", *BRANCH_LOSSES, "similarity"}
    assert all(loss.isfinite() and loss > 0 for loss in every.values())


@pytest.mark.parametrize("fixed", ["none", "transformer", "convolution"])
def test_consistency_moves_the_branch_that_is_not_fixed(model: TwoBranches, fixed: str) -> None:
    model.consistency = ConsistencyKnobs.model_validate({"stop_gradient": fixed})
    model.zero_grad()
    model(views(), THRESHOLDS, {"consistency": 1.0})["consistency"].backward()
    moves = {"transformer": model.network.head.weight.grad, "convolution": model.branch.head.weight.grad}
    assert {name for name, gradient in moves.items() if gradient is not None} == moves.keys() - {fixed}


def test_branches_of_other_normalisation_are_refused() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="one branch normalises images by"):
        network, branch = ToCoNetwork("vit_test", 3, width=8), ModulatedClassifier("efficientnet_lite0", 3)
        TwoBranches(network, ContrastHeads(network.backbone.dim), branch)
