"""The training loop that all training stages share: optimisers, number formats, several processes, exact resume."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from models.knobs import Optimisation
from models.schedules import warm_poly_rate
from models.task import Batch, Part, Progress, Task
from pipeline.run.errors import UserError
from pipeline.run.resume import load_checkpoint, save_checkpoint
from pipeline.run.runtime import Machine, barrier, derived_seed, generator, rank, world_size
from pipeline.training.batch_norm import share_batch_norm

History = list[dict[str, float]]


class Samples(Protocol):
    """What is trained on; a random view depends on the generator alone, not on the order of calls."""

    def __len__(self) -> int:
        """How many samples there are."""

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """One sample: tensors, and the image's id under `id`."""


class _SeededViews(Dataset[dict[str, Any]]):
    """Items are (epoch, index), so that worker processes need no state of their own."""

    def __init__(self, dataset: Samples, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        epoch, index = item
        return self.dataset.sample(index, generator("view", self.seed, epoch, index))


def epoch_batches(count: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """The indices of each global batch of an epoch: a permutation, its last batch filled up from its start."""
    batch = min(batch, count)
    order = generator("order", seed, epoch).permutation(count)
    steps = math.ceil(count / batch)
    return np.resize(order, steps * batch).reshape(steps, batch).tolist()


@dataclass
class _State:
    """What a checkpoint holds."""

    task: Task
    optimisers: list[torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    path: Path
    history: History = field(default_factory=list)

    def load(self) -> None:
        """Continue from the checkpoint, where there is one."""
        if (state := load_checkpoint(self.path)) is None:
            return
        self.task.network.load_state_dict(state["network"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.scaler.load_state_dict(state["scaler"])
        self.task.load_state_dict(state["task"])
        self.history = state["history"]

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "network": self.task.network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "scaler": self.scaler.state_dict(),
            "task": self.task.state_dict(),
            "history": self.history,
        }
        save_checkpoint(self.path, state)


def fit(
    task: Task,
    dataset: Samples,
    settings: Optimisation,
    seed: int,
    folder: Path,
    machine: Machine,
    after_epoch: Callable[[int], None] | None = None,
) -> History:
    """Train a task's network; continue from the last checkpoint.

    An epoch depends only on (seed, epoch) and the weights before it, so a run that was killed and continued ends
    with the same weights as one that was not.

    Args:
        task: what to train; its network is moved to the device in use, and is in evaluation mode at the end.
        dataset: what to train on.
        settings: length, and batch over all processes; the task's parts have the rates.
        seed: of order, views and dropout.
        folder: where the checkpoint lives.
        machine: device, number format, workers.
        after_epoch: called with each epoch's number (from 0) before its checkpoint.

    Returns:
        One row for each epoch: epoch, learning rate, mean loss and terms.

    Raises:
        UserError: the loss is not finite, or the batch does not divide among the processes and their parts.
    """
    network, steps = task.network, steps_of(settings, len(dataset))
    total = min(settings.epochs * steps, settings.max_steps or settings.epochs * steps)
    epochs = math.ceil(total / steps)
    network.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    scaler = torch.amp.GradScaler(machine.device.type, enabled=machine.precision == "float16")
    state = _State(task, _optimisers(network, task.parts), scaler, folder / "checkpoint.pt")
    state.load()
    if state.history and rank() == 0:
        print(f"continuing after epoch {len(state.history)} of {epochs}", flush=True)
    network.train()
    trained = _shared(task, machine.device)
    loader = _loader(dataset, settings, seed, range(len(state.history), epochs), machine.workers)
    for epoch in range(len(state.history), epochs):
        torch.manual_seed(derived_seed("epoch", seed, epoch, rank()))
        row = _epoch(state, trained, loader, Progress(epoch, 0, steps, total), settings.accumulate, machine)
        _check_weights(network, state, epoch)
        if after_epoch is not None:
            after_epoch(epoch)
            network.train()
        state.history.append(row | task.after_epoch(epoch))
        if rank() == 0:
            print("  ".join(f"{k} {v:.4g}" for k, v in state.history[-1].items()), flush=True)
            state.save()
        barrier()
    network.eval()
    return state.history


def steps_of(settings: Optimisation, count: int) -> int:
    """Steps of a pass over so many photographs.

    Raises:
        UserError: a batch does not divide among the processes, or a process's share not into its parts.
    """
    batch, shares = min(settings.batch, count), world_size() * settings.accumulate
    if batch % shares:
        raise UserError(
            f"a batch of {batch} does not divide among {world_size()} processes of {settings.accumulate} parts each; "
            "change batch, accumulate or processes"
        )
    return math.ceil(count / batch)


def _shared(task: Task, device: torch.device) -> nn.Module:
    """The task's network, in training mode; wrapped where several processes train it."""
    if world_size() == 1:
        return task.network
    share_batch_norm(task.network)
    devices = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(task.network, device_ids=devices, find_unused_parameters=task.partial)


def _epoch(
    state: _State,
    trained: nn.Module,
    loader: Iterator[Batch],
    start: Progress,
    parts: int,
    machine: Machine,
) -> dict[str, float]:
    """Train for an epoch, of which the last may be cut short; its row of the history."""
    epoch, first = start.epoch, start.epoch * start.steps
    steps = min(start.steps, start.total - first)
    sums: dict[str, Tensor] = {}
    for step in tqdm(range(steps), desc=f"epoch {epoch + 1}", leave=False, disable=True if rank() else None):
        batch = _to_device(_next(loader, machine.workers), machine.device)
        for optimiser in state.optimisers:
            _set_rates(optimiser, first + step, start.total)
        state.task.network.zero_grad(set_to_none=True)
        for part in _parts(batch, parts):
            with machine.autocast():
                loss, terms = state.task.loss(trained, part)
            if not torch.isfinite(loss):
                _stop_on_loss(loss, epoch, step, part, state)
            state.scaler.scale(loss / parts).backward()
            for name, value in {"loss": loss, **terms}.items():
                sums[name] = sums.get(name, torch.zeros((), device=machine.device)) + value.detach().float()
        for optimiser in state.optimisers:
            state.scaler.step(optimiser)
        state.scaler.update()
        state.task.after_step(start._replace(step=step))
        machine.step_done()
    row = {"epoch": epoch + 1, "lr": state.optimisers[0].param_groups[0]["lr"]}
    return row | {name: value.item() / (steps * parts) for name, value in sums.items()}


def _parts(batch: Batch, count: int) -> Iterator[Batch]:
    """A batch in so many parts of equal size."""
    size = len(batch["image"]) // count
    for start in range(0, count * size, size):
        yield {name: values[start : start + size] for name, values in batch.items()}


def _optimisers(network: nn.Module, parts: Sequence[Part]) -> list[torch.optim.Optimizer]:
    """One for each part, over what learns in it and in no later one."""
    owner = {id(parameter): number for number, part in enumerate(parts) for parameter in part.network.parameters()}
    optimisers: list[torch.optim.Optimizer] = []
    for number, part in enumerate(parts):
        mine = {name: p for name, p in network.named_parameters() if p.requires_grad and owner[id(p)] == number}
        groups, rates = _groups(mine, part), part.rates
        if rates.optimiser == "sgd":
            sgd = torch.optim.SGD(groups, lr=rates.lr, momentum=rates.momentum, weight_decay=rates.weight_decay)
            optimisers.append(sgd)
        else:
            adam = torch.optim.AdamW if rates.optimiser == "adamw" else torch.optim.Adam
            optimisers.append(adam(groups, lr=rates.lr, weight_decay=rates.weight_decay))
    return optimisers


def _groups(parameters: Mapping[str, nn.Parameter], part: Part) -> list[dict[str, Any]]:
    """The parameters before a part's head, and its head; of each the biases apart, where they learn otherwise."""
    rates, fast = part.rates, {id(parameter) for parameter in part.head.parameters()}
    apart = rates.biases == "caffe"
    shared = {"warm_up": rates.warm_up, "poly_power": rates.poly_power, "refresh": rates.refresh}
    groups: list[dict[str, Any]] = []
    for in_head, lr in ((False, rates.lr), (True, rates.lr * rates.head_lr_factor)):
        mine = {name: parameter for name, parameter in parameters.items() if (id(parameter) in fast) == in_head}
        biases = [parameter for name, parameter in mine.items() if apart and name.endswith("bias")]
        others = [parameter for name, parameter in mine.items() if not (apart and name.endswith("bias"))]
        groups.append({"params": others, "base_lr": lr} | shared)
        if apart:
            groups.append({"params": biases, "base_lr": 2 * lr, "weight_decay": 0.0} | shared)
    return groups


def _set_rates(optimiser: torch.optim.Optimizer, step: int, steps: int) -> None:
    """Give each group the learning rate of a 0-based step; it keeps that for `refresh` steps."""
    for group in optimiser.param_groups:
        warm = round(group["warm_up"] * steps)
        held = step - step % group["refresh"]
        group["lr"] = warm_poly_rate(held, group["base_lr"], steps, warm, power=group["poly_power"])


def _loader(dataset: Samples, settings: Optimisation, seed: int, epochs: range, workers: int) -> Iterator[Batch]:
    """This process's share of every batch of some epochs."""
    mine = slice(rank(), None, world_size())
    batches: Sequence[list[tuple[int, int]]] = [
        [(epoch, index) for index in indices[mine]]
        for epoch in epochs
        for indices in epoch_batches(len(dataset), settings.batch, seed, epoch)
    ]
    views = _SeededViews(dataset, seed)
    return iter(DataLoader(views, batch_sampler=batches, num_workers=workers // world_size()))


def _next(loader: Iterator[Batch], workers: int) -> Batch:
    """The next batch.

    Raises:
        UserError: a process that loads images was killed, or could not load one.
    """
    try:
        return next(loader)
    except UserError as error:  # one that a process has met comes with its traceback in the message
        raise UserError(str(error).rpartition(f"{UserError.__name__}: ")[2].strip()) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a process that loads images was killed, most often since memory ran out or /dev/shm is small; lower the "
            f"knob workers (now {workers})"
        ) from error


def _to_device(batch: Batch, device: torch.device) -> Batch:
    """Tensors to the device, images in the memory format that convolutions prefer."""
    moved = {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}
    moved["image"] = moved["image"].contiguous(memory_format=torch.channels_last)
    return moved


def _check_weights(network: nn.Module, state: _State, epoch: int) -> None:
    """Stop before a checkpoint holds weights that are not finite; the loss of the last step cannot tell.

    Raises:
        UserError: naming the first of them.
    """
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(
                f"the weights {name} are not finite after epoch {epoch + 1} (learning rates {_rates(state)}); "
                f"lower the learning rate.{_kept(state)}"
            )


def _rates(state: _State) -> str:
    """The present learning rates."""
    groups = [group for optimiser in state.optimisers for group in optimiser.param_groups]
    return ", ".join(f"{group['lr']:.3g}" for group in groups)


def _kept(state: _State) -> str:
    """Where the last good checkpoint is, as a sentence; nothing where there is none."""
    good = len(state.history)
    return f" The last good checkpoint, after epoch {good}, is {state.path}." if good else ""


def _stop_on_loss(loss: Tensor, epoch: int, step: int, batch: Batch, state: _State) -> NoReturn:
    """End the stage, naming what a person needs to find the cause."""
    raise UserError(
        f"the loss is {loss.item()} in epoch {epoch + 1}, step {step + 1} (learning rates {_rates(state)}; images "
        f"{', '.join(batch['id'])}); lower the learning rate or look at these images.{_kept(state)}"
    )
