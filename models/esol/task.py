"""The two trainings of rule esol: an expansion sampler, then a shrinkage sampler, on the frozen classifier.

Each stage has a checkpoint folder of its own, so a stage that has ended is not trained again after a kill in the next.
"""

from __future__ import annotations

import math
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.bao.task import CLASSIFIER
from models.esol.network import STAGES, EsolLossForm, EsolNetwork, Stage, esol_loss
from models.esol.sampling import SamplingForm, sampled_positions
from models.registry import CLASSIFIERS
from pipeline.config.params import Esol, TrainLocalizerConfig
from pipeline.data.dataset import Photographs, TaggedExamples, resized_view
from pipeline.data.images import SMALLEST_SIDE, resize_image, scaled_size
from pipeline.data.manifest import Manifest, load_manifest
from pipeline.run.errors import UserError
from pipeline.run.files import new_folder, read_json
from pipeline.run.runtime import derived_seed, pick_device, rank
from pipeline.scoring.charts import save_sampling
from pipeline.training.loop import Batch, History, fit
from pipeline.training.weights import load_network, save_network

CELLS = 12  # along the grid's longer side that the picture of the sampler shows at most


def train_esol(config: TrainLocalizerConfig, folder: Path) -> History:
    """Train both samplers, one after the other; the history has the epochs of both.

    Source: Li et al., NeurIPS 2022; what their text leaves open are the knobs `localizer.esol`.
    """
    knobs = config.esol
    assert knobs is not None
    manifest = load_manifest().split("train")
    torch.manual_seed(derived_seed("localizer", config.seed))
    network, description = build_network(knobs)
    examples = TaggedExamples(manifest, config.augmentation, (network.backbone.mean, network.backbone.std))
    history: History = []
    for stage in STAGES:
        network.learn(stage)
        branch = network.get_submodule(f"{stage}.branch")
        objective = partial(esol_objective, stage, EsolLossForm(**knobs_of(EsolLossForm, knobs)))
        settings, seed = config.optimisation, derived_seed(stage, config.seed)
        rows = fit(network, branch, objective, examples, settings, seed, folder / stage)
        history += [row | {"epoch": row["epoch"] + len(history)} for row in rows]
    if rank() == 0:
        with new_folder(folder / "result") as output:
            save_network(output, network, description)
        with new_folder(folder / "plots") as plots:
            draw_sampling(network, manifest, config.augmentation.long_side[1], plots)
    return history


def knobs_of(form: type[SamplingForm] | type[EsolLossForm], knobs: Esol) -> dict[str, Any]:
    """Those knobs that a form has, by name."""
    return {field.name: getattr(knobs, field.name) for field in fields(form)}


def build_network(knobs: Esol) -> tuple[EsolNetwork, dict[str, Any]]:
    """The network on the trained classifier, its samplers still the identity, and its description.

    Raises:
        UserError: the classifier has no class activation maps of its own.
    """
    classifier = read_json(CLASSIFIER / "network.json", "train_classifier")
    form = knobs_of(SamplingForm, knobs)
    try:
        network = EsolNetwork(classifier, form)
    except ValueError as error:
        raise UserError(f"localizer.rule = esol: {error}; choose method cam's classifier") from error
    trained = load_network(CLASSIFIER, CLASSIFIERS, "train_classifier")
    network.base.load_state_dict(trained.state_dict())
    return network, {"network": "esol", "classifier": classifier, "form": form}


def esol_objective(
    stage: Stage, form: EsolLossForm, trained: nn.Module, batch: Batch
) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses of a stage; `trained` is the network, perhaps wrapped for several processes."""
    return esol_loss(trained(batch["image"], stage), batch["tags"], stage, form)


def draw_sampling(network: EsolNetwork, manifest: Manifest, long_side: int, folder: Path) -> None:
    """Draw where cells of one photograph, the first that has a tag, read their features before and after expansion.

    Args:
        network: trained, in evaluation mode.
        manifest: the training photographs.
        long_side: longer side of the view that is drawn.
        folder: where `sampling.csv` and `sampling.png` go.
    """
    record = next((record for record in manifest.records if record.tags), manifest.records[0])
    photograph, size = Photographs(manifest).read(record), scaled_size(record.size, long_side, SMALLEST_SIDE)
    view = resized_view(photograph, size, (network.backbone.mean, network.backbone.std))[None]
    offsets, _ = network.offsets(view.to(pick_device()))
    rows, columns = offsets.shape[2:]
    taps_beside = math.isqrt(offsets.shape[1] // 2)  # a 3 x 3 kernel reads its neighbours: show every third cell
    step = max(taps_beside, math.ceil(max(rows, columns) / CELLS))
    cells = [(row, column) for row in range(step // 2, rows, step) for column in range(step // 2, columns, step)]
    before, after = (
        sampled_positions(some, cells, network.stride)[0].cpu().numpy() for some in (torch.zeros_like(offsets), offsets)
    )
    save_sampling(folder, resize_image(photograph, size), before, after, f"expansion on {record.id}")
