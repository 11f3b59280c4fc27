"""The table of experiments: short names, a row each, no wider than a terminal."""

from __future__ import annotations

from tools.experiments import table

WIDEST = 160
NUMBERS = (
    "map",
    *(f"metrics/{name}.json:{number}" for name in ("seeds", "refined") for number in ("miou", "oracle")),
    "metrics/masks.json:miou",
    "metrics/segmenter.json:miou",
)


def test_columns_have_short_names_and_lines_fit_a_terminal() -> None:
    knobs = ("bg_thresh", "cams.adcam.gamma", "classifier.optimisation.epochs")
    text = "\n".join(
        (
            ",".join(("Experiment", "rev", "typ", "Created", "parent", *NUMBERS, *knobs)),
            ",".join(("", "main", "baseline", "2026-01-31T12:00:00", "", *["0.137"] * len(NUMBERS), "preset", "", "1")),
            ",".join(
                ("gamma", "61346c5", "branch_base", "2026-01-31T12:01:00", "", *["0.14"] * len(NUMBERS), "none,0,1")
            ),
        )
    )
    header, first, second = table(text).splitlines()
    assert max(map(len, (header, first, second))) <= WIDEST
    assert (
        "seeds  seeds oracle" in header
        and "refined oracle" in header
        and "metrics/" not in header
        and "Created" not in header
    )
    assert first.split() == ["main", *["0.137"] * len(NUMBERS), "preset", "-", "1"]
    assert second.split() == ["gamma", *["0.14"] * len(NUMBERS), "none", "0", "1"]
    assert all(len(line) >= header.index(knobs[-1]) for line in (first, second)), "columns stand below each other"
