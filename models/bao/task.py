"""The training of BAO: an online network learns the labels of its target, which follows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn

from models.bao.knobs import BaoKnobs
from models.bao.network import BaoNetwork, bao_loss, target_labels
from models.bao.target import (
    Phase,
    RiseSwitch,
    TargetSchedule,
    disagreement,
    foreground_share,
    target_of,
    update_target,
)
from models.labels import IGNORE
from models.localizer import Localizer
from models.maps import nearest
from models.task import Batch, LocalizerTask, Part, Progress, Start, Terms

SWITCH_PATIENCE = 2  # epochs in a row whose labels must cover more than the least before, to switch by itself


def tasks(start: Start) -> Iterator[LocalizerTask]:
    """The one training of BAO; with static labels there is no target (the paper's figure 4, AMN)."""
    knobs = start.knobs("bao", BaoKnobs)
    online = BaoNetwork(start.classifier, knobs.head)
    online.base.load_state_dict(start.classifier_state())
    description = {"network": "bao", "classifier": start.classifier, "kind": knobs.head}
    kind = StaticTask if knobs.label_source == "static" else SelfTrainingTask
    yield kind(online, knobs, start, description)


class StaticTask(LocalizerTask):
    """BAO's online network on static labels: the network that learns is the result."""

    views = "labelled"

    def __init__(self, online: BaoNetwork, knobs: BaoKnobs, start: Start, description: dict[str, Any]) -> None:
        super().__init__(online, [Part(online, online.head, start.rates)])
        self.online, self.knobs, self.description = online, knobs, description
        self.static_labels = knobs

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Terms]:
        """Loss of tags and pixel labels."""
        total, terms, _ = self._losses(network, batch, self.labels(batch))
        return total, terms

    def _losses(self, network: nn.Module, batch: Batch, labels: Tensor) -> tuple[Tensor, Terms, Tensor]:
        """The loss, its terms, and the online network's own foreground maps."""
        logits, activation_map, cam = network(batch["image"], batch["tags"])
        losses = bao_loss(
            logits.float(), activation_map.float(), labels, batch["tags"], self.knobs.pixel_weight, self.knobs
        )
        terms = {"tags": losses.tags, "background": losses.bg, "foreground": losses.fg}
        return losses.total, terms | {"foreground_share": foreground_share(labels)}, cam

    def labels(self, batch: Batch) -> Tensor:
        """The batch's pixel labels on the grid."""
        stride = self.online.stride
        return nearest(batch["labels"], [-(-side // stride) for side in batch["labels"].shape[1:]])

    def result(self) -> tuple[Localizer, dict[str, Any]]:
        """The online network."""
        return self.online, self.description

    def tracked(self) -> Mapping[str, Localizer]:
        """The online network alone."""
        return {"online": self.online}

    @property
    def track(self) -> int:
        """Of how many photographs maps are kept."""
        return self.knobs.track


class SelfTrainingTask(StaticTask):
    """BAO: a target labels the pixels without a threshold and follows the online network; the target is the result.

    Source: BAO, section 4; spec bao_transcam_amn 6.
    """

    def __init__(self, online: BaoNetwork, knobs: BaoKnobs, start: Start, description: dict[str, Any]) -> None:
        super().__init__(online, knobs, start, description)
        self.static_labels = None
        self.target = target_of(online)
        phases = tuple(Phase(*phase) for phase in knobs.phases())
        base, final = knobs.momentum
        self.schedule = TargetSchedule(phases, start.epochs, base, final, knobs.momentum_restart)
        self.automatic = any(phase.mode == "auto" for phase in phases)
        self.switch: RiseSwitch | None = None
        self.saved_switch: dict[str, Any] | None = None
        self.foreground = torch.zeros(())

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Terms]:
        """Loss of tags and pixel labels of the online network, and how often both networks disagree."""
        labels = self.labels(batch)
        total, terms, cam = self._losses(network, batch, labels)
        self.foreground = terms["foreground_share"]
        return total, terms | {"disagreement": disagreement(labels, self.labels_of(cam, batch))}

    @torch.no_grad()
    def labels(self, batch: Batch) -> Tensor:
        """The target's pixel labels on the grid; the released target runs in training mode, with its own statistics."""
        self.target.to(batch["image"].device).train(self.knobs.reading == "released")
        return self.labels_of(self.target(batch["image"], batch["tags"]).cam, batch)

    def labels_of(self, cam: Tensor, batch: Batch) -> Tensor:
        """Pixel labels that foreground maps give; the released reading labels what lies outside the photograph too."""
        padding = None if self.knobs.reading == "released" else nearest(batch["labels"], cam.shape[2:]) == IGNORE
        constant = self.knobs.label_background
        background: Literal["one_minus_max"] | float = "one_minus_max" if constant is None else constant
        return target_labels(cam, batch["tags"], self.knobs.label_norm, background, padding)

    def after_step(self, progress: Progress) -> None:
        """Let the target follow, by the schedule."""
        epoch, step, steps, _ = progress
        if self.automatic:
            self._observe(steps)
        switched = self.switch is not None and self.switch.switched
        update = self.schedule.at(epoch, step, steps, switched)
        update_target(self.target, self.online, update, "own" if self.knobs.reading == "released" else "copy")

    def _observe(self, steps: int) -> None:
        """Feed the automatic switch: the labels' foreground swells once self-training goes wrong."""
        if self.switch is None:
            self.switch = RiseSwitch(steps, SWITCH_PATIENCE)
            if self.saved_switch is not None:
                self.switch.load_state_dict(self.saved_switch)
        self.switch.observe(mean_over_processes(self.foreground).item())

    def after_epoch(self, epoch: int) -> dict[str, float]:
        """Whether the automatic switch has fired."""
        return {} if self.switch is None else {"switched": float(self.switch.switched)}

    def result(self) -> tuple[Localizer, dict[str, Any]]:
        """The target."""
        return self.target, self.description

    def tracked(self) -> Mapping[str, Localizer]:
        """Both networks."""
        return {"online": self.online, "target": self.target}

    def state_dict(self) -> dict[str, Any]:
        """The target's weights and the switch."""
        switch = None if self.switch is None else self.switch.state_dict()
        return {"target": self.target.state_dict(), "switch": switch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with another target and switch."""
        self.target.load_state_dict(state["target"])
        self.saved_switch = state["switch"]


def mean_over_processes(value: Tensor) -> Tensor:
    """Mean of a tensor over all processes of a training, the same in each."""
    if not distributed.is_initialized():
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
