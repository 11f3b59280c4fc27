"""Knobs of the data: where photographs and tags come from."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.knobs import Count, Knobs, Maybe, Name, Number, Positive, Seed, knob


class ScenesData(Knobs):
    """The bundled, generated data set."""

    train: Count = knob(320, "number of training scenes")
    val: Count = knob(240, "number of validation scenes")
    size: Annotated[int, Field(ge=64, le=1024), Number] = knob(160, "longer side in pixels")
    seed: Seed = knob(0, "of the drawing; another seed draws other scenes")


class VocData(Knobs):
    """PASCAL VOC 2012."""

    train_split: Literal["train", "train_aug"] = knob("train", "train (1,464 ids), train_aug (10,582 ids, with SBD)")
    sbd_root: Annotated[Name | None, Maybe] = knob(None, "folder of SBD, whose train.txt and val.txt train_aug needs")
    test: bool = knob(
        False, "predict the test photographs too (1,456 ids without tags and masks), for the evaluation server"
    )
    download: bool = knob(False, "fetch VOC 2012 (and SBD for train_aug) through torchvision into data.root")


class CocoData(Knobs):
    """COCO 2014, or a data set in its format."""

    official: bool = knob(
        True,
        "true: 80 classes, 82,081 and 40,137 photographs with objects, as in COCO; false: other data in its format",
    )


class FolderData(Knobs):
    """A folder of photographs and their tags."""

    tags: Name = knob("labels.csv", "table, COCO JSON or map of tags below data.root; or . for a folder for each class")
    images: Name = knob(".", "folder below data.root that image names are relative to")
    masks: Annotated[Name | None, Maybe] = knob(
        None, "folder below data.root with <image>.png masks; used by evaluate and report alone"
    )
    val_share: Annotated[float, Field(ge=0, lt=1), Number] = knob(
        0.2, "share of images for validation where the CSV has no split column; 0: all train, none validates"
    )


class DataKnobs(Knobs):
    """Where photographs and tags come from."""

    name: Literal["scenes", "voc2012", "coco2014", "folder"] = knob(
        "scenes", "scenes (bundled, drawn), voc2012, coco2014, folder (a folder of photographs and their tags)"
    )
    root: Annotated[Name | None, Maybe] = knob(
        None,
        "folder of the photographs, except for scenes; absolute for queued and --temp runs; none: that of DATA_ROOT",
    )
    classes: Literal["all"] | Annotated[list[Name], Field(min_length=1)] = knob(
        "all", "all, or a list: the other classes become background"
    )
    background: bool = knob(
        True,
        "false: every pixel belongs to a class; masks, scores and report leave background out, and 0 in masks is void",
    )
    limit: Annotated[Count | None, Maybe] = knob(None, "at most this many images of each split")
    max_megapixels: Positive = knob(60.0, "larger images are refused before they are decoded")
    saliency: Annotated[Name | None, Maybe] = knob(
        None,
        "none, or a folder of saliency maps: for each training photograph a grey PNG <id>.png of its size, from 0 "
        "(background) to 255 (object); they compete as background in masks and weigh ESOL's area loss (I+S)",
    )
    tune: Annotated[float, Field(ge=0, le=0.9), Number] = knob(
        0.0, "share of the training photographs on which masks may choose something; no reported number is of them"
    )
    validate_on: Literal["val", "tune"] = knob(
        "val", "val; tune: the tune photographs validate in its place and leave the training, to choose without val"
    )
    scenes: ScenesData = ScenesData()
    voc2012: VocData = VocData()
    coco2014: CocoData = CocoData()
    folder: FolderData = FolderData()

    @model_validator(mode="after")
    def _fit_together(self) -> DataKnobs:
        if self.name != "scenes" and self.root is None:
            raise ValueError(
                f"data.root is none, but data.name = {self.name} reads photographs from there; give its folder, here "
                "or in the environment: export DATA_ROOT=/path/to/photographs"
            )
        if self.validate_on == "tune" and self.tune == 0:
            raise ValueError("data.validate_on = tune, but data.tune = 0 sets no photograph apart; give it a share")
        if not self.background and self.saliency is not None:
            raise ValueError(
                "data.background = false, but data.saliency tells masks where background is; set one of them back"
            )
        names = [unicodedata.normalize("NFC", name) for name in self.classes] if self.classes != "all" else []
        if len(set(names)) != len(names):
            raise ValueError("data.classes names a class twice")
        if self.limit == 1 or (self.name == "scenes" and self.scenes.train == 1):
            raise ValueError("one photograph is left to train on, and no method learns from one; raise the limit")
        return self
