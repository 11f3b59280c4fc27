"""What tags cannot teach, said before anything is trained, each with what to do."""

from __future__ import annotations

from pipeline.data.manifest import Manifest

FEW = 10
"""Photographs of a class below which its maps are hardly more than chance."""
FEWEST = 20
"""Training photographs in all below which no classifier learns."""
NEARLY_ALL = 0.95


def data_warnings(manifest: Manifest) -> list[str]:
    """Sentences about training photographs that teach little; none where all is well."""
    train = manifest.split("train")
    count, tagged = len(train.records), train.tag_matrix().sum(axis=0).astype(int)
    counts = dict(zip(train.classes, tagged.tolist(), strict=True))
    found = [_everywhere(name, number, count) for name, number in counts.items() if number >= NEARLY_ALL * count]
    if few := {name: number for name, number in counts.items() if 0 < number < min(FEW, NEARLY_ALL * count)}:
        shown = ", ".join(f"{name} ({number})" for name, number in sorted(few.items(), key=lambda item: item[1]))
        found.append(
            f"fewer than {FEW} train photographs show {shown}: tags teach little about so few; add photographs, join "
            "classes, or choose others with data.classes"
        )
    if count < FEWEST:
        found.append(f"{count} train photographs are few: masks will be poor; some hundreds are a good beginning")
    if len(counts) == 1 and not found:
        (name,) = counts
        found.append(
            f"{name} is the only class: it is learned against the {count - counts[name]} train photographs without it, "
            "so these should look alike in all but that"
        )
    return found


def _everywhere(name: str, number: int, count: int) -> str:
    """About a class that leaves nothing to compare it with."""
    what = "every train photograph shows" if number == count else f"{number} of {count} train photographs show"
    return (
        f"{what} {name}, so tags cannot teach where it is: its masks will be no better than chance; add photographs of "
        "the same places without it, with an empty label, about as many as with it"
    )


def class_counts(manifest: Manifest) -> dict[str, tuple[int, int]]:
    """How many training and validation photographs show each class, the rarest class first."""
    train, val = (manifest.split(split).tag_matrix().sum(axis=0).astype(int).tolist() for split in ("train", "val"))
    counts = dict(zip(manifest.classes, zip(train, val, strict=True), strict=True))
    return dict(sorted(counts.items(), key=lambda item: sum(item[1])))


def class_table(manifest: Manifest) -> list[str]:
    """The counts as lines of a table."""
    width = max(len("class"), *map(len, manifest.classes))
    rows = [("class", "train", "val"), *((name, *counts) for name, counts in class_counts(manifest).items())]
    return [f"{name:{width}} {train:>7} {val:>7}" for name, train, val in rows]
