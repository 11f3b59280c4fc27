"""Which layout the tags have: a table, COCO's JSON, a map in JSON or YAML, or a folder for each class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yaml import YAMLError

from pipeline.config.yaml_text import parsed
from pipeline.data.sources.tags.class_folders import are_class_folders, read_class_folders
from pipeline.data.sources.tags.coco_json import coco_tags, is_coco
from pipeline.data.sources.tags.rows import EXAMPLE, TagTable
from pipeline.data.sources.tags.table import read_table
from pipeline.data.sources.tags.tag_map import map_tags
from pipeline.run.errors import UserError

TABLES, MAPS = (".csv", ".tsv"), (".json", ".yaml", ".yml")


def read_tags(path: Path, images: Path, files: Sequence[str]) -> TagTable:
    """Read tags of any layout.

    Args:
        path: a file, or the folder of the photographs itself for a folder for each class, which is also what is read
            where there is no file and nothing else that could be meant.
        images: the folder of the photographs.
        files: paths of the photographs in it.

    Raises:
        UserError: nothing can be read; it shows what would work.
    """
    if path.is_dir():
        return read_class_folders(images, files)
    if not path.exists():
        return _without_file(path, images, files)
    return read_map(path) if path.suffix.lower() in MAPS else read_table(path)


def _without_file(path: Path, images: Path, files: Sequence[str]) -> TagTable:
    """Folders of classes where no file is there to be read."""
    others = [file.name for file in sorted(path.parent.glob("*")) if file.suffix.lower() in (*TABLES, *MAPS)]
    if others:
        raise UserError(
            f"{path}: not found, but there is {', '.join(others[:5])}: name it as data.folder.tags (or . for a folder "
            "for each class)"
        )
    if are_class_folders(files):
        return read_class_folders(images, files)
    raise UserError(f"{path}: not found, nor a folder for each class; {EXAMPLE}")


def read_map(path: Path) -> TagTable:
    """Read JSON or YAML.

    Raises:
        UserError: it is neither.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        content = _json(text) if path.suffix.lower() == ".json" else parsed(text)
    except (OSError, ValueError, RecursionError, YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {EXAMPLE}") from error
    return coco_tags(path, content) if is_coco(content) else map_tags(path, content)


def _json(text: str) -> Any:
    """What JSON says; a key that stands twice, of which the last would win, is refused."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
        return found

    return json.loads(text, object_pairs_hook=once)
