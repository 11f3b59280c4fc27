"""Data sets: each module turns one kind into a `Source`; a new kind is a new module and a line here."""

from collections.abc import Callable

from pipeline.config.params import PrepareDataConfig
from pipeline.data.sources.folder import read_folder
from pipeline.data.sources.scenes import read_scenes
from pipeline.data.sources.source import Source
from pipeline.data.sources.voc2012 import read_voc2012

SOURCES: dict[str, Callable[[PrepareDataConfig], Source]] = {
    "folder": read_folder,
    "scenes": read_scenes,
    "voc2012": read_voc2012,
}
