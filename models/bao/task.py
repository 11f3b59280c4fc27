"""The second trainings, one for each rule of train_localizer."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.amn.balanced_seed_loss import SeedLossForm
from models.amn.network import AmnNetwork
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
from models.maps import nearest
from models.registry import CLASSIFIERS
from pipeline.config.params import TrainLocalizerConfig
from pipeline.data.dataset import LabelledExamples
from pipeline.data.manifest import Manifest, load_manifest
from pipeline.maps.confident_labels import ConfidencePair, write_labels
from pipeline.maps.extraction import extend_store
from pipeline.run.errors import UserError
from pipeline.run.files import new_folder, read_json
from pipeline.run.runtime import all_mean, barrier, derived_seed, pick_device, rank
from pipeline.training.loop import Batch, Companion, History, fit
from pipeline.training.weights import load_initial, load_network, save_network

CLASSIFIER = Path("data/classifier")
SWITCH_PATIENCE = 2  # epochs in a row whose labels must cover more than the least before, to switch by itself


def loss_form(config: TrainLocalizerConfig) -> SeedLossForm:
    """The balanced loss of pixel labels that the knobs describe."""
    return SeedLossForm(smoothing=config.smoothing, foreground_weight=config.foreground_weight)


def static_labels(config: TrainLocalizerConfig, manifest: Manifest, folder: Path) -> Path:
    """Pixel labels of all photographs from the classifier's maps and the CRF, made once; the folder of masks."""
    assert config.cams is not None, "the configuration gives the knobs of extraction to rules with static labels"
    network = load_network(CLASSIFIER, CLASSIFIERS, "train_classifier").to(pick_device()).eval()
    extend_store(network, manifest, config.cams, folder / "cams", "maps for pixel labels")
    barrier()
    labels = folder / "labels"
    if rank() == 0:
        foreground, background = config.confidence_pair
        pair = ConfidencePair("thresholds", (foreground, background), config.crf, config.max_side)
        write_labels(manifest, folder / "cams", pair, labels)
    barrier()
    return labels


# --------------------------------------------------------------------------------------------------------------- AMN


def train_amn(config: TrainLocalizerConfig, folder: Path) -> History:
    """Train AMN on static labels from the classifier's maps.

    Source: Lee et al., CVPR 2022; spec bao_transcam_amn 4.2.
    """
    manifest = load_manifest().split("train")
    labels = static_labels(config, manifest, folder)
    torch.manual_seed(derived_seed("localizer", config.seed))
    description = {"network": "amn", "backbone": config.backbone, "classes": len(manifest.classes)}
    network = AmnNetwork(config.backbone, len(manifest.classes))
    load_initial(network.backbone, config.backbone, config.weights)
    normalisation = (network.backbone.mean, network.backbone.std)
    examples = LabelledExamples(manifest, labels, config.augmentation, normalisation)
    objective = partial(amn_objective, network, loss_form(config))
    history = fit(network, network.head, objective, examples, config.optimisation, config.seed, folder)
    if rank() == 0:
        with new_folder(folder / "result") as output:
            save_network(output, network, description)
    return history


def amn_objective(
    network: AmnNetwork, form: SeedLossForm, trained: nn.Module, batch: Batch
) -> tuple[Tensor, dict[str, Tensor]]:
    """The balanced loss of the labels; `trained` is the network, perhaps wrapped for several processes."""
    return network.loss(trained(batch["image"], batch["tags"]), batch["labels"], form)


# --------------------------------------------------------------------------------------------------------------- BAO


def train_bao(config: TrainLocalizerConfig, folder: Path) -> History:
    """Train the online network on the labels of its target, which follows it; the target is the result.

    With static labels there is no target: the network that learns is the result (the paper's figure 4, AMN).

    Source: BAO, section 4; spec bao_transcam_amn 6.
    """
    manifest = load_manifest().split("train")
    static = config.label_source == "static"
    labels = static_labels(config, manifest, folder) if static else None
    torch.manual_seed(derived_seed("localizer", config.seed))
    classifier = read_json(CLASSIFIER / "network.json", "train_classifier")
    description = {"network": "bao", "classifier": classifier, "kind": config.am_head}
    try:
        online = BaoNetwork(classifier, config.am_head)
    except ValueError as error:
        raise UserError(f"localizer.rule = bao: {error}; choose method transcam's classifier") from error
    trained = load_network(CLASSIFIER, CLASSIFIERS, "train_classifier")
    online.base.load_state_dict(trained.state_dict())
    online.to(pick_device())
    training = SelfTraining(online, config, manifest, folder)
    normalisation = (online.backbone.mean, online.backbone.std)
    examples = LabelledExamples(manifest, labels, config.augmentation, normalisation)
    settings, seed = config.optimisation, config.seed
    history = fit(online, online.head, training.objective, examples, settings, seed, folder, training)
    if rank() == 0:
        with new_folder(folder / "result") as output:
            save_network(output, online if static else training.target, description)
            if (folder / "epochs").exists():
                shutil.copytree(folder / "epochs", output / "epochs")
    return history


