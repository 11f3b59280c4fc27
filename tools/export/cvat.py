"""CVAT: the format "CVAT for images 1.1" with mask elements, to upload to a task that holds the photographs."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from pipeline.data.manifest import Record
from pipeline.run.files import write_json
from tools.export.labelled import Labelled, Labels, Part, colour, parts
from tools.optional import library


def write_cvat(exported: Labelled, folder: Path) -> None:
    """`cvat.zip`, which holds `annotations.xml`; `labels.json` for the raw view of a task's labels.

    An image's name is the photograph's path below the data root. Each connected part is a mask of its own, so that one
    can be corrected without the others. 255 is a label.
    """
    encode = library("cvat_sdk.masks", "cvat-sdk").encode_mask
    labels = [{"name": name, "color": colour(label), "type": "mask"} for label, name in exported.names.items()]
    write_json(folder / "labels.json", [label | {"attributes": []} for label in labels])
    with (
        zipfile.ZipFile(folder / "cvat.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("annotations.xml", "w", force_zip64=True) as file,
    ):
        file.write(b"<?xml version='1.0' encoding='utf-8'?>\n<annotations>\n<version>1.1</version>\n")
        file.write(Xml.tostring(meta(labels)))
        for number, (record, mask) in enumerate(exported.masks()):
            file.write(b"\n" + Xml.tostring(image(number, record, mask, exported.names, encode)))
        file.write(b"\n</annotations>\n")


def meta(labels: list[dict[str, str]]) -> Xml.Element:
    """The head of the file: the labels that its masks have."""
    top = Xml.Element("meta")
    known = Xml.SubElement(Xml.SubElement(top, "task"), "labels")
    for label in labels:
        element = Xml.SubElement(known, "label")
        for key, value in label.items():
            Xml.SubElement(element, key).text = value
        Xml.SubElement(element, "attributes")
    return top


def image(
    number: int, record: Record, labels: Labels, names: dict[int, str], encode: Callable[..., list[Any]]
) -> Xml.Element:
    """A photograph and its masks; `encode` gives run lengths, then the box, of pixels (H, W)."""
    size = {"width": str(record.width), "height": str(record.height)}
    element = Xml.Element("image", {"id": str(number), "name": record.image, **size})
    for part in parts(labels):
        Xml.SubElement(element, "mask", attributes(part, names[part.label], encode(part.pixels)[:-4]))
    return element


def attributes(part: Part, name: str, runs: list[Any]) -> dict[str, str]:
    """What CVAT's XML says of one mask: its label, its box, and runs of unset and set pixels in turn within that."""
    height, width = part.pixels.shape
    box = {"left": part.left, "top": part.top, "width": width, "height": height}
    found = {"label": name, "source": "auto", "occluded": 0, "z_order": 0, "rle": ", ".join(map(str, runs)), **box}
    return {key: str(value) for key, value in found.items()}
