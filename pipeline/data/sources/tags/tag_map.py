"""A map from photographs to tags, in JSON or YAML.

a.jpg: [cat, dog]
b.jpg: cat
c.jpg: []
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.data.sources.tags.rows import EXAMPLE, TagRow, TagTable, faults, sorted_tags
from pipeline.data.sources.tags.separators import parted


def map_tags(path: Path, content: Any) -> TagTable:
    """The rows of a map.

    Args:
        path: for messages.
        content: what JSON or YAML gave.
    """
    if not isinstance(content, dict) or not content:
        what = f"a {type(content).__name__}" if content else "nothing"
        return TagTable([], problems=[f"{path}: holds {what}, no map from photographs to tags; {EXAMPLE}"])
    notes: list[str] = []
    problems: list[str] = []
    kept = {str(name): tags for name, tags in content.items() if _is_tags(path, name, tags, problems)}
    texts = [name for name, tags in kept.items() if isinstance(tags, str)]
    words = dict(zip(texts, parted(path, [kept[name] for name in texts], notes, problems), strict=True))
    rows = []
    for name, tags in kept.items():
        row = TagRow(f"entry {name!r}", name.strip(), words[name] if name in words else sorted_tags(tags or []))
        wrong = faults(row)
        problems += [f"{path}, {row.place}: {fault}" for fault in wrong]
        rows += [] if wrong else [row]
    return TagTable(rows, notes, problems)


def _is_tags(path: Path, name: Any, tags: Any, problems: list[str]) -> bool:
    """Whether a value of the map is text, a list of texts, or nothing."""
    if tags is None or isinstance(tags, str) or (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        return True
    problems.append(f"{path}, entry {name!r}: {tags!r} is no list of texts; write them in quotation marks, or []")
    return False