class SelfTraining(Companion):
    """BAO's target network beside the online network: its labels, its updates, and maps after every epoch."""

    def __init__(self, online: BaoNetwork, config: TrainLocalizerConfig, manifest: Manifest, folder: Path) -> None:
        self.online, self.target = online, target_of(online)
        self.config, self.form = config, loss_form(config)
        self.tracked = Manifest(manifest.records[: config.track], manifest.classes)
        self.folder = folder
        phases = tuple(Phase(*phase) for phase in config.phases())
        base, final = config.momentum
        self.schedule = TargetSchedule(phases, config.optimisation.epochs, base, final, config.momentum_restart)
        self.automatic = any(phase.mode == "auto" for phase in phases)
        self.switch: RiseSwitch | None = None
        self.saved_switch: dict[str, Any] | None = None
        self.foreground = torch.zeros(())

    def objective(self, trained: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of tags and pixel labels of the online network; `trained` is it, perhaps wrapped."""
        labels = self.labels(batch)
        logits, activation_map, cam = trained(batch["image"], batch["tags"])
        losses = bao_loss(
            logits.float(), activation_map.float(), labels, batch["tags"], self.config.pixel_weight, self.form
        )
        self.foreground = foreground_share(labels)
        terms = {"tags": losses.tags, "background": losses.bg, "foreground": losses.fg}
        terms["foreground_share"] = self.foreground
        if self.config.label_source == "online_target":
            terms["disagreement"] = disagreement(labels, self.labels_of(cam, batch))
        return losses.total, terms

    @torch.no_grad()
    def labels(self, batch: Batch) -> Tensor:
        """Pixel labels on the grid: the target's, or the static ones of the batch.

        The released target runs in training mode, with statistics of its own.
        """
        if self.config.label_source == "static":
            stride = self.online.stride
            return nearest(batch["labels"], [-(-side // stride) for side in batch["labels"].shape[1:]])
        self.target.train(self.config.reading == "released")
        return self.labels_of(self.target(batch["image"], batch["tags"]).cam, batch)

    def labels_of(self, cam: Tensor, batch: Batch) -> Tensor:
        """Pixel labels that foreground maps give; the released reading labels what lies outside the photograph too."""
        padding = None if self.config.reading == "released" else nearest(batch["labels"], cam.shape[2:]) == IGNORE
        constant = self.config.label_background
        background: Literal["one_minus_max"] | float = "one_minus_max" if constant is None else constant
        return target_labels(cam, batch["tags"], self.config.label_norm, background, padding)

    def after_step(self, epoch: int, step: int, steps: int) -> None:
        """Let the target follow, by the schedule."""
        if self.config.label_source == "static":
            return
        if self.automatic:
            self._observe(steps)
        switched = self.switch is not None and self.switch.switched
        update = self.schedule.at(epoch, step, steps, switched)
        update_target(self.target, self.online, update, "own" if self.config.reading == "released" else "copy")

    def _observe(self, steps: int) -> None:
        """Feed the automatic switch: the labels' foreground swells once self-training goes wrong."""
        if self.switch is None:
            self.switch = RiseSwitch(steps, SWITCH_PATIENCE)
            if self.saved_switch is not None:
                self.switch.load_state_dict(self.saved_switch)
        self.switch.observe(all_mean(self.foreground).item())

    def after_epoch(self, epoch: int) -> dict[str, float]:
        """Keep maps of the tracked photographs by both networks, at one scale, for `evaluate localizer`."""
        if rank() == 0 and self.config.cams is not None and self.tracked.records:
            cams = self.config.cams.model_copy(update={"scales": [1.0], "rules": ["transcam"]})
            static = self.config.label_source == "static"
            for name, network in {"online": self.online, **({} if static else {"target": self.target})}.items():
                store = self.folder / "epochs" / f"{name}-{epoch + 1:02d}"
                extend_store(network.eval(), self.tracked, cams, store, f"maps of the {name} network", alone=True)
            self.online.train()
        return {} if self.switch is None else {"switched": float(self.switch.switched)}

    def state_dict(self) -> dict[str, Any]:
        """The target's weights and the switch."""
        switch = None if self.switch is None else self.switch.state_dict()
        return {"target": self.target.state_dict(), "switch": switch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with another target and switch."""
        self.target.load_state_dict(state["target"])
        self.saved_switch = state["switch"]
