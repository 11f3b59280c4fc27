"""A bar, what was measured for it, and the table of all bars."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

HEADER = ("bar", "wanted", "value", "holds", "from")


class Measured(NamedTuple):
    """A number and what it was measured on, in words."""

    on: str
    value: float


class Bar(NamedTuple):
    """A bar and the numbers that must all stand within its ends.

    Attributes:
        name: what is measured, in points unless it says otherwise.
        least: the lower end. A bar without an end is there for information.
        most: the upper end.
        measured: the numbers.
        missing: methods whose runs are needed and not there.
        shortage: what to say where they leave nothing to measure.
        digits: decimals that are shown.
    """

    name: str
    least: float = -inf
    most: float = inf
    measured: Sequence[Measured] = ()
    missing: Sequence[str] = ()
    shortage: str = "no runs"
    digits: int = 1

    def wanted(self) -> str:
        """Its ends in words."""
        if self.least == -inf:
            return "-" if self.most == inf else f"<= {self.most:g}"
        return f">= {self.least:g}" if self.most == inf else f"{self.least:g} to {self.most:g}"

    def value(self) -> str:
        """The least and the greatest number."""
        shown = [f"{one.value:.{self.digits}f}" for one in (self.lowest(), self.highest())] if self.measured else ["-"]
        return " to ".join(dict.fromkeys(shown))

    def holds(self) -> str:
        """`yes` or `no`; `open` where runs are missing and those that are there hold; a dash for information."""
        if self.wanted() == "-":
            return "-"
        if not all(self.least <= one.value <= self.most for one in self.measured):
            return "no"
        return "yes" if self.measured and not self.missing else "open"

    def source(self, command: str) -> str:
        """Where the numbers come from, and the command, completed by methods, that makes those that are missing."""
        parts = [one.on for one in self.measured]
        if len(parts) > 1:
            parts = [f"{len(parts)} numbers; least: {self.lowest().on}; most: {self.highest().on}"]
        if self.missing:
            shortage = f"none of {', '.join(self.missing)}" if parts else self.shortage
            parts.append(f"{shortage}: `{command} {' '.join(self.missing)}`")
        return "; ".join(parts)

    def lowest(self) -> Measured:
        """The least number."""
        return min(self.measured, key=lambda one: one.value)

    def highest(self) -> Measured:
        """The greatest number."""
        return max(self.measured, key=lambda one: one.value)


def table(bars: Sequence[Bar], command: str) -> str:
    """All bars as aligned Markdown, which also reads as plain text; `command` as in `Bar.source`."""
    rows = [HEADER, *((bar.name, bar.wanted(), bar.value(), bar.holds(), bar.source(command)) for bar in bars)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER) - 1)]
    lines = [[*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]] for row in rows]
    lines.insert(1, ["-" * width for width in (*widths, len(HEADER[-1]))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
