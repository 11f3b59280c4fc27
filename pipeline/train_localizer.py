"""Stage train_localizer: the second training of methods that have one.

A method takes the trained classifier and leaves the network that extract_cams reads, in the same form. Methods without
a second training (`none`) hand the classifier on; one-stage methods train without one. A training may leave maps of a
few photographs after every epoch in `epochs/`, which `evaluate localizer` scores, and a picture in `plots/` for the
report; training itself never reads a mask.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from models.knobs import Augmentation, Optimisation
from models.registry import BACKBONES, ENCODERS, METHODS
from models.task import LocalizerTask, Start
from pipeline.config.cams import CamsKnobs
from pipeline.data.augment import size_range
from pipeline.data.dataset import LabelledViews, SalientViews, TaggedViews, resized_view
from pipeline.data.images import SMALLEST_SIDE, resize_image, scaled_size
from pipeline.data.manifest import PREPARED, Manifest, load_manifest
from pipeline.data.outside import OutsideFiles
from pipeline.data.photographs import Photographs
from pipeline.data.saliency import SALIENCY
from pipeline.data.three_views import ThreeViews
from pipeline.maps.confident_labels import ConfidencePair, write_labels
from pipeline.maps.extraction import extend_store
from pipeline.run.errors import UserError
from pipeline.run.files import new_folder, read_json, write_json
from pipeline.run.resume import resume_folder
from pipeline.run.runtime import Machine, barrier, derived_seed, rank
from pipeline.run.stage import run_distributed_stage
from pipeline.run.told import CrfTold, InferenceTold, TrainingTold, told
from pipeline.scoring.charts import save_history, save_sampling
from pipeline.training.loop import History, fit
from pipeline.training.weights import load_initial, load_network, save_network

CLASSIFIER, OUTPUT, PLOTS = Path("data/classifier"), Path("data/localizer"), Path("metrics/plots/localizer_training")
HISTORY = "history.json"
VIEWS = {"tagged": TaggedViews, "labelled": LabelledViews, "three": ThreeViews, "salient": SalientViews}


class TrainLocalizerConfig(TrainingTold, InferenceTold, CrfTold):
    """What train_localizer is told: the knobs that all second trainings share, and the groups of its own.

    Attributes:
        network: the method, or none.
        groups: the knobs of the method by group; the method's task checks them.
        cams: of maps, for methods that make some while they train.
        saliency: maps of the training photographs, for methods that read some.
    """

    network: str
    optimisation: Optimisation | None = None
    augmentation: Augmentation | None = None
    groups: dict[str, Any] | None = None
    cams: CamsKnobs | None = None
    saliency: OutsideFiles | None = None


def main(machine: Machine) -> None:
    """Run the method's trainings; the result in `<resume folder>/result` goes into place."""
    config = told("train_localizer", TrainLocalizerConfig)
    if config.saliency is not None:
        config.saliency.check_unchanged(SALIENCY)
    inputs = [CLASSIFIER, PREPARED / "manifest.csv", PREPARED / "classes.json"]
    with resume_folder("train_localizer", config, inputs) as folder:
        history = train(config, folder, machine) if config.network in METHODS else pass_classifier(folder)
        if rank() == 0:
            with new_folder(OUTPUT) as output:
                shutil.copytree(folder / "result", output, dirs_exist_ok=True)
            with new_folder(PLOTS) as plots:
                save_history(plots, history)
                if (folder / "plots").exists():
                    shutil.copytree(folder / "plots", plots, dirs_exist_ok=True)


def pass_classifier(folder: Path) -> History:
    """The classifier is the localizer; one that is damaged is not handed on, and none is handed on as none."""
    result = folder / "result"
    if rank() == 0:
        if read_json(CLASSIFIER / "network.json", "train_classifier")["network"] != "none":
            load_network(CLASSIFIER, "train_classifier")
        shutil.rmtree(result, ignore_errors=True)
        shutil.copytree(CLASSIFIER, result)
    return []


def train(config: TrainLocalizerConfig, folder: Path, machine: Machine) -> History:
    """Run one training after the other; the last one's result is kept, the history has the epochs of all."""
    assert config.optimisation is not None and config.augmentation is not None
    manifest = load_manifest().split("train")
    torch.manual_seed(derived_seed("localizer", config.seed))
    history: History = []
    for task in tasks_of(config, manifest):
        rows = run_task(task, config, manifest, folder, machine)
        history += [row | {"epoch": row["epoch"] + len(history)} for row in rows]
    if rank() == 0:
        save_result(task, history, folder)
        draw_sampling(task, manifest, config.augmentation, machine, folder)
    return history


def tasks_of(config: TrainLocalizerConfig, manifest: Manifest) -> Iterator[LocalizerTask]:
    """The method's trainings; the next one is built when the one before has ended.

    Raises:
        UserError: the method does not fit its classifier or its knobs.
    """
    tasks = import_module(METHODS[config.network].task).tasks(start_of(config, manifest))
    while True:
        try:
            task = next(tasks, None)
        except ValueError as error:
            raise UserError(f"localizer.network = {config.network}: {error}") from error
        if task is None:
            return
        yield task


