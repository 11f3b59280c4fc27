"""Stage train_classifier: a multi-label classifier on image tags.

Reads the manifest and the photographs; writes `data/classifier`, `metrics/classifier.json` (mean average precision of
the tags on the validation split) and `metrics/details/classifier.json`. Methods that train everything at once have the
network `none`: they get a note that there is no classifier.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from models.build import build, classifier_description
from models.cam.classifier import mean_average_precision
from models.cam.knobs import ClassifierKnobs
from models.cam.task import ClassifierTask
from models.knobs import Augmentation
from models.localizer import Localizer
from models.registry import CLASSIFIERS
from pipeline.data.augment import size_range
from pipeline.data.dataset import TaggedViews, resized_view
from pipeline.data.images import SMALLEST_SIDE, scaled_size
from pipeline.data.manifest import PREPARED, Manifest, load_manifest
from pipeline.data.photographs import Photographs
from pipeline.run.files import new_folder, write_json
from pipeline.run.resume import resume_folder
from pipeline.run.runtime import Machine, derived_seed, rank
from pipeline.run.stage import run_distributed_stage
from pipeline.run.told import InferenceTold, TrainingTold, told
from pipeline.scoring.charts import save_history
from pipeline.scoring.records import write_scores
from pipeline.scoring.warnings import said, tag_warnings
from pipeline.training.loop import fit
from pipeline.training.weights import load_initial, save_network

OUTPUT, METRICS, PLOTS = (
    Path("data/classifier"),
    Path("metrics"),
    Path("metrics/plots/classifier"),
)


class TrainClassifierConfig(ClassifierKnobs, TrainingTold, InferenceTold):
    """What train_classifier is told.

    Attributes:
        protocol: what its details state beside the size of the photographs.
    """

    protocol: dict[str, str]


def main(machine: Machine) -> None:
    """Train, or continue training, and score the tags of the validation split."""
    config = told("train_classifier", TrainClassifierConfig)
    manifest = load_manifest()
    if config.network not in CLASSIFIERS:
        if rank() == 0:
            write_no_classifier(config.code)
        return
    description = classifier_description(config.network, len(manifest.classes), config.dropout, config.head_width)
    with resume_folder("train_classifier", config, [PREPARED / "manifest.csv", PREPARED / "classes.json"]) as folder:
        torch.manual_seed(derived_seed("classifier", config.seed))
        network = build(description)
        load_initial(
            network, config.network, config.weights, CLASSIFIERS[config.network].imagenet, config.weights_sha256
        )
        normalisation = (network.backbone.mean, network.backbone.std)
        views = TaggedViews(manifest.split("train"), machine.root, config.augmentation, normalisation)
        task = ClassifierTask(network, config.optimisation)
        trainer = machine.computing_in(config.training_precision)
        history = fit(task, views, config.optimisation, config.seed, folder, trainer)
        if rank() == 0:
            viewer = machine.computing_in(config.inference_precision)
            scores = tag_scores(network, manifest, config.augmentation, viewer)
            scores["protocol"] |= config.protocol
            with new_folder(OUTPUT) as output:
                save_network(output, network, description)
            with new_folder(PLOTS) as plots:
                save_history(plots, history)
            write_scores(METRICS, "classifier", scores | {"code": {"train_classifier": config.code}})


def write_no_classifier(code: str) -> None:
    """The outputs of this stage for methods without a classifier: no tag is scored."""
    with new_folder(OUTPUT) as output:
        write_json(output / "network.json", {"network": "none"})
    with new_folder(PLOTS) as plots:
        save_history(plots, [])
    scores = {"per_class": {}, "classes_scored": 0, "images": 0, "protocol": {"network": "none"}}
    write_scores(METRICS, "classifier", scores | {"code": {"train_classifier": code}})


@torch.inference_mode()
def tag_scores(network: Localizer, manifest: Manifest, augmentation: Augmentation, machine: Machine) -> dict[str, Any]:
    """Average precision per class on the validation split, each photograph at the mean training size."""
    held_out = manifest.split("val")
    photographs = Photographs(held_out, machine.root)
    normalisation = (network.backbone.mean, network.backbone.std)
    logits = [torch.zeros(0, len(manifest.classes))]
    for record in tqdm(held_out.records, desc="tags of the validation split", disable=None):
        size = scaled_size(record.size, sum(size_range(record.size, augmentation)) / 2, SMALLEST_SIDE)
        view = resized_view(photographs.read(record), size, normalisation)
        with machine.autocast():
            logits.append(network(view[None].to(machine.device)).float().cpu())
    precision = mean_average_precision(torch.cat(logits), torch.from_numpy(held_out.tag_matrix()))
    sizes = {"long_side": augmentation.long_side, "scale": augmentation.scale}
    named = {manifest.classes[index]: value for index, value in precision.items()}
    shares = held_out.tag_matrix().sum(axis=0) / max(1, len(held_out.records))
    shown = dict(zip(manifest.classes, shares.tolist(), strict=True))
    return {
        **said(tag_warnings(named, shown)),
        **({"map": float(np.mean(list(named.values())))} if named else {}),
        "per_class": named,
        "classes_scored": len(named),
        "images": len(held_out.records),
        "protocol": {name: sum(pair) / 2 for name, pair in sizes.items() if pair is not None},
    }


if __name__ == "__main__":
    run_distributed_stage(main)
