"""One try of the campaign, and the table of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Try:
    """Something that was tried.

    Attributes:
        kind: its row in the table.
        what: what was done, so that it can be done again.
        wrong: what was not as it should be; empty where all was right.
    """

    kind: str
    what: str
    wrong: str = ""


def table(tries: Sequence[Try]) -> str:
    """Tried, right and wrong by kind, in the order of the first of each kind, and their sum, as Markdown."""
    kinds = list(dict.fromkeys(one.kind for one in tries))
    lines = ["| what | tried | right | wrong |", "|---|---|---|---|"]
    for kind in kinds:
        lines.append(_row(kind, [one for one in tries if one.kind == kind]))
    return "\n".join([*lines, _row("**all**", tries)])


def _row(name: str, tries: Sequence[Try]) -> str:
    wrong = sum(bool(one.wrong) for one in tries)
    return f"| {name} | {len(tries)} | {len(tries) - wrong} | {wrong} |"
