"""The trained localizer on one photograph, from Python.

from pipeline.extract_cams import Localizer
maps = Localizer()("photograph.jpg", ["cat"])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config.cams import CamsKnobs
from pipeline.data.images import as_photograph
from pipeline.data.manifest import PREPARED, Record
from pipeline.data.outside import OutsideFiles
from pipeline.maps.extraction import batch_entries
from pipeline.maps.store import fused_maps
from pipeline.run.errors import UserError
from pipeline.run.files import read_json
from pipeline.run.runtime import local_machine
from pipeline.run.told import CONFIG, InferenceTold
from pipeline.training.weights import load_network

Maps = dict[str, NDArray[np.float32]]


class ExtractCamsConfig(CamsKnobs, InferenceTold):
    """What extract_cams is told.

    Attributes:
        imported: the folder of maps of another program.
    """

    imported: OutsideFiles | None = None


class Localizer:
    """The localizer of a finished run: activation maps of any photograph.

    Args:
        project: the folder of the run; `data/localizer`, `data/prepared/classes.json` and `data/config` are read.
        device: auto, cpu or cuda.

    Attributes:
        classes: names of the labels 1, 2, ...

    Raises:
        UserError: stages before have not run, or their files are damaged.
    """

    def __init__(self, project: str | Path = ".", device: str = "auto") -> None:
        root = Path(project)
        self.classes: list[str] = read_json(root / PREPARED / "classes.json", "prepare_data")
        told = read_json(root / CONFIG / "extract_cams.json", "configure")
        self.config = ExtractCamsConfig.model_validate(told)
        self.machine = local_machine(device).computing_in(self.config.inference_precision)
        network = load_network(root / "data/localizer", "train_localizer")
        self.network = network.to(self.machine.device, memory_format=torch.channels_last).eval()

    def __call__(self, image: str | Path | NDArray[np.uint8], tags: Sequence[str]) -> Maps:
        """Activation maps of a photograph, before refinement.

        Args:
            image: a file, or RGB (H, W, 3) uint8.
            tags: classes that it shows.

        Returns:
            For each tag (H, W) float32 in [0, 1]; `background` too where the method has a map of it.

        Raises:
            UserError: the file is no photograph, the array no such picture, or a tag is unknown.
        """
        pixels = as_photograph(image)
        if unknown := [tag for tag in tags if tag not in self.classes]:
            raise UserError(f"no class is called {', '.join(unknown)}; there are {', '.join(self.classes)}")
        class_ids = tuple(sorted(self.classes.index(tag) + 1 for tag in tags))
        record = Record("photograph", "train", "", pixels.shape[1], pixels.shape[0], tuple(tags))
        count, rule = len(self.classes), self.config.rules[0]
        entries = batch_entries(self.network, [record], [pixels], [class_ids], count, self.config, self.machine)
        maps, background = fused_maps(entries[rule][0], record.size)
        found = {self.classes[number - 1]: grid for number, grid in zip(class_ids, maps, strict=True)}
        return found | ({"background": background} if background is not None else {})
