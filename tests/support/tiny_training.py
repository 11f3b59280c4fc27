"""A training small enough for tests, also run as a program so that it can be killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config.params import Optimisation
from pipeline.run.files import write_json
from pipeline.run.resume import resume_folder
from pipeline.run.runtime import distributed, rank
from pipeline.training.loop import Batch, fit


class TinyConfig(Optimisation):
    """The knobs of the loop, and the seed."""

    seed: int = 0


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
)


class TinyNetwork(nn.Module):
    """A convolution, dropout (so that random state matters) and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.dropout, self.head = nn.Conv2d(3, 4, 3), nn.Dropout(0.3), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.body(images).relu().mean((2, 3))))


class TinyExamples:
    """Eleven random images of two kinds, with noise as augmentation."""

    def __len__(self) -> int:
        return 11

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        colour = torch.full((3, 8, 8), float(index % 2))
        view = colour + torch.from_numpy(rng.normal(size=(3, 8, 8)).astype(np.float32))
        return {"image": view, "tags": torch.eye(2)[index % 2], "id": f"image {index}"}


def objective(network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    loss = nn.functional.multilabel_soft_margin_loss(network(batch["image"]), batch["tags"])
    if os.environ.get("POISON") and "image 3" in batch["id"]:
        loss = loss * float("nan")
    return loss, {"half": loss / 2}


def write_runtime(folder: Path, **changes: object) -> None:
    """What `configure` writes for stages to run here."""
    base = {"root": ".", "device": "cpu", "precision": "float32", "processes": 1, "workers": 0}
    write_json(folder / "data/config/runtime.json", base | changes)


def train(seed: int = 0) -> tuple[TinyNetwork, list[dict[str, float]]]:
    """Train in the current folder."""
    optimiser = os.environ.get("OPTIMISER", SETTINGS.optimiser)
    settings = SETTINGS.model_copy(update={"seed": seed, "optimiser": optimiser})
    torch.manual_seed(seed)
    network = TinyNetwork()
    with resume_folder("tiny", settings, []) as folder:
        if os.environ.get("KILL_AFTER"):
            kill_when(folder / "checkpoint.pt", int(os.environ["KILL_AFTER"]))
        history = fit(network, network.head, objective, TinyExamples(), settings, seed, folder)
    return network, history


def kill_when(checkpoint: Path, epochs: int) -> None:
    """SIGKILL this process in the middle of the epoch after that many are on disk."""
    original = TinyExamples.example

    def example(self: TinyExamples, index: int, rng: np.random.Generator) -> dict[str, Any]:
        if checkpoint.exists() and len(torch.load(checkpoint, weights_only=True)["history"]) >= epochs:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, index, rng)

    TinyExamples.example = example  # type: ignore[method-assign]


def digest(network: nn.Module) -> str:
    """Hash of all weights."""
    values = b"".join(value.numpy().tobytes() for value in network.state_dict().values())
    return hashlib.sha256(values).hexdigest()


if __name__ == "__main__":
    with distributed():
        trained, rows = train(int(os.environ.get("SEED", "0")))
        if rank() == 0:
            weights = torch.cat([p.detach().flatten() for p in trained.parameters()]).tolist()
            print("RESULT " + json.dumps({"digest": digest(trained), "weights": weights, "loss": rows[-1]["loss"]}))
