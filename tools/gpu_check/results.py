"""The results of a check: rows as JSON, and as the Markdown tables of a page."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.run.errors import UserError
from pipeline.run.files import read_json, write_json, write_text

Row = dict[str, Any]
Facts = Mapping[str, Any]
Part = Literal["agreement", "presets"]
JSON, MARKDOWN = "gpu_check.json", "gpu_check.md"
PLACE = "gpu-check"
PRESET_COLUMNS: dict[str, Callable[[Row], str]] = {
    "method": lambda row: row["method"],
    "stage": lambda row: row["stage"],
    "seconds": lambda row: f"{row['seconds']:.1f}",
    "GPU memory, GiB": lambda row: text(row.get("peak_gib")),
    "steps": lambda row: text(row.get("steps")),
    "ms a step": lambda row: text(row.get("step_ms")),
    "images/s": lambda row: text(row.get("images_s")),
    "weights finite": lambda row: yes_or_no(row.get("finite")),
    "hash of weights": lambda row: text(row.get("weights")),
    "no deterministic form": lambda row: text(", ".join(row.get("nondeterministic", ())) or None),
    "error": lambda row: text(row.get("error")),
}


class Results:
    """Rows are printed and written as they come, so that a run that is killed leaves what it has."""

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.folder = folder.absolute()
        self.start = time.perf_counter()
        self.content: dict[str, Any] = {"facts": {**facts, "seconds": None}, "agreement": [], "presets": []}

    def add(self, part: Part, row: Row) -> None:
        """Keep a row."""
        self.content[part].append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        self.write()

    def finish(self) -> None:
        """Note that all is done, and how long it took."""
        self.content["facts"]["seconds"] = round(time.perf_counter() - self.start)
        self.write()

    def write(self) -> None:
        """Write both files."""
        write_json(self.folder / JSON, self.content)
        write_text(self.folder / MARKDOWN, self.markdown)

    @property
    def markdown(self) -> str:
        """The tables."""
        return markdown(self.content)


def page_tables(folder: Path) -> str:
    """The tables of a run that is kept, for a page.

    Raises:
        UserError: it was a rehearsal, or was not on a GPU.
    """
    content = read_json(folder / JSON, "gpu_check")
    facts = content["facts"]
    if facts["tiny"] or facts["device"] == "cpu":
        raise UserError(f"{folder / JSON} is of a rehearsal or of a CPU; a page takes a whole run on a GPU")
    return markdown(content).strip()


def markdown(content: Mapping[str, Any]) -> str:
    """All results as Markdown."""
    parts = [caption(content["facts"])]
    if rows := content["presets"]:
        parts.append(preset_table(rows))
    if rows := content["agreement"]:
        parts.append(agreement_table(rows))
    return "\n\n".join(parts) + "\n"


def caption(facts: Facts) -> str:
    """What was run, on what."""
    size = "small networks and sizes" if facts["tiny"] else f"{facts['photographs']} drawn scenes of {facts['side']} px"
    words = [
        f"{facts['device']}, {facts['processes']} process{'es' if facts['processes'] > 1 else ''}",
        f"PyTorch {facts['torch']}",
        f"networks in {facts['precision']}",
        size,
    ]
    seconds = facts["seconds"]
    end = "The run was ended before it was done." if seconds is None else f"The run took {seconds} s."
    return f"{'; '.join(words)}. {end}"


def preset_table(rows: Sequence[Row]) -> str:
    """A line for each stage that had something to do and was not run for a method before."""
    own = [row for row in rows if not row.keys() & {"idle", "same_as"}]
    return table(list(PRESET_COLUMNS), [[cell(row) for cell in PRESET_COLUMNS.values()] for row in own])


def agreement_table(rows: Sequence[Row]) -> str:
    """A line for each case, a column for each number format: largest difference over largest value, equal argmax."""
    formats = list(dict.fromkeys(row["format"] for row in rows if row["format"] != "all"))
    cases: dict[str, dict[str, Row]] = {}
    for row in rows:
        cases.setdefault(row["case"], {})[row["format"]] = row
    lines = [
        [case, *(agreement_cell(found.get(word) or found.get("all")) for word in formats)]
        for case, found in cases.items()
    ]
    return table(["beside the CPU in float32", *formats], lines)


def agreement_cell(row: Row | None) -> str:
    """Difference and equal argmax of a case in one format."""
    if row is None:
        return "-"
    if "error" in row:
        return text(row["error"])
    if row["difference"] is None:
        return "not finite"
    return f"{row['difference']:.1e}, {100 * row['argmax']:.2f} %"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


def yes_or_no(value: bool | None) -> str:
    """A cell for a truth value, in which no is hard to miss."""
    return text(None if value is None else "yes" if value else "NO")


def text(value: object) -> str:
    """A cell; a dash where there is nothing."""
    return "-" if value is None else str(value).replace("|", "/")
