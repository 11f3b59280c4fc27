"""The one-stage training of rule toco: ToCo, and the dual branch, which is ToCo beside a convolutional classifier.

Transformer, decoder and, if any, the convolutional branch learn together from tags. What is kept is the transformer's
side: its maps go to extract_cams, its decoder may be the segmenter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.dual_branch.modulation import Gaussian, ModulatedClassifier
from models.dual_branch.one_stage import Consistency, OneStage
from models.networks.vit import ToCoNetwork, load_encoder
from models.refine.par import PAR
from models.schedules import cosine_threshold
from models.toco.contrast import ContrastHeads
from models.toco.crops import mirror_views
from models.toco.labels import class_thresholds
from models.toco.losses import Compat, Recipe, Thresholds, Views, weighted_sum
from pipeline.config.params import Branch as BranchKnobs
from pipeline.config.params import Toco, TrainLocalizerConfig
from pipeline.data.manifest import load_manifest
from pipeline.data.three_views import ThreeViews
from pipeline.run.errors import UserError
from pipeline.run.files import new_folder
from pipeline.run.runtime import derived_seed, rank
from pipeline.training.loop import Batch, Branch, Companion, History, fit
from pipeline.training.weights import load_initial, save_network


def train_toco(config: TrainLocalizerConfig, folder: Path) -> History:
    """Train everything at once; the transformer with its decoder is the result.

    Source: Ru et al., CVPR 2023 (ToCo), and the dual-branch paper (doi:10.19651/j.cnki.emt.2416644).
    """
    knobs = config.toco
    assert knobs is not None
    manifest = load_manifest().split("train")
    torch.manual_seed(derived_seed("localizer", config.seed))
    model = build_model(config, knobs, len(manifest.classes))
    network = model.network
    training = OneStageTraining(knobs, config.optimisation.epochs, len(manifest.classes))
    examples = ThreeViews(manifest, config.augmentation, (network.mean, network.std))
    heads = [network.head, network.aux_head, network.decoder, model.contrast.student]
    new = nn.ModuleList([*heads, network.backbone.untrained()])
    branches = []
    if model.branch is not None:
        modulated = nn.ModuleList([model.branch.modulations, model.branch.head])
        branches = [Branch(model.branch, modulated, knobs.branch.rates)]
    settings, seed = config.optimisation, config.seed
    history = fit(model, new, training.objective, examples, settings, seed, folder, training, branches, partial=True)
    if rank() == 0:
        description = {"encoder": config.backbone, "classes": len(manifest.classes), "width": knobs.decoder_width}
        with new_folder(folder / "result") as output:
            save_network(output, network, {"network": "toco"} | description)
    return history


def build_model(config: TrainLocalizerConfig, knobs: Toco, classes: int) -> OneStage:
    """Everything that learns, with its initial weights; `knobs` are the rule's own of `config`.

    Raises:
        UserError: weights cannot be had, or the branches do not fit together.
    """
    network = ToCoNetwork(config.backbone, classes, knobs.decoder_width)
    load_initial(network.backbone, config.backbone, config.weights, load_encoder)
    consistency = Consistency(knobs.branch.consistency_norm, knobs.branch.consistency_spread, knobs.branch.leader)
    contrast = ContrastHeads(network.backbone.dim)
    try:
        return OneStage(network, contrast, build_branch(knobs.branch, classes), recipe_of(knobs), consistency)
    except ValueError as error:
        raise UserError(
            f"localizer.backbone = {config.backbone} and localizer.toco.branch.network = {knobs.branch.network} do not "
            f"go together: {error}; choose vit_base with resnet50, or a lite0 one with efficientnet_lite0"
        ) from error


def build_branch(knobs: BranchKnobs, classes: int) -> ModulatedClassifier | None:
    """The convolutional classifier with its initial weights, if the knobs ask for one."""
    if knobs.network is None:
        return None
    names = ("channel", "spatial", "combine", "merge", "reduction", "normalise", "residual")
    options: dict[str, Any] = {name: getattr(knobs, name) for name in names}
    gaussian = Gaussian(knobs.gaussian, knobs.statistics, knobs.unbiased, knobs.detach, scale=knobs.gate_scale)
    stages = knobs.stages if knobs.channel or knobs.spatial else []
    branch = ModulatedClassifier(knobs.network, classes, stages, gaussian=gaussian, **options)
    load_initial(branch.backbone, knobs.network, knobs.weights)
    return branch


def recipe_of(knobs: Toco) -> Recipe:
    """The settings of an iteration that the knobs describe."""
    return Recipe(
        crop_size=knobs.crop,
        crop_count=knobs.crops,
        scales=tuple(knobs.scales),
        temperature=knobs.temperature,
        label_source=knobs.label_source,
        par=PAR(tuple(knobs.dilations)),
        compat=Compat(**{name: name in knobs.compat for name in Compat.__dataclass_fields__}),
    )


class OneStageTraining(Companion):
    """What changes with the share of the training that is done: thresholds, and the losses that count.

    Args:
        knobs: of the rule.
        epochs: of the whole training.
        classes: without background.

    Raises:
        UserError: there are not as many thresholds as classes.
    """

    def __init__(self, knobs: Toco, epochs: int, classes: int) -> None:
        if knobs.high_of_classes is not None and len(knobs.high_of_classes) != classes:
            raise UserError(
                f"localizer.toco.high_of_classes has {len(knobs.high_of_classes)} thresholds for {classes} classes"
            )
        self.knobs, self.epochs, self.done = knobs, epochs, 0.0

    def objective(self, trained: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted losses of a batch; those that do not count yet are logged as 0."""
        flip_bug = "flip_bug" in self.knobs.compat
        first, local, boxes = mirror_views(batch["image"], batch["local"], batch["boxes"], flip_bug=flip_bug)
        views, weights = Views(first, batch["second"], local, batch["tags"], boxes), self.weights()
        losses = trained(views, self.thresholds(batch["tags"]), weights)
        total = weighted_sum(losses, weights)
        none = torch.zeros((), device=total.device)
        return total, {name: losses.get(name, none) for name in weights}

    def weights(self) -> dict[str, float]:
        """Weight of every loss now; 0 costs nothing."""
        knobs, branch = self.knobs, self.knobs.branch
        contrast = self.done >= knobs.contrast_start
        weights = {"tags": 1.0, "aux_tags": 1.0}
        weights |= {"ptc": knobs.ptc_weight, "ctc": knobs.ctc_weight} if contrast else {"ptc": 0.0, "ctc": 0.0}
        weights["masks"] = knobs.mask_weight if self.done >= knobs.mask_start else 0.0
        if branch.network is not None:
            together = self.done >= branch.consistency_start
            aux, final = branch.consistency_weights if together else (0.0, 0.0)
            weights |= {"branch_tags": 1.0, "aux_consistency": aux, "consistency": final}
        return weights

    def thresholds(self, tags: Tensor) -> Thresholds:
        """Background scores now: the high one moves where the knobs say so, elsewhere it keeps its first value."""
        start, end = self.knobs.high
        moving: float | Tensor = cosine_threshold(self.done, start, end, total=1)
        if self.knobs.high_of_classes is not None:
            ends = [cosine_threshold(self.done, start, value, total=1) for value in self.knobs.high_of_classes]
            moving = class_thresholds(torch.tensor(ends, device=tags.device), tags)
        uses: tuple[Literal["regions", "pairs", "masks"], ...] = ("regions", "pairs", "masks")
        return Thresholds(self.knobs.low, *(moving if use in self.knobs.high_moves else start for use in uses))

    def after_step(self, epoch: int, step: int, steps: int) -> None:
        """Count a step; with how many epochs there are, it becomes a share."""
        self.done = (epoch * steps + step + 1) / (self.epochs * steps)

    def state_dict(self) -> dict[str, Any]:
        """The share of the training that is done."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from that share."""
        self.done = state["done"]
