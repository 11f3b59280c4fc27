"""A training small enough for tests, which may kill its process."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.knobs import Optimisation
from models.task import Batch, Part, Task, Terms
from pipeline.run.resume import resume_folder
from pipeline.run.runtime import Machine
from pipeline.run.told import TrainingTold
from pipeline.training.loop import History, fit


class TinyConfig(Optimisation, TrainingTold):
    """The knobs of the loop, and the seed."""


SETTINGS = TinyConfig(
    optimiser="sgd",
    epochs=4,
    batch=4,
    lr=0.1,
    head_lr_factor=2.0,
    momentum=0.9,
    weight_decay=1e-3,
    warm_up=0.0,
    poly_power=0.9,
    seed=0,
)


class TinyNetwork(nn.Module):
    """A convolution, dropout (so that random state matters) and a head."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.body, self.dropout, self.head = nn.Conv2d(3, 4, 3), nn.Dropout(dropout), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.body(images).relu().mean((2, 3))))


class TinyDataset:
    """Eleven random images of two kinds, with noise as augmentation."""

    def __len__(self) -> int:
        return 11

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        colour = torch.full((3, 8, 8), float(index % 2))
        view = colour + torch.from_numpy(rng.normal(size=(3, 8, 8)).astype(np.float32))
        return {"image": view, "tags": torch.eye(2)[index % 2], "id": f"image {index}"}


class TinyTask(Task):
    """Learns the two kinds."""

    def __init__(self, network: TinyNetwork, settings: Optimisation) -> None:
        super().__init__(network, [Part(network, network.head, settings)])

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Terms]:
        loss = nn.functional.multilabel_soft_margin_loss(network(batch["image"]), batch["tags"])
        return loss, {"half": loss / 2}


def train(
    machine: Machine, settings: TinyConfig = SETTINGS, kill_after: int | None = None, dropout: float = 0.3
) -> tuple[TinyNetwork, History]:
    """Train in the current folder; die in the middle of the epoch after so many, where a number is given."""
    torch.manual_seed(settings.seed)
    network = TinyNetwork(dropout)
    with resume_folder("tiny", settings, []) as folder:
        if kill_after is not None:
            kill_when(folder / "checkpoint.pt", kill_after)
        task = TinyTask(network, settings)
        history = fit(task, TinyDataset(), settings, settings.seed, folder, machine)
    return network, history


def kill_when(checkpoint: Path, epochs: int) -> None:
    """SIGKILL this process in the middle of the epoch after that many are on disk."""
    original = TinyDataset.sample

    def sample(self: TinyDataset, index: int, rng: np.random.Generator) -> dict[str, Any]:
        if checkpoint.exists() and len(torch.load(checkpoint, weights_only=True)["history"]) >= epochs:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, index, rng)

    TinyDataset.sample = sample  # type: ignore[method-assign]


def digest(network: nn.Module) -> str:
    """Hash of all weights."""
    values = b"".join(value.numpy().tobytes() for value in network.state_dict().values())
    return hashlib.sha256(values).hexdigest()
