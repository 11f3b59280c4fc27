"""Charts as PNG (DVC's own HTML draws nothing without a network) with their numbers as CSV beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.run.files import write_atomic, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_table(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Write columns as CSV; numbers keep six significant digits."""
    write_text(path, pd.DataFrame(columns).to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG; same content, same bytes."""
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=100, metadata={"Software": None}))


def new_figure(width: float = 6.4, height: float = 3.6) -> Figure:
    """An empty figure that needs no screen."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def has_letters(text: str) -> bool:
    """Whether the letters of charts have all signs of a text."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    signs = get_font(findfont(FontProperties())).get_charmap()
    return all(ord(sign) in signs for sign in text)


def drawable(names: Sequence[str]) -> list[str]:
    """Names as a chart can show them: one without letters stands as its row in the CSV beside the chart."""
    return [name if has_letters(name) else f"row {row}" for row, name in enumerate(names, start=1)]


def save_history(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """The training history, one row for each epoch, as `history.csv` and, of any epoch, `loss.png`.

    Rows of trainings in several stages may lack terms that others have; their cells stay empty.
    """
    if not history:
        save_table(folder / "history.csv", {"epoch": [], "lr": [], "loss": []})
        return
    names = list(dict.fromkeys(name for row in history for name in row))
    columns = {name: [row.get(name, math.nan) for row in history] for name in names}
    save_table(folder / "history.csv", columns)
    figure = new_figure()
    axes = figure.add_subplot()
    terms = [name for name in names if name not in ("epoch", "lr")]
    for name in terms:
        axes.plot(columns["epoch"], columns[name], marker="o", label=name)
    axes.set(xlabel="epoch", ylabel="training loss")
    if not any(value < 0 for name in terms for value in columns[name]):
        axes.set_ylim(bottom=0)
    axes.legend()
    save_figure(folder / "loss.png", figure)


def save_curve(folder: Path, thresholds: Sequence[float], miou: Sequence[float], used: float | None) -> None:
    """mIoU against the background threshold, as `threshold_curve.csv` and `.png`, with the one in use marked."""
    save_table(folder / "threshold_curve.csv", {"threshold": thresholds, "miou": miou})
    figure = new_figure()
    axes = figure.add_subplot()
    axes.plot(thresholds, miou)
    if used is not None:
        axes.axvline(used, linestyle="--", color="grey", label=f"bg_thresh in use: {used:g}")
        axes.legend()
    axes.set(xlabel="background threshold", ylabel="mIoU", xlim=(0, 1), ylim=(0, 1))
    save_figure(folder / "threshold_curve.png", figure)


def save_calibration(folder: Path, bins: Sequence[Mapping[str, float]], ece: float) -> None:
    """How often the strongest class is right against the value of its map, as `calibration.csv` and `.png`."""
    columns = {name: [row[name] for row in bins] for name in ("value", "right", "pixels")}
    save_table(folder / "calibration.csv", columns)
    figure = new_figure(height=4.8)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], linestyle="--", color="grey", label="calibrated")
    share = [math.sqrt(pixels / max(columns["pixels"])) for pixels in columns["pixels"]]
    axes.plot(columns["value"], columns["right"], label=f"expected calibration error {ece:.3f}")
    axes.scatter(columns["value"], columns["right"], s=[120 * part for part in share])  # area: pixels in the bin
    axes.set(xlabel="value of the strongest class", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left")
    save_figure(folder / "calibration.png", figure)


def save_per_class(folder: Path, values: Mapping[str, float], title: str, quantity: str = "IoU") -> None:
    """One bar for each class, as `per_class.csv` and `.png`; values in [0, 1]."""
    save_table(folder / "per_class.csv", {"class": list(values), quantity.lower(): list(values.values())})
    figure = new_figure(height=max(2.0, 0.28 * len(values) + 0.8))
    axes = figure.add_subplot()
    bars = axes.barh(range(len(values)), list(values.values()))
    axes.set_yticks(range(len(values)), drawable(list(values)), parse_math=False)  # a class may be named $x$
    axes.invert_yaxis()
    axes.bar_label(bars, fmt="%.2f", padding=2)
    axes.set(xlabel=quantity, xlim=(0, 1), title=title)
    save_figure(folder / "per_class.png", figure)


def save_over_activation(folder: Path, shares: Mapping[str, tuple[float, float]], title: str) -> None:
    """False positives among the pixels of each class, as `over_activation.csv` and, of any class, `.png`.

    Args:
        folder: where they go.
        shares: for each class the share that is really background and the share that is another class.
        title: of the chart.
    """
    names, kinds = list(shares), ("background", "other_class")
    columns = {kind: [shares[name][number] for name in names] for number, kind in enumerate(kinds)}
    total = [sum(shares[name]) for name in names]
    save_table(folder / "over_activation.csv", {"class": names, "over_activation": total, **columns})
    if not names:
        return
    figure = new_figure(height=max(2.0, 0.28 * len(names) + 1.0))
    axes = figure.add_subplot()
    places = range(len(names))
    axes.barh(places, columns["background"], label="really background")
    bars = axes.barh(places, columns["other_class"], left=columns["background"], label="really another class")
    axes.bar_label(bars, labels=[f"{value:.2f}" for value in total], padding=2)
    axes.set_yticks(places, drawable(names), parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel="over-activation FP / (TP + FP)", xlim=(0, 1), title=title)
    axes.legend()
    save_figure(folder / "over_activation.png", figure)


def save_rules(folder: Path, rules: Mapping[str, Mapping[str, float]]) -> None:
    """mIoU, false positives and false negatives of several propagation rules, as `rules.csv` and `.png`."""
    keys = ("miou", "fpr", "fnr")
    rules = {rule: scores for rule, scores in rules.items() if all(key in scores for key in keys)}
    columns = {key: [scores[key] for scores in rules.values()] for key in keys}
    save_table(folder / "rules.csv", {"rule": list(rules), **columns})
    if not rules:
        return
    figure = new_figure(height=max(2.4, 0.6 * len(rules) + 1.0))
    axes = figure.add_subplot()
    for number, (key, values) in enumerate(columns.items()):
        bars = axes.barh([row + 0.27 * (number - 1) for row in range(len(rules))], values, height=0.25, label=key)
        axes.bar_label(bars, fmt="%.3f", padding=2)
    axes.set_yticks(range(len(rules)), list(rules), parse_math=False)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1))
    axes.legend()
    save_figure(folder / "rules.png", figure)


def save_epochs(folder: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """mIoU of each network's maps after every epoch, as `epochs.csv` and, where there are any, `epochs.png`."""
    names = ("network", "epoch", "labels_miou", "miou")
    save_table(folder / "epochs.csv", {name: [row[name] for row in rows] for name in names})
    if not rows:
        return
    figure = new_figure()
    axes = figure.add_subplot()
    table = pd.DataFrame(rows)
    for network, part in table.groupby("network"):
        axes.plot(part["epoch"], part["labels_miou"], marker="o", label=f"{network}: labels without a threshold")
        axes.plot(part["epoch"], part["miou"], marker="s", linestyle="--", label=f"{network}: with its background map")
    axes.set(xlabel="epoch", ylabel="mIoU of tracked training photographs")
    axes.legend()
    save_figure(folder / "epochs.png", figure)


def save_sampling(
    folder: Path, view: NDArray[np.uint8], before: NDArray[np.float32], after: NDArray[np.float32], title: str
) -> None:
    """Where on a photograph some cells read their features, as `sampling.csv` and `.png`.

    Args:
        folder: where they go.
        view: the photograph (H, W, 3) as the network sees it.
        before: (cells, taps, 2) row and column in pixels of the view, before the sampler learned.
        after: the same after it.
        title: of the chart.
    """
    cells, taps = np.indices(before.shape[:2])
    names = ("cell", "tap", "row", "column", "row_after", "column_after")
    values = (cells, taps, *np.moveaxis(before, -1, 0), *np.moveaxis(after, -1, 0))
    save_table(folder / "sampling.csv", {n: v.flatten().tolist() for n, v in zip(names, values, strict=True)})
    height, width = view.shape[:2]
    figure = new_figure(6.4, 0.6 + 3.2 * height / width)
    figure.suptitle(title if has_letters(title) else "", fontsize=10, parse_math=False)  # a photograph may be named $x$
    start, end = before.reshape(-1, 2), after.reshape(-1, 2)
    for axes, name, points in zip(figure.subplots(1, 2), ("before", "after"), (start, end), strict=True):
        axes.imshow(view, extent=(0, width, height, 0))
        axes.plot([start[:, 1], points[:, 1]], [start[:, 0], points[:, 0]], color="white", linewidth=1)
        axes.plot(points[:, 1], points[:, 0], "o", markersize=3, markeredgewidth=0.5, color="#d55e00", mec="white")
        axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], xlabel=name)
    save_figure(folder / "sampling.png", figure)


def save_merits(folder: Path, rule: str, thresholds: Sequence[float], curves: Mapping[str, Sequence[float]]) -> None:
    """The merit of every background threshold by a rule, as `merit.csv` and, of any store of maps, `merit.png`."""
    save_table(folder / "merit.csv", {"threshold": thresholds if curves else [], **curves})
    if not curves:
        return
    figure = new_figure()
    axes = figure.add_subplot()
    for store, merit in curves.items():
        axes.plot(thresholds, merit, label=store)
    axes.set(xlabel="background threshold", ylabel=f"merit, {rule}", xlim=(0, 1))
    axes.legend()
    save_figure(folder / "merit.png", figure)
