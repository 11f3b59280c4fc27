"""What every data set is turned into before its images are checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from models.knobs import Count, Fraction, Maybe, Name, Positive
from pipeline.data.manifest import PREPARED, Record
from pipeline.data.outlines import Outline
from pipeline.data.outside import OutsideFiles
from pipeline.run.files import expanded
from pipeline.run.told import Told

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Source:
    """Photographs and tags of one data set, not yet opened.

    Attributes:
        records: the photographs, not hashed; their size is 0 x 0 where the data set does not say it; those with a
            problem may be missing.
        classes: foreground classes in label order.
        masks: path of the file that is the mask, below the data root, by photograph id, where the file exists.
        outlines: what masks are drawn from, by photograph id, where the data set has no such files.
        label_map: 256 labels of this project, indexed by the label in a mask; None where they are equal.
        notes: what the user may want to know.
        problems: what the user must mend: which file, which line, what to do.
        needs: splits that must have photographs.
    """

    records: list[Record]
    classes: list[str]
    masks: dict[str, str] = field(default_factory=dict)
    label_map: list[int] | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    outlines: Mapping[str, Sequence[Outline]] = field(default_factory=dict)
    needs: Sequence[str] = SPLITS


class PrepareDataConfig(Told):
    """What prepare_data is told: `source` has the knobs of the one data set in use, whose module checks them.

    Attributes:
        files: hash of the listing of all files, so that changed ones are looked at again.
    """

    name: Name
    root: Annotated[Name | None, Maybe]
    classes: Literal["all"] | list[Name]
    limit: Count | None
    max_megapixels: Positive
    tune: Fraction = 0.0
    validate_on: Literal["val", "tune"] = "val"
    saliency: OutsideFiles | None = None
    saliency_splits: list[str] = Field(default=["train"])
    background: bool = True
    files: str = ""
    source: dict[str, Any]


def label_map(own: Sequence[str], classes: Sequence[str]) -> list[int] | None:
    """256 labels of this project by label of a mask file, for a choice of classes; None where they are equal.

    Classes left out become background. Labels beyond those of the data set stay as they are, so that a mask that holds
    one is still found out; 255 stays the ignored label.

    Args:
        own: the classes as the data set's masks number them, from 1.
        classes: the foreground classes in use, in label order; all of them are among `own`.
    """
    if list(classes) == list(own):
        return None
    ours = {name: label for label, name in enumerate(classes, start=1)}
    return [0, *(ours.get(name, 0) for name in own), *range(len(own) + 1, 256)]


def data_root(config: PrepareDataConfig) -> Path:
    """The folder that all paths of images and masks are relative to."""
    if config.name == "scenes":
        return PREPARED / "scenes"
    assert config.root is not None, "configure refuses data.root = none for data sets that need it"
    return expanded(config.root)
