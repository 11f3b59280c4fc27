"""Batch normalisation over the batch of all processes, on any device (PyTorch's own knows GPUs alone)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class SharedBatchNorm(nn.BatchNorm2d):
    """Normalises by the mean and the variance of the whole batch, of which each process has a share."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) of this process, normalised; all processes must call it."""
        if not self.training:
            return super().forward(features)
        values = features.float()
        count = all_sum(values.new_tensor(values.numel() / values.shape[1]))
        mean = all_sum(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = all_sum(centred.square().sum((0, 2, 3))) / count
        self._keep(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        scaled = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            scaled = scaled * self.weight[:, None, None] + self.bias[:, None, None]
        return scaled.to(features.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics (C) towards those of a batch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


def all_sum(value: Tensor) -> Tensor:
    """The sum over all processes, through which gradients flow."""
    return cast(Tensor, all_reduce(value))


def share_batch_norm(network: nn.Module) -> None:
    """Let every batch normalisation of a network that learns its statistics see the batch of all processes.

    Raises:
        ValueError: one of another kind learns its statistics.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            if type(module) is not nn.BatchNorm2d:
                raise ValueError(f"{name} is a {type(module).__name__}, which is not shared among processes")
            module.__class__ = SharedBatchNorm  # the same weights, in whatever holds the module
