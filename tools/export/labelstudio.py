"""Label Studio: tasks with brush predictions, run lengths as the tool's own converter packs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as Xml

import numpy as np

from pipeline.run.files import write_text
from tools.export.labelled import Labelled, colour, regions, write_compact
from tools.optional import library

SERVED = "/data/local-files/?d="
"""Where Label Studio serves files below its document root, which has to be the data root."""
BRUSH, IMAGE = "brush", "image"


def write_labelstudio(exported: Labelled, folder: Path) -> None:
    """`tasks.json` to import, `labels.xml` for the labelling interface; one brush region for each class, and 255."""
    encode = library("label_studio_converter.brush", "label-studio-converter").mask2rle
    write_text(folder / "labels.xml", interface(exported.names))
    tasks = []
    for record, labels in exported.masks():
        results: list[Any] = []
        for label, region in regions(labels):
            runs = [int(value) for value in encode(region.astype(np.uint8) * 255)]
            value = {"format": "rle", "rle": runs, "brushlabels": [exported.names[label]]}
            size = {"original_width": record.width, "original_height": record.height, "image_rotation": 0}
            place = {"id": f"label{label}", "type": "brushlabels", "from_name": BRUSH, "to_name": IMAGE}
            results.append({**place, **size, "value": value})
        prediction = {"model_version": exported.folder.name, "result": results}
        tasks.append({"data": {IMAGE: SERVED + quote(record.image)}, "predictions": [prediction]})
    write_compact(folder / "tasks.json", tasks)


def interface(names: dict[int, str]) -> str:
    """The labelling interface: a photograph, and a brush for each label."""
    view = Xml.Element("View")
    Xml.SubElement(view, "Image", {"name": IMAGE, "value": f"${IMAGE}", "zoom": "true"})
    brush = Xml.SubElement(view, "BrushLabels", {"name": BRUSH, "toName": IMAGE})
    for label, name in names.items():
        Xml.SubElement(brush, "Label", {"value": name, "background": colour(label)})
    Xml.indent(view)
    return Xml.tostring(view, encoding="unicode") + "\n"
