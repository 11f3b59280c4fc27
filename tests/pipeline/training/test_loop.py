"""The training loop: schedule, order, resume after kill -9, bad losses, mixed precision, several processes."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.schedules import warm_poly_rate
from models.task import Batch, Part, Progress, Terms
from pipeline.run.errors import UserError
from pipeline.run.runtime import distributed
from pipeline.run.told import Runtime
from pipeline.training import loop
from pipeline.training.loop import epoch_batches
from tests.support.processes import forked, several
from tests.support.stages import LOCAL, here, write_runtime
from tests.support.tiny_training import SETTINGS, TinyDataset, TinyNetwork, TinyTask, digest, train


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_runtime(tmp_path)
    return tmp_path


def test_poly_at_half_is_the_published_value() -> None:
    assert warm_poly_rate(500, 1, 1000, warmup=0) == pytest.approx(0.5359, abs=1e-4)
    assert warm_poly_rate(0, 1, 1000, warmup=0) == 1


def test_every_example_once_per_epoch_and_full_batches() -> None:
    batches = epoch_batches(11, 4, seed=0, epoch=2)
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert sorted([index for batch in batches for index in batch][:11]) == list(range(11))
    assert epoch_batches(11, 4, 0, 2) == batches != epoch_batches(11, 4, 0, 3)
    assert len(epoch_batches(3, 16, 0, 0)[0]) == 3


def test_training_learns_and_repeats(workspace: Path) -> None:
    first, history = train(here())
    assert len(history) == SETTINGS.epochs and history[-1]["loss"] < history[0]["loss"]
    assert history[0]["half"] == pytest.approx(history[0]["loss"] / 2)
    other, _ = train(here(), SETTINGS.model_copy(update={"seed": 1}))
    shutil.rmtree(workspace / ".resume")
    again, _ = train(here())
    assert digest(first) == digest(again) != digest(other)


def test_workers_change_nothing(workspace: Path) -> None:
    alone, _ = train(here())
    write_runtime(workspace, workers=2)
    shutil.rmtree(workspace / ".resume")
    shared, _ = train(here())
    assert digest(alone) == digest(shared)


@pytest.mark.parametrize(("epochs", "optimiser"), [(1, "sgd"), (3, "sgd"), (2, "adamw"), (1, "adam")])
def test_killed_and_continued_equals_uninterrupted(
    workspace: Path, capfd: pytest.CaptureFixture[str], epochs: int, optimiser: str
) -> None:
    settings = SETTINGS.model_copy(update={"optimiser": optimiser})

    def trained(kill_after: int | None = None) -> str:
        return digest(train(here(), settings, kill_after)[0])

    whole = forked(trained)
    assert whole.status == 0
    shutil.rmtree(workspace / ".resume")
    killed = forked(lambda: trained(epochs))
    assert killed.status == -signal.SIGKILL and killed.value is None
    capfd.readouterr()
    continued = forked(trained)
    assert f"continuing after epoch {epochs} of 4" in capfd.readouterr().out
    assert continued.value == whole.value


def weights_of(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_parts_of_a_batch_add_up_to_the_whole(workspace: Path) -> None:
    whole = SETTINGS.model_copy(update={"batch": 10})
    trained = {}
    for parts in (1, 2):
        shutil.rmtree(workspace / ".resume", ignore_errors=True)
        trained[parts] = train(here(), whole.model_copy(update={"accumulate": parts}), dropout=0.0)
    (one, history), (two, accumulated) = trained[1], trained[2]
    assert torch.allclose(weights_of(one), weights_of(two), atol=1e-6)
    assert accumulated[-1]["loss"] == pytest.approx(history[-1]["loss"], rel=1e-5)
    assert accumulated[-1]["lr"] == history[-1]["lr"], "parts are no steps"


def test_last_pass_ends_with_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Progress] = []
    monkeypatch.setattr(TinyTask, "after_step", lambda self, progress: seen.append(progress))
    _, history = train(here(), SETTINGS.model_copy(update={"max_steps": 7}))
    assert [(at.epoch, at.step) for at in seen] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    assert len(history) == 3 and seen[-1].done == 1
    assert history[-1]["lr"] == pytest.approx(SETTINGS.lr * (1 / 7) ** 0.9)


def test_rates_stay_as_long_as_they_are_told_to() -> None:
    network = TinyNetwork()
    rates = SETTINGS.model_copy(update={"refresh": 10})
    (optimiser,) = loop._optimisers(network, [Part(network, network.head, rates)])
    held = []
    for step in (0, 9, 10, 19, 20):
        loop._set_rates(optimiser, step, 100)
        held.append(optimiser.param_groups[0]["lr"] / rates.lr)
    assert held == pytest.approx([1, 1, 0.9**0.9, 0.9**0.9, 0.8**0.9])


def test_biases_learn_twice_as_fast_without_decay_where_caffe_has_it_so() -> None:
    network = TinyNetwork()
    rates = SETTINGS.model_copy(update={"biases": "caffe", "head_lr_factor": 10.0})
    (optimiser,) = loop._optimisers(network, [Part(network, network.head, rates)])
    found = [(group["params"], group["base_lr"] / rates.lr, group["weight_decay"]) for group in optimiser.param_groups]
    body, head = network.body, network.head
    for (params, *_), own in zip(found, (body.weight, body.bias, head.weight, head.bias), strict=True):
        assert len(params) == 1 and params[0] is own
    assert [rest for _, *rest in found] == [[1, 1e-3], [2, 0], [10, 1e-3], [20, 0]]


def result() -> dict[str, Any]:
    """The weights and the last loss of a training in as many processes as the environment says."""
    with distributed(Runtime.model_validate(LOCAL)) as machine:
        network, history = train(machine)
    return {"weights": weights_of(network).tolist(), "loss": history[-1]["loss"]}


def test_two_processes_do_the_work_of_one(workspace: Path) -> None:
    one = forked(result).value
    shutil.rmtree(workspace / ".resume")
    ended = several(2, result)
    assert [process.status for process in ended] == [0, 0]
    two = ended[0].value
    assert two["weights"] == ended[1].value["weights"], "both have the same network"
    # Dropout draws differ between the ranks, so the weights are close to those of one process, not equal.
    assert torch.tensor(one["weights"]).sub(torch.tensor(two["weights"])).abs().max() < 0.2
    assert two["loss"] == pytest.approx(one["loss"], abs=0.2)


def accumulated() -> list[float]:
    """The weights of a training without dropout whose batches each process takes in two parts."""
    settings = SETTINGS.model_copy(update={"batch": 8, "accumulate": 2})
    with distributed(Runtime.model_validate(LOCAL)) as machine:
        return weights_of(train(machine, settings, dropout=0.0)[0]).tolist()


def test_two_processes_with_parts_do_the_work_of_one(workspace: Path) -> None:
    one = forked(accumulated).value
    shutil.rmtree(workspace / ".resume")
    for process in several(2, accumulated):
        assert process.value == pytest.approx(one, abs=1e-5)


def test_batch_that_does_not_divide_is_refused() -> None:
    def refusal() -> str:
        with pytest.raises(UserError) as caught:
            result()
        return str(caught.value)

    assert all("does not divide among 3 processes" in process.value for process in several(3, refusal))


def test_bfloat16_autocast_trains() -> None:
    network, history = train(here().computing_in("bfloat16"))
    assert history[-1]["loss"] < history[0]["loss"]
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_bad_loss_names_epoch_images_and_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = TinyTask.loss

    def poisoned(self: TinyTask, network: nn.Module, batch: Batch) -> tuple[Tensor, Terms]:
        value, terms = loss(self, network, batch)
        return (value * float("nan") if "image 3" in batch["id"] else value), terms

    monkeypatch.setattr(TinyTask, "loss", poisoned)
    with pytest.raises(UserError, match=r"epoch 1, step \d.*learning rates.*image 3"):
        train(here())


def test_weights_that_the_last_step_made_infinite_are_named(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    def poisoned(self: TinyTask, progress: Progress) -> None:
        if (progress.epoch, progress.step) == (1, progress.steps - 1):
            self.network.state_dict()["head.bias"][0] = float("inf")

    monkeypatch.setattr(TinyTask, "after_step", poisoned)
    with pytest.raises(
        UserError, match=r"the weights head\.bias are not finite after epoch 2 .* checkpoint, after epoch 1"
    ):
        train(here())
    (checkpoint,) = workspace.rglob("checkpoint.pt")
    assert all(torch.isfinite(value).all() for value in torch.load(checkpoint, weights_only=True)["network"].values())


def test_killed_loader_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    def die(self: TinyDataset, index: int, rng: np.random.Generator) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    monkeypatch.setattr(TinyDataset, "sample", die)
    write_runtime(workspace, workers=1)
    with pytest.raises(UserError, match=r"a process that loads images was killed.*workers \(now 1\)"):
        train(here())


def test_image_that_a_loader_cannot_read_is_said_in_its_own_sentence(
    monkeypatch: pytest.MonkeyPatch, workspace: Path
) -> None:
    def refuse(self: TinyDataset, index: int, rng: np.random.Generator) -> dict[str, Any]:
        raise UserError("a.png: not found; restore the file")

    monkeypatch.setattr(TinyDataset, "sample", refuse)
    for workers in (0, 1):
        write_runtime(workspace, workers=workers)
        with pytest.raises(UserError) as caught:
            train(here())
        assert str(caught.value) == "a.png: not found; restore the file"