def start_of(config: TrainLocalizerConfig, manifest: Manifest) -> Start:
    """What the method's trainings start from."""
    assert config.optimisation is not None
    trunks = BACKBONES | ENCODERS
    return Start(
        groups=config.groups or {},
        rates=config.optimisation,
        epochs=config.optimisation.epochs,
        classes=len(manifest.classes),
        classifier=read_json(CLASSIFIER / "network.json", "train_classifier"),
        classifier_state=lambda: load_network(CLASSIFIER, "train_classifier").state_dict(),
        load_pretrained=lambda network, name, weights: load_initial(
            network, name, weights, trunks[name].imagenet, config.weights_sha256
        ),
        saliency=config.saliency is not None,
    )


def run_task(
    task: LocalizerTask, config: TrainLocalizerConfig, manifest: Manifest, folder: Path, machine: Machine
) -> History:
    """One training, with its views and labels; it continues where a killed run stopped."""
    assert config.optimisation is not None and config.augmentation is not None
    backbone = task.result()[0].backbone
    beside: dict[str, Any] = {}
    if task.static_labels is not None:
        beside = {"masks": static_labels(task, config, manifest, folder, machine)}
    if task.views == "salient":
        beside = {"saliency": config.saliency}
    views = VIEWS[task.views](manifest, machine.root, config.augmentation, (backbone.mean, backbone.std), **beside)
    viewer = machine.computing_in(config.inference_precision)
    tracked = Manifest(manifest.records[: task.track], manifest.classes)

    def keep_maps(epoch: int) -> None:
        """Maps of the tracked photographs by each network, at one scale, for `evaluate localizer`."""
        if rank() == 0 and tracked.records and config.cams is not None:
            for name, network in task.tracked().items():
                store = folder / "epochs" / f"{name}-{epoch + 1:02d}"
                cams = config.cams.at_one_scale()
                extend_store(network.eval(), tracked, cams, store, viewer, f"maps of the {name} network", alone=True)

    seed = derived_seed(task.name, config.seed) if task.name else config.seed
    trainer = machine.computing_in(config.training_precision)
    return fit(task, views, config.optimisation, seed, folder / task.name, trainer, keep_maps)


def static_labels(
    task: LocalizerTask, config: TrainLocalizerConfig, manifest: Manifest, folder: Path, machine: Machine
) -> Path:
    """Pixel labels of all photographs from the classifier's maps and the CRF, made once; the folder of masks."""
    knobs = task.static_labels
    assert config.cams is not None and knobs is not None, "methods with static labels are told the knobs of maps"
    network = load_network(CLASSIFIER, "train_classifier").to(machine.device).eval()
    viewer = machine.computing_in(config.inference_precision)
    extend_store(network, manifest, config.cams, folder / "cams", viewer, "maps for pixel labels")
    barrier()
    labels = folder / "labels"
    if rank() == 0:
        foreground, background = knobs.confidence_pair
        thresholds = (foreground, background)
        pair = ConfidencePair("thresholds", thresholds, knobs.crf, knobs.max_side, config.crf_reference)
        write_labels(manifest, folder / "cams", pair, labels, machine.root, machine.workers)
    barrier()
    return labels


def save_result(task: LocalizerTask, history: History, folder: Path) -> None:
    """Put the network, the history, and the maps of every epoch where some were kept, into `<folder>/result`."""
    with new_folder(folder / "result") as output:
        save_network(output, *task.result())
        write_json(output / HISTORY, history)
        if (folder / "epochs").exists():
            hidden = shutil.ignore_patterns(".*")  # what a killed run had not finished writing
            shutil.copytree(folder / "epochs", output / "epochs", ignore=hidden)


def draw_sampling(
    task: LocalizerTask, manifest: Manifest, augmentation: Augmentation, machine: Machine, folder: Path
) -> None:
    """Draw where cells of one photograph, the first that has a tag, read their features; nothing without samplers.

    Args:
        task: trained.
        manifest: the training photographs.
        augmentation: the view that is drawn has the largest size that it gives.
        machine: where the network is.
        folder: `plots` below it gets `sampling.csv` and `sampling.png`.
    """
    record = next((record for record in manifest.records if record.tags), manifest.records[0])
    photograph = Photographs(manifest, machine.root).read(record)
    size = scaled_size(record.size, size_range(record.size, augmentation)[1], SMALLEST_SIDE)
    backbone = task.result()[0].backbone
    view = resized_view(photograph, size, (backbone.mean, backbone.std))[None]
    if (sampling := task.sampling(view.to(machine.device))) is not None:
        with new_folder(folder / "plots") as plots:
            picture, (before, after) = resize_image(photograph, size), sampling
            save_sampling(plots, picture, before.numpy(), after.numpy(), f"expansion on {record.id}")


if __name__ == "__main__":
    run_distributed_stage(main)
