"""The segmentation network that `train_segmenter` left, with all that a photograph needs to become a mask.

    from pipeline.predict import Predictor
    labels = Predictor("data/predictor")("photograph.jpg")

The folder is what stage `predict` leaves beside its predictions. It is whole: another machine needs nothing else.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from models.kernels import kernels_for
from models.knobs import Knobs
from models.segmenters.knobs import PredictKnobs
from models.segmenters.predictions import bands, view_scores
from models.segmenters.segmenter import Segmenter
from pipeline.config.code import code_digest
from pipeline.data.dataset import resized_view
from pipeline.data.images import as_photograph, resize_image, resize_labels, scaled_size, view_size
from pipeline.maps.background import hard_channels
from pipeline.maps.crf import dense_crf, softmax_energies
from pipeline.run.errors import UserError
from pipeline.run.files import new_folder, read_json, write_json
from pipeline.run.runtime import Machine, local_machine
from pipeline.run.source import RECORDS
from pipeline.run.told import CrfTold, InferenceTold
from pipeline.training.weights import load_network

ABOUT = "predictor.json"
STAGE = "pipeline.predict"
Labels = NDArray[np.uint8]


class PredictConfig(PredictKnobs, CrfTold, InferenceTold):
    """What predict is told.

    Attributes:
        background: whether pixels may belong to no class.
    """

    background: bool = True


class About(Knobs):
    """What the folder says besides the network.

    Attributes:
        classes: names of the labels 1, 2, ...
        how: the knobs of predictions.
        mean, std: that photographs are normalised with, for other programs: RGB in [0, 1].
        chosen: what the configuration chose of the code (see `pipeline.config.code`).
    """

    classes: list[str]
    how: PredictConfig
    mean: list[float]
    std: list[float]
    chosen: list[str]


class Predictor:
    """A trained segmentation network that makes masks of photographs.

    Args:
        folder: what stage `predict` leaves in `data/predictor`.
        device: auto, cpu or cuda.
        knobs: of predictions (`predict.*`) that differ from those in the folder, such as `scales=[1.0]`.

    Attributes:
        classes: names of the labels 1, 2, ...

    Raises:
        UserError: the folder is no such folder, or damaged; a knob is unknown or out of its bounds.
    """

    def __init__(self, folder: str | Path = "data/predictor", device: str = "auto", **knobs: Any) -> None:
        place = Path(folder)
        about = read_about(place)
        self.classes = about.classes
        self.config = changed(about.how, knobs)
        self.machine = local_machine(device).computing_in(self.config.inference_precision)
        self.network = load_segmenter(place, self.machine)

    def __call__(self, image: str | Path | Labels) -> Labels:
        """The mask of a photograph: labels (H, W) uint8, 0 for background.

        Args:
            image: a file, or RGB (H, W, 3) uint8.

        Raises:
            UserError: the file is no photograph, or the array no such picture.
        """
        return predicted_labels(self.network, as_photograph(image), self.config, self.machine)


# ----------------------------------------------------------------------------------------------------------- the folder


def write_predictor(folder: Path, trained: Path, network: Segmenter, classes: list[str], config: PredictConfig) -> None:
    """Write the network and all that predictions need into a folder."""
    records = read_json(RECORDS, "configure") if RECORDS.exists() else {}
    about = About(
        classes=classes,
        how=config,
        mean=list(network.mean),
        std=list(network.std),
        chosen=records.get(STAGE, {}).get("chosen", []),
    )
    with new_folder(folder) as output:
        for name in ("network.json", "weights.safetensors"):
            shutil.copyfile(trained / name, output / name)
        write_json(output / ABOUT, about.model_dump(mode="json"))


def read_about(folder: Path) -> About:
    """What a folder says besides the network.

    Raises:
        UserError: it is no such folder.
    """
    try:
        return About.model_validate(read_json(folder / ABOUT, "predict"))
    except ValidationError as error:
        raise UserError(f"{folder / ABOUT} is not what predict writes; run `dvc repro predict`: {error}") from error


def of_other_code(about: About) -> bool:
    """Whether the predictions of the data set were made by other code than this, which may give other masks."""
    return code_digest(STAGE, about.chosen) != about.how.code


def changed(config: PredictConfig, knobs: dict[str, Any]) -> PredictConfig:
    """The knobs with some changed.

    Raises:
        UserError: a knob is unknown or out of its bounds.
    """
    try:
        return PredictConfig.model_validate(config.model_dump(mode="json") | knobs)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc']))} = {one['input']!r}: {one['msg']}" for one in error.errors()]
        raise UserError("predictions: " + "; ".join(lines)) from error


def load_segmenter(folder: Path, machine: Machine) -> Segmenter:
    """The network that train_segmenter left, on its device and ready to predict.

    Raises:
        UserError: it is a localizer that does not segment.
    """
    network = load_network(folder, "train_segmenter")
    segmenter = network if isinstance(network, Segmenter) else network.segmenter()
    if segmenter is None:
        trained = read_json(folder / "network.json", "train_segmenter")["network"]
        raise UserError(
            f"segmenter.network = localizer needs a localizer that segments, but {trained} does not; choose another "
            "segmenter.network"
        )
    return segmenter.to(machine.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


# --------------------------------------------------------------------------------------------------------------- masks


def predicted_labels(network: Segmenter, image: Labels, config: PredictConfig, machine: Machine) -> Labels:
    """The mask (H, W) of one photograph (H, W, 3): scales, mirror images and CRF as the knobs say.

    Raises:
        UserError: the network's logits are not finite.
    """
    size = (image.shape[0], image.shape[1])
    views = []
    for scale in config.scales:
        seen = view_size(size, scale, config.long_side, config.square)
        views.append(resized_view(image, seen, (network.mean, network.std)).to(machine.device))
    with machine.autocast():
        scores = view_scores(network, views, config.fusion, config.flip)
    if not all(values.isfinite().all() for values in scores):
        raise UserError("the prediction is not finite: the network has diverged; lower its learning rate")
    if config.crf is not None:
        return with_crf(image, scores, config)
    first = first_label(config)
    rows = [band[first:].argmax(0).to(torch.uint8).cpu().numpy() for band in bands(scores, size, config.fusion)]
    return np.concatenate(rows) + np.uint8(first)


def first_label(config: PredictConfig) -> int:
    """The lowest label that takes part: not 0 where every pixel belongs to a class."""
    return 0 if config.background else 1


def with_crf(image: Labels, scores: list[torch.Tensor], config: PredictConfig) -> Labels:
    """The mask (H, W) of a photograph, with the CRF at `max_side` at most."""
    size = (image.shape[0], image.shape[1])
    worked = scaled_size(size, min(config.max_side, max(size)))
    first = first_label(config)
    probabilities = torch.cat(list(bands(scores, worked, config.fusion)), dim=1)[first:].cpu().numpy()
    kernels = kernels_for(config.crf, worked, config.crf_reference, config.crf_iterations)
    assert kernels is not None
    picture = resize_image(image, worked) if worked != size else image
    (marginals,) = dense_crf(picture, [softmax_energies(probabilities)], kernels)
    return resize_labels(hard_channels(marginals) + np.uint8(first), size)
