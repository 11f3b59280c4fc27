"""Data sets: each module turns one kind into a `Source`; a new kind is a new module and a line here."""

from collections.abc import Callable

from pipeline.config import PrepareDataConfig
from pipeline.sources.folder import read_folder
from pipeline.sources.scenes import read_scenes
from pipeline.sources.source import Source
from pipeline.sources.voc2012 import read_voc2012

SOURCES: dict[str, Callable[[PrepareDataConfig], Source]] = {
    "folder": read_folder,
    "scenes": read_scenes,
    "voc2012": read_voc2012,
}
