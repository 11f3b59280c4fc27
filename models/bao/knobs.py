"""Knobs of BAO: its target's labels, how the target follows, and which reading of the code."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from models.amn.knobs import SeedLossKnobs, StaticLabels
from models.knobs import Augmentation, Index, Maybe, NonNegative, Optimisation, Share, Shares, knob

TargetPhase = Annotated[str, Field(pattern=r"^\d+:(share|ema|freeze|auto)(:(iteration|epoch))?$", examples=["1:ema"])]
HeadKind = Literal["conv3x3", "conv1x1", "aspp"]


class BaoKnobs(StaticLabels, SeedLossKnobs):
    """The online network, its target and their labels."""

    pixel_weight: NonNegative = knob(1.0, "weight of the pixel labels beside the tags", "BAO (released)")
    label_source: Literal["online_target", "static"] = knob(
        "online_target", "online_target: the target's maps; static: the classifier's maps and the CRF, once"
    )
    label_norm: Literal["max", "minmax"] = knob(
        "max", "how maps are normalised before they become labels", "BAO (released)"
    )
    label_background: Annotated[Share | None, Maybe] = knob(
        None, "none (1 - the strongest class, no threshold) or a constant", "BAO (released, published)"
    )
    head: HeadKind = knob("conv3x3", "layer of the head behind label conditioning", "BAO (released)")
    reading: Literal["released", "clean"] = knob(
        "clean",
        "released: the target runs in training mode, with its own statistics, and padding is labelled; clean: neither",
    )
    target_schedule: Annotated[list[TargetPhase], Field(min_length=1)] = knob(
        ["0:share", "1:ema"],
        "from which epoch the target shares, averages (ema), freezes or decides (auto)",
        "BAO (released, published)",
    )
    momentum: Shares = knob(
        [0.9995, 1.0],
        "share of its weights that an averaging target keeps, first and last of a cosine",
        "BAO (released, published)",
    )
    momentum_restart: Literal["epoch", "none"] = knob(
        "epoch", "that cosine starts anew each epoch, or never (none)", "BAO (released)"
    )
    track: Index = knob(0, "photographs whose maps are kept after every epoch, for evaluate@localizer")

    @property
    def map_scales(self) -> Literal["none", "one", "all"]:
        """Static labels come from maps at all scales; tracked maps are made at one."""
        return "all" if self.label_source == "static" else "one"

    def check_training(self, optimisation: Optimisation, augmentation: Augmentation) -> None:
        """The schedule must start at epoch 0 and ascend within the training.

        Raises:
            ValueError: it does not.
        """
        starts = [phase[0] for phase in self.phases()]
        if self.label_source == "static":
            return
        if starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= optimisation.epochs:
            raise ValueError(
                f"localizer.bao.target_schedule = {', '.join(self.target_schedule)} must start at epoch 0 and ascend "
                f"below localizer.optimisation.epochs = {optimisation.epochs}; change either"
            )

    def phases(self) -> list[tuple[Any, ...]]:
        """The target's schedule as (from epoch, mode) or (from epoch, mode, every)."""
        words = [phase.split(":") for phase in self.target_schedule]
        return [(int(first), *others) for first, *others in words]
