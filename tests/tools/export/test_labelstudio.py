"""Label Studio's tasks are read with equal pixels, as its frontend unpacks them and by its own converter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as Xml

import numpy as np
import pytest

from tests.tools.export.conftest import CLASSES, Labels, Truth, rough, smooth
from tools.export.labelstudio import packed

Exported = Callable[..., tuple[Path, Truth]]
LABELS = {**{name: k for k, name in enumerate(CLASSES, start=1)}, "__ignore__": 255}


def unpacked(data: list[int]) -> Labels:
    """What `decode` of rle-pack, which the frontend calls, makes of packed bytes."""
    bits, place = "".join(f"{byte:08b}" for byte in data), 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    values = np.zeros(read(32), np.uint8)
    word, lengths = read(5) + 1, [read(4) + 1 for _ in range(4)]
    at = 0
    while at < len(values):
        repeated = read(1)
        end = at + 1 + read(lengths[read(2)])
        if repeated:
            values[at:end] = read(word)
        else:
            values[at:end] = [read(word) for _ in range(at, end)]
        at = end
    return values


def by_their_converter(data: list[int]) -> Labels:
    brush = pytest.importorskip("label_studio_converter.brush", reason="label-studio-converter is not installed")
    values: Labels = brush.decode_rle(data)
    return values


@pytest.mark.parametrize("decode", [unpacked, by_their_converter])
@pytest.mark.parametrize("draw", [smooth, rough])
def test_pixels_are_equal(
    exported: Exported, draw: Callable[[int], Labels], decode: Callable[[list[int]], Labels]
) -> None:
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
            pixels = decode(result["value"]["rle"]).reshape(*size, 4)[:, :, 3]
            assert set(np.unique(pixels).tolist()) <= {0, 255}
            (name,) = result["value"]["brushlabels"]
            drawn[pixels > 0] = LABELS[name]
        np.testing.assert_array_equal(drawn, labels)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 64, 65, 16384, 16385, 40000])
def test_runs_of_every_length(count: int) -> None:
    region = np.zeros((1, count + 7), bool)
    region[0, 3 : 3 + count] = True
    np.testing.assert_array_equal(
        unpacked(packed(region)).reshape(-1, 4), np.repeat(region.T * np.uint8(255), 4, axis=1)
    )


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
