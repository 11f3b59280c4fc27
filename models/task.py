"""The seam between methods and the training loop: what is trained, by which loss, and what comes of it.

A method's `task.py` has `tasks(start)`, which gives one `Task` after the other; the loop trains each of them. Here is
no file access: `Start` hands over what the method needs from disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from torch import Tensor, nn

from models.amn.knobs import StaticLabels
from models.knobs import MethodKnobs, Rates
from models.localizer import Localizer

Batch = dict[str, Any]
Terms = dict[str, Tensor]
Views = Literal["tagged", "labelled", "three", "salient"]
K = TypeVar("K", bound=MethodKnobs)


@dataclass(frozen=True)
class Part:
    """A part of a network that an optimiser of its own trains.

    Attributes:
        network: the part.
        head: what of it learns `head_lr_factor` times faster.
        rates: learning rate and so on.
    """

    network: nn.Module
    head: nn.Module
    rates: Rates


class Pretrained(Protocol):
    """A network or trunk that ImageNet weights can be loaded into."""

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict; ValueError where it does not fit."""


class Sampling(NamedTuple):
    """Where some cells read their features, (cells, taps, 2) row and column in pixels of a view: for a picture."""

    before: Tensor
    after: Tensor


class Progress(NamedTuple):
    """Where a training stands; all counts from 0.

    Attributes:
        epoch: which pass over the photographs.
        step: which step of it.
        steps: how many a whole pass has.
        total: how many the training has.
    """

    epoch: int
    step: int
    steps: int
    total: int

    @property
    def done(self) -> float:
        """The share of the training that has been done at the end of this step."""
        return (self.epoch * self.steps + self.step + 1) / self.total


class Task:
    """One training: a network, what of it learns at which rates, and a loss.

    Attributes:
        network: trained in place.
        parts: what learns; a parameter belongs to the last part that has it.
        name: of its checkpoints, where a method has several trainings; its seed depends on it.
        views: what it learns from: `tagged` views with tags; `labelled` ones with pixel labels too; `three` views of
            each photograph (token contrast); `salient` ones with saliency too.
        static_labels: how the pixel labels of `labelled` views are made from the classifier's maps; None: it makes
            labels of its own, and those of the views say only what is photograph and what is padding.
        partial: steps may leave out some of what learns, which several processes must know.
    """

    name = ""
    views: Views = "tagged"
    static_labels: StaticLabels | None = None
    partial = False

    def __init__(self, network: nn.Module, parts: Sequence[Part]) -> None:
        self.network, self.parts = network, parts

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Terms]:
        """The loss of a batch and the terms to log; `network` is the task's, perhaps wrapped for several processes."""
        raise TypeError(f"{type(self).__name__} has no loss")

    def after_step(self, progress: Progress) -> None:
        """Called after each step of the optimisers."""

    def after_epoch(self, epoch: int) -> dict[str, float]:
        """Called after each epoch, before its checkpoint; gives further columns of the history."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a continued run must know besides the network: tensors and builtins."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""


class LocalizerTask(Task):
    """A training whose result gives activation maps."""

    def result(self) -> tuple[Localizer, dict[str, Any]]:
        """What is kept, and its description for `models.build`."""
        raise TypeError(f"{type(self).__name__} has no result")

    def tracked(self) -> Mapping[str, Localizer]:
        """Networks whose maps of a few photographs are kept after every epoch, by name."""
        return {}

    @property
    def track(self) -> int:
        """Of how many photographs."""
        return 0

    def sampling(self, view: Tensor) -> Sampling | None:
        """Where cells of a normalised view (1, 3, H, W) read their features; None for networks without samplers."""
        return None


@dataclass(frozen=True)
class Start:
    """What a second training starts from.

    Attributes:
        groups: the groups of knobs that it reads, by name, as they were told.
        rates: of the training's common knobs.
        epochs: how long it trains.
        classes: number of foreground classes.
        classifier: description of the trained classifier.
        classifier_state: gives its weights.
        load_pretrained: loads initial weights into a network or trunk, given the name of the trunk and the knob
            `weights`.
        saliency: whether there are saliency maps.
    """

    groups: Mapping[str, Any]
    rates: Rates
    epochs: int
    classes: int
    classifier: Mapping[str, Any]
    classifier_state: Callable[[], Mapping[str, Tensor]]
    load_pretrained: Callable[[Pretrained, str, str], None]
    saliency: bool = False

    def knobs(self, name: str, group: type[K]) -> K:
        """A group of knobs, checked."""
        return group.model_validate(self.groups[name])
