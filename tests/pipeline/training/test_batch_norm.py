"""Batch normalisation over the batch of all processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from models.networks.lite import lite0
from pipeline.run.runtime import distributed, rank, world_size
from pipeline.run.told import Runtime
from pipeline.training.batch_norm import SharedBatchNorm, share_batch_norm
from tests.support.processes import forked, several
from tests.support.stages import LOCAL


def normalised() -> dict[str, Any]:
    """What batch normalisation makes of this process's share of a batch, its gradients and statistics."""
    torch.manual_seed(0)
    images, network = torch.randn(6, 3, 4, 5) * 3 + 1, nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    target = torch.randn(6, 4, 4, 5)
    with distributed(Runtime.model_validate(LOCAL)):
        if world_size() > 1:
            share_batch_norm(network.train())
        mine = slice(rank(), None, world_size())
        share = images[mine].requires_grad_()
        output = network(share)
        ((output - target[mine]).square().mean() / world_size()).backward()
        norm = network[1]
        assert share.grad is not None
        statistics = {name: value.tolist() for name, value in norm.state_dict().items()}
        return {"output": output.tolist(), "gradient": share.grad.tolist(), "statistics": statistics}


def test_processes_normalise_as_one_would() -> None:
    one, two = forked(normalised).value, [process.value for process in several(2, normalised)]
    for name in ("output", "gradient"):
        for number, share in enumerate(two):
            assert torch.allclose(torch.tensor(share[name]), torch.tensor(one[name])[number::2], atol=1e-5)
    for share in two:
        for name, value in one["statistics"].items():
            assert torch.allclose(torch.tensor(share["statistics"][name]), torch.tensor(value), atol=1e-5), name


def test_frozen_statistics_stay_and_other_kinds_are_refused() -> None:
    trunk = lite0().train()
    share_batch_norm(trunk)
    assert not any(isinstance(module, SharedBatchNorm) for module in trunk.modules())
    with pytest.raises(ValueError, match="BatchNorm1d"):
        share_batch_norm(nn.Sequential(nn.BatchNorm1d(2)))
