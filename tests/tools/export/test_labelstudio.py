"""Label Studio's tasks are read with equal pixels by its own converter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as Xml

import numpy as np
import pytest

from tests.tools.export.conftest import CLASSES, Labels, Truth, rough, smooth

Exported = Callable[..., tuple[Path, Truth]]
brush = pytest.importorskip(
    "label_studio_converter.brush", reason="label-studio-converter is not installed (requirements-export.txt)"
)
LABELS = {**{name: k for k, name in enumerate(CLASSES, start=1)}, "__ignore__": 255}


@pytest.mark.parametrize("draw", [smooth, rough])
def test_pixels_are_equal(exported: Exported, draw: Callable[[int], Labels]) -> None:
    folder, truth = exported("labelstudio", draw=draw)
    tasks = json.loads((folder / "tasks.json").read_text("utf-8"))
    served = [urlsplit(task["data"]["image"]) for task in tasks]
    assert {url.path for url in served} == {"/data/local-files/"}
    assert [parse_qs(url.query)["d"] for url in served] == [[image] for image in truth]
    for task, labels in zip(tasks, truth.values(), strict=True):
        (prediction,) = task["predictions"]
        drawn = np.zeros_like(labels)
        for result in prediction["result"]:
            size = result["original_height"], result["original_width"]
            assert size == labels.shape
            pixels = brush.decode_rle(result["value"]["rle"]).reshape(*size, 4)[:, :, 3]
            assert set(np.unique(pixels).tolist()) <= {0, 255}
            (name,) = result["value"]["brushlabels"]
            drawn[pixels > 0] = LABELS[name]
        np.testing.assert_array_equal(drawn, labels)


def test_the_interface_has_the_brushes_that_the_tasks_use(exported: Exported) -> None:
    folder, _ = exported("labelstudio")
    view = Xml.fromstring((folder / "labels.xml").read_text("utf-8"))
    brushes, image = view.find("BrushLabels"), view.find("Image")
    assert brushes is not None and image is not None
    assert [label.attrib["value"] for label in brushes] == list(LABELS)
    for task in json.loads((folder / "tasks.json").read_text("utf-8")):
        assert set(task["data"]) == {image.attrib["value"].removeprefix("$")}
        for result in task["predictions"][0]["result"]:
            assert result["from_name"] == brushes.attrib["name"]
            assert result["to_name"] == brushes.attrib["toName"] == image.attrib["name"]
