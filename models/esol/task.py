"""The two trainings of ESOL: an expansion sampler, then a shrinkage sampler, on the frozen classifier."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from models.esol.knobs import EsolKnobs, SamplingKnobs
from models.esol.network import SAMPLERS, EsolNetwork, SamplerName, esol_loss
from models.esol.sampling import sampled_positions
from models.localizer import Localizer
from models.task import Batch, LocalizerTask, Part, Sampling, Start, Terms

CELLS = 12  # along the grid's longer side that the picture of the sampler shows at most


def tasks(start: Start) -> Iterator[LocalizerTask]:
    """One training for each sampler, of the same network.

    Source: Li et al., NeurIPS 2022; what their text leaves open are the knobs `localizer.esol`.
    """
    knobs = start.knobs("esol", EsolKnobs)
    form = knobs.model_dump(include=set(SamplingKnobs.model_fields))
    network = EsolNetwork(start.classifier, form)
    network.base.load_state_dict(start.classifier_state())
    description = {"network": "esol", "classifier": start.classifier, "form": form}
    for name in SAMPLERS:
        network.learn(name)
        yield SamplerTask(network, name, knobs, start, description)


class SamplerTask(LocalizerTask):
    """The loss of one sampler; its own checkpoints, so that a sampler that has ended is not trained again."""

    def __init__(
        self, network: EsolNetwork, name: SamplerName, knobs: EsolKnobs, start: Start, description: dict[str, Any]
    ) -> None:
        super().__init__(network, [Part(network, network.get_submodule(f"{name}.branch"), start.rates)])
        self.own, self.sampler, self.knobs, self.description = network, name, knobs, description
        self.name = name
        if start.saliency and name == "shrinkage":
            self.views = "salient"

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Terms]:
        """The losses of the sampler."""
        return esol_loss(
            network(batch["image"], self.sampler), batch["tags"], self.sampler, self.knobs, batch.get("saliency")
        )

    def result(self) -> tuple[Localizer, dict[str, Any]]:
        """The classifier with both samplers."""
        return self.own, self.description

    def sampling(self, view: Tensor) -> Sampling | None:
        """Where cells, at most `CELLS` along the longer side, read their features before and after expansion."""
        offsets, _ = self.own.offsets(view)
        rows, columns = offsets.shape[2:]
        taps_beside = math.isqrt(offsets.shape[1] // 2)  # a 3 x 3 kernel reads its neighbours: show every third cell
        step = max(taps_beside, math.ceil(max(rows, columns) / CELLS))
        cells = [(row, column) for row in range(step // 2, rows, step) for column in range(step // 2, columns, step)]
        before, after = (
            sampled_positions(some, cells, self.own.stride)[0].cpu() for some in (torch.zeros_like(offsets), offsets)
        )
        return Sampling(before, after)
