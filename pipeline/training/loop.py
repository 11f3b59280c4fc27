"""The training loop that all training stages share: SGD or AdamW, mixed precision, several processes, exact resume."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from models.schedules import warm_poly_rate
from pipeline.config.params import Optimisation, Rates, Runtime, stage_config
from pipeline.run.errors import UserError
from pipeline.run.resume import load_checkpoint, save_checkpoint
from pipeline.run.runtime import barrier, derived_seed, generator, pick_device, rank, world_size

Batch = dict[str, Any]
History = list[dict[str, float]]
Objective = Callable[[nn.Module, Batch], tuple[Tensor, dict[str, Tensor]]]


class Examples(Protocol):
    """Training examples; a random view depends on the generator alone, not on the order of calls."""

    def __len__(self) -> int:
        """How many there are."""

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """One example: tensors, and the image's id under `id`."""


class Companion:
    """What else a training changes beside its network: nothing. Trainings that need more override some of it."""

    def after_step(self, epoch: int, step: int, steps: int) -> None:
        """Called after each step of the optimiser; all counts from 0."""

    def after_epoch(self, epoch: int) -> dict[str, float]:
        """Called after each epoch, before its checkpoint; further columns of the history."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a continued run must know: tensors and builtins."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""


@dataclass(frozen=True)
class Branch:
    """A part of a network that an optimiser of its own trains.

    Attributes:
        network: the part.
        head: what of it learns `head_lr_factor` times faster.
        rates: learning rate and so on.
    """

    network: nn.Module
    head: nn.Module
    rates: Rates


class _SeededViews(Dataset[dict[str, Any]]):
    """Items are (epoch, index), so that worker processes need no state of their own."""

    def __init__(self, examples: Examples, seed: int) -> None:
        self.examples, self.seed = examples, seed

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        epoch, index = item
        return self.examples.example(index, generator("view", self.seed, epoch, index))


def epoch_batches(count: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """The indices of each global batch of an epoch: a permutation, its last batch filled up from its start."""
    batch = min(batch, count)
    order = generator("order", seed, epoch).permutation(count)
    steps = math.ceil(count / batch)
    return np.resize(order, steps * batch).reshape(steps, batch).tolist()


def precision(device: torch.device) -> torch.dtype:
    """The number format of forward passes: the knob `precision`, or on `auto` a 16-bit one on CUDA alone."""
    wanted = stage_config("runtime", Runtime).precision
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision for forward passes, where `precision` says so."""
    dtype = precision(device)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def fit(
    network: nn.Module,
    head: nn.Module,
    objective: Objective,
    examples: Examples,
    settings: Optimisation,
    seed: int,
    folder: Path,
    companion: Companion | None = None,
    branches: Sequence[Branch] = (),
    partial: bool = False,
) -> History:
    """Train a network with the polynomial schedule (power 0: a constant rate); continue from the last checkpoint.

    An epoch depends only on (seed, epoch) and the weights before it, so a run that was killed and continued ends
    with the same weights as one that was not.

    Args:
        network: trained in place; moved to the device in use.
        head: the part of it that learns `head_lr_factor` times faster.
        objective: network and batch to the loss and the terms to log.
        examples: what to train on.
        settings: epochs, batch over all processes, learning rates, and so on.
        seed: of order, views and dropout.
        folder: where the checkpoint lives.
        companion: what else changes in training, kept in the checkpoint too.
        branches: parts of the network with rates of their own; `settings` has those of the rest.
        partial: steps may leave out some of what learns, which several processes must know.

    Returns:
        One row for each epoch: epoch, learning rate, mean loss and terms.

    Raises:
        UserError: the loss is not finite, or the batch does not divide among the processes.
    """
    device, count = pick_device(), len(examples)
    batch = min(settings.batch, count)
    if batch % world_size():
        raise UserError(f"a batch of {batch} does not divide among {world_size()} processes; change batch or processes")
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimisers = _optimisers(network, [Branch(network, head, settings), *branches])
    scaler = torch.amp.GradScaler(device.type, enabled=precision(device) == torch.float16)
    companion = companion or Companion()
    history: History = []
    checkpoint = folder / "checkpoint.pt"
    if (state := load_checkpoint(checkpoint)) is not None:
        network.load_state_dict(state["network"])
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        scaler.load_state_dict(state["scaler"])
        companion.load_state_dict(state["companion"])
        history = state["history"]
        if rank() == 0:
            print(f"continuing after epoch {len(history)} of {settings.epochs}", flush=True)
    trained = network
    if world_size() > 1:
        devices = [device.index] if device.type == "cuda" else None
        trained = DistributedDataParallel(network, device_ids=devices, find_unused_parameters=partial)
    network.train()
    loader = _loader(examples, settings, seed, first_epoch=len(history))
    steps = math.ceil(count / batch)
    for epoch in range(len(history), settings.epochs):
        torch.manual_seed(derived_seed("epoch", seed, epoch, rank()))
        sums: dict[str, Tensor] = {}
        progress = tqdm(range(steps), desc=f"epoch {epoch + 1}", leave=False, disable=True if rank() else None)
        for step in progress:
            data = _to_device(next(loader), device)
            for optimiser in optimisers:
                _set_rates(optimiser, epoch * steps + step, settings.epochs * steps)
            with autocast(device):
                loss, terms = objective(trained, data)
            if not torch.isfinite(loss):
                _stop_on_loss(loss, epoch, step, data, optimisers, checkpoint, len(history))
            network.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            for optimiser in optimisers:
                scaler.step(optimiser)
            scaler.update()
            companion.after_step(epoch, step, steps)
            for name, value in {"loss": loss, **terms}.items():
                sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach().float()
        row = {"epoch": epoch + 1, "lr": optimisers[0].param_groups[0]["lr"]}
        row |= {k: v.item() / steps for k, v in sums.items()}
        row |= companion.after_epoch(epoch)
        history.append(row)
        if rank() == 0:
            print("  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
            save_checkpoint(
                checkpoint,
                {
                    "network": network.state_dict(),
                    "optimisers": [optimiser.state_dict() for optimiser in optimisers],
                    "scaler": scaler.state_dict(),
                    "companion": companion.state_dict(),
                    "history": history,
                },
            )
        barrier()
    network.eval()
    return history


def _optimisers(network: nn.Module, branches: Sequence[Branch]) -> list[torch.optim.Optimizer]:
    """One for each branch, over what learns in it and in no later one: before its head, and the head."""
    owner = {
        id(parameter): number for number, branch in enumerate(branches) for parameter in branch.network.parameters()
    }
    optimisers: list[torch.optim.Optimizer] = []
    for number, (head, rates) in enumerate((branch.head, branch.rates) for branch in branches):
        fast = {id(parameter) for parameter in head.parameters()}
        mine = [p for p in network.parameters() if p.requires_grad and owner[id(p)] == number]
        shared = {"warm_up": rates.warm_up, "poly_power": rates.poly_power}
        groups = [
            {"params": [p for p in mine if id(p) not in fast], "base_lr": rates.lr} | shared,
            {"params": [p for p in mine if id(p) in fast], "base_lr": rates.lr * rates.head_lr_factor} | shared,
        ]
        if rates.optimiser == "adamw":
            optimisers.append(torch.optim.AdamW(groups, lr=rates.lr, weight_decay=rates.weight_decay))
        else:
            sgd = torch.optim.SGD(groups, lr=rates.lr, momentum=rates.momentum, weight_decay=rates.weight_decay)
            optimisers.append(sgd)
    return optimisers


def _set_rates(optimiser: torch.optim.Optimizer, step: int, steps: int) -> None:
    """Give each group the learning rate of a 0-based step."""
    for group in optimiser.param_groups:
        warm = round(group["warm_up"] * steps)
        group["lr"] = warm_poly_rate(step, group["base_lr"], steps, warm, power=group["poly_power"])


def _loader(examples: Examples, settings: Optimisation, seed: int, first_epoch: int) -> Iterator[Batch]:
    """This process's share of every batch of all epochs that are left."""
    mine = slice(rank(), None, world_size())
    batches: Sequence[list[tuple[int, int]]] = [
        [(epoch, index) for index in indices[mine]]
        for epoch in range(first_epoch, settings.epochs)
        for indices in epoch_batches(len(examples), settings.batch, seed, epoch)
    ]
    workers = stage_config("runtime", Runtime).workers // world_size()
    return iter(DataLoader(_SeededViews(examples, seed), batch_sampler=batches, num_workers=workers))


def _to_device(batch: Batch, device: torch.device) -> Batch:
    """Tensors to the device, images in the memory format that convolutions prefer."""
    moved = {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}
    moved["image"] = moved["image"].contiguous(memory_format=torch.channels_last)
    return moved


def _stop_on_loss(
    loss: Tensor,
    epoch: int,
    step: int,
    data: Batch,
    optimisers: Sequence[torch.optim.Optimizer],
    checkpoint: Path,
    good: int,
) -> NoReturn:
    """End the stage, naming what a person needs to find the cause."""
    rates = ", ".join(f"{group['lr']:.3g}" for optimiser in optimisers for group in optimiser.param_groups)
    kept = f" The last good checkpoint, after epoch {good}, is {checkpoint}." if good else ""
    raise UserError(
        f"the loss is {loss.item()} in epoch {epoch + 1}, step {step + 1} (learning rates {rates}; images "
        f"{', '.join(data['id'])}); lower the learning rate or look at these images.{kept}"
    )
