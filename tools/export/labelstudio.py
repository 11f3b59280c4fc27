"""Label Studio: tasks with brush predictions.

Its brush holds run lengths of red, green, blue and alpha, packed into bits (`rle-pack` of thi.ng/umbrella). The tool's
libraries pack them too, but do not go into one environment with this project.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as Xml

import numpy as np

from pipeline.run.files import write_text
from tools.export.labelled import Labelled, Region, colour, regions, write_compact

SERVED = "/data/local-files/?d="
"""Where Label Studio serves files below its document root, which has to be the data root."""
BRUSH, IMAGE = "brush", "image"
CHANNELS = 4
WORD = 8
"""Bits of a value, 0 or 255."""
LENGTHS = (3, 4, 8, 16)
"""Bits that a run's length may have; two bits say which."""


def write_labelstudio(exported: Labelled, folder: Path) -> None:
    """`tasks.json` to import, `labels.xml` for the labelling interface; one brush region for each class, and 255."""
    write_text(folder / "labels.xml", interface(exported.names))
    tasks = []
    for record, labels in exported.masks():
        results: list[Any] = []
        for label, region in regions(labels):
            value = {"format": "rle", "rle": packed(region), "brushlabels": [exported.names[label]]}
            size = {"original_width": record.width, "original_height": record.height, "image_rotation": 0}
            place = {"id": f"label{label}", "type": "brushlabels", "from_name": BRUSH, "to_name": IMAGE}
            results.append({**place, **size, "value": value})
        prediction = {"model_version": exported.folder.name, "result": results}
        tasks.append({"data": {IMAGE: SERVED + quote(record.image)}, "predictions": [prediction]})
    write_compact(folder / "tasks.json", tasks)


def packed(region: Region) -> list[int]:
    """The bytes of a brush that covers some pixels (H, W).

    A head says how many values there are, and the bits of a word and of lengths, each less 1. Each run is a 1, which of
    the lengths it has, its length less 1, and its value.
    """
    flat = region.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    runs = CHANNELS * np.diff(starts, append=flat.size)
    bits = [f"{CHANNELS * flat.size:032b}{WORD - 1:05b}", *(f"{length - 1:04b}" for length in LENGTHS)]
    for run, value in zip(runs.tolist(), flat[starts].tolist(), strict=True):
        for done in range(0, run, 2 ** LENGTHS[-1]):
            count = min(run - done, 2 ** LENGTHS[-1])
            which = next(number for number, length in enumerate(LENGTHS) if count <= 2**length)
            bits.append(f"1{which:02b}{count - 1:0{LENGTHS[which]}b}{255 * value:0{WORD}b}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def interface(names: dict[int, str]) -> str:
    """The labelling interface: a photograph, and a brush for each label."""
    view = Xml.Element("View")
    Xml.SubElement(view, "Image", {"name": IMAGE, "value": f"${IMAGE}", "zoom": "true"})
    brush = Xml.SubElement(view, "BrushLabels", {"name": BRUSH, "toName": IMAGE})
    for label, name in names.items():
        Xml.SubElement(brush, "Label", {"value": name, "background": colour(label)})
    Xml.indent(view)
    return Xml.tostring(view, encoding="unicode") + "\n"
