"""Pictures of the report: photographs with labels or heat on top, and charts, as data URIs of reproducible bytes."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.labels import IGNORE
from pipeline.data.images import scaled_size
from pipeline.data.masks import voc_palette
from pipeline.scoring.charts import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Picture = NDArray[np.uint8]
SIDE = 240
COLOURS = {"seeds": "#56b4e9", "refined": "#0072b2", "masks": "#e69f00", "segmenter": "#009e73"}  # Okabe and Ito
INK = "#3b4252"
ORACLE = "oracle: threshold chosen with masks"
HEAT_STEPS = 6


# ---------------------------------------------------------------------------------------------------------- overlays


def thumbnail_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a photograph in the report: its longer side at most `SIDE`, never enlarged."""
    return scaled_size(size, min(SIDE, max(size)))


def label_overlay(photograph: Picture, labels: NDArray[np.uint8]) -> Picture:
    """Labels (H, W) over a photograph (H, W, 3): class colours, background faded, 255 hatched, white outlines."""
    base = photograph.astype(np.float32)
    colour = voc_palette()[labels].astype(np.float32)
    background, ignored = (labels == 0)[..., None], (labels == IGNORE)[..., None]
    rows, columns = np.indices(labels.shape)
    hatch = np.where((rows + columns) % 8 < 3, 250, 130)[..., None]
    mixed = np.where(background, 0.6 * base + 0.4 * 235, 0.35 * base + 0.65 * colour)
    mixed = np.where(ignored, 0.45 * base + 0.55 * hatch, mixed)
    mixed[_edges(labels)] = 255
    return mixed.round().astype(np.uint8)


def _edges(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels whose neighbour to the right or below has another label."""
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def heat_overlay(photograph: Picture, heat: NDArray[np.float32]) -> Picture:
    """A map (H, W) in [0, 1] over the grey photograph (H, W, 3)."""
    grey = photograph.astype(np.float32).mean(axis=2, keepdims=True)
    return (0.4 * grey + 0.6 * _heat_colours(heat)).round().astype(np.uint8)


def _heat_colours(values: NDArray[np.float32]) -> NDArray[np.float32]:
    from matplotlib import colormaps

    colours: NDArray[np.float32] = (255 * colormaps["inferno"](np.clip(values, 0, 1))[..., :3]).astype(np.float32)
    return colours


def heat_scale() -> list[str]:
    """CSS colours of the heat map from 0 to 1."""
    return [css_colour(colour) for colour in _heat_colours(np.linspace(0, 1, HEAT_STEPS, dtype=np.float32)).round()]


def css_colour(rgb: Sequence[float] | NDArray[np.generic]) -> str:
    """A colour of 0 to 255 as CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*(int(part) for part in rgb))


def picture_uri(picture: Picture) -> str:
    """A picture (H, W, 3) as a JPEG inside a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def png_uri(path: Path) -> str:
    """A PNG file inside a data URI."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


# ------------------------------------------------------------------------------------------------------------ charts


@dataclass(frozen=True)
class Curve:
    """mIoU of one artefact against the background threshold.

    Attributes:
        artefact: its name.
        thresholds: of the curve.
        scores: mIoU at each threshold.
        used: the background threshold in use; words (none, otsu) have no place on the curve.
        score: mIoU with it.
        oracle: the best threshold, which only masks can tell, and its mIoU.
    """

    artefact: str
    thresholds: Sequence[float]
    scores: Sequence[float]
    used: float | str
    score: float
    oracle: tuple[float, float]


def figure_uri(figure: Figure) -> str:
    """A figure as SVG inside a data URI; same content, same bytes."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "tags2masks", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _axes(figure: Figure) -> Axes:
    """Axes without clutter."""
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9aa3b2")
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color="#e5e9f0", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _legend(figure: Figure, axes: Axes, columns: int = 1) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def miou_figure(rows: Sequence[tuple[str, str, float | None, float | None]]) -> Figure:
    """One bar per artefact.

    Args:
        rows: artefact, split, mIoU and oracle mIoU; None for what has no number.
    """
    figure = new_figure(4.8, 2.7)
    axes = _axes(figure)
    axes.grid(visible=False, axis="y")
    names = [f"{artefact} ({split})" for artefact, split, _, _ in rows]
    axes.barh(names, [row[2] or 0.0 for row in rows], height=0.62, color=[COLOURS[row[0]] for row in rows])
    for place, row in enumerate(rows):
        number = "no masks" if row[2] is None else f"{row[2]:.3f}"
        axes.text(1.02, place, number, transform=axes.get_yaxis_transform(), va="center", fontsize=9, color=INK)
    oracles = [(row[3], name) for row, name in zip(rows, names, strict=True) if row[3] is not None]
    if oracles:
        values, places = zip(*oracles, strict=True)
        axes.plot(values, places, "D", label=ORACLE, **_outlined(INK))
        _legend(figure, axes)
    best = max([0.0, *(value for row in rows for value in row[2:] if value is not None)])
    axes.set_xlim(0, min(1.0, 1.1 * best) if best else 1)
    axes.set_xlabel("mIoU", fontsize=9, color=INK)
    axes.invert_yaxis()
    return figure


def _with_zero(values: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis that shows 0 and a little beyond the values, some of which may be NaN."""
    known = [0.0, *(value for value in values if not math.isnan(value))]
    low, high = 1.08 * min(known), 1.08 * max(known)
    return low, high if high > low else 1


def _outlined(colour: str) -> dict[str, Any]:
    return {
        "markerfacecolor": "white",
        "markeredgecolor": colour,
        "markeredgewidth": 1.5,
        "markersize": 7,
        "linestyle": "none",
        "clip_on": False,
    }


def curve_figure(curves: Sequence[Curve], masks: Mapping[str, Any] | None = None) -> Figure:
    """The threshold curves in one chart: a full point for the threshold in use, an outlined one for the oracle.

    Args:
        curves: of maps.
        masks: the curve of masks after the CRF, as `pipeline.scoring.mask_curve` gives it.
    """
    figure = new_figure(4.8, 3.6)
    axes = _axes(figure)
    for number, curve in enumerate(curves):
        colour = COLOURS[curve.artefact]
        dashes, width = ("--", 2) if number else ("-", 3)  # both are seen where two curves are equal
        axes.plot(curve.thresholds, curve.scores, dashes, color=colour, linewidth=width, label=curve.artefact)
        if isinstance(curve.used, str):
            label = f"{curve.artefact}, bg_thresh {curve.used}: {curve.score:.3f}"
            axes.axhline(curve.score, color=colour, linestyle=":", label=label)
        else:
            label = f"{curve.artefact}, in use: {curve.score:.3f} at {curve.used:g}"
            point: dict[str, Any] = {"color": colour, "markersize": 8 - 3 * number, "zorder": 3, "clip_on": False}
            axes.plot([curve.used], [curve.score], "o", label=label, **point)
        label = f"{curve.artefact}, oracle: {curve.oracle[1]:.3f} at {curve.oracle[0]:g}"
        style = _outlined(COLOURS[curve.artefact]) | {"markersize": 8 - 3 * number, "zorder": 3}
        axes.plot([curve.oracle[0]], [curve.oracle[1]], "D", label=label, **style)
    scores = [score for curve in curves for score in (*curve.scores, curve.score)]
    if masks:
        scores += masks["miou"]
        _mask_curve(axes, masks)
    axes.set(xlim=(0, 1), ylim=_with_zero(scores))
    axes.set_xlabel("background threshold", fontsize=9, color=INK)
    axes.set_ylabel("mIoU", fontsize=9, color=INK)
    _legend(figure, axes, columns=2)
    return figure


def _mask_curve(axes: Axes, masks: Mapping[str, Any]) -> None:
    """Masks after the CRF at each threshold, with the best one outlined."""
    best, colour = masks["best"], COLOURS["masks"]
    line: dict[str, Any] = {"color": colour, "marker": ".", "linewidth": 1.5}
    axes.plot(masks["thresholds"], masks["miou"], label=f"masks of {masks['images']} photographs", **line)
    label = f"masks, oracle: {best['miou']:.3f} at {best['threshold']:g}"
    axes.plot([best["threshold"]], [best["miou"]], "D", label=label, **_outlined(colour) | {"markersize": 5})


def calibration_figure(tables: Mapping[str, Mapping[str, Any]]) -> Figure:
    """How often the strongest class is right against the value of its map.

    Args:
        tables: of each artefact, as `pipeline.scoring.calibration` gives them.
    """
    figure = new_figure(4.8, 3.6)
    axes = _axes(figure)
    axes.plot([0, 1], [0, 1], linestyle=":", color="#9aa3b2", label="calibrated")
    for number, (name, table) in enumerate(tables.items()):
        points = [[row[key] for row in table["bins"]] for key in ("value", "right")]
        dashes, width = ("--", 2) if number else ("-", 3)
        label = f"{name}, calibration error {table['ece']:.3f}"
        axes.plot(*points, dashes, color=COLOURS[name], linewidth=width, marker="o", markersize=4, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_xlabel("value of the strongest class", fontsize=9, color=INK)
    axes.set_ylabel("share of pixels that are right", fontsize=9, color=INK)
    _legend(figure, axes)
    return figure


def training_figure(history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss and its terms against the epoch; NaN where a term does not count."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(4.8, 2.7)
    axes = _axes(figure)
    terms = [name for name in history if name not in ("epoch", "lr")]
    for name in terms:
        axes.plot(history["epoch"], history[name], marker="o", markersize=4, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylim(_with_zero([value for name in terms for value in history[name]]))
    axes.set_xlabel("epoch", fontsize=9, color=INK)
    axes.set_ylabel("training loss", fontsize=9, color=INK)
    if len(terms) > 1:
        _legend(figure, axes, columns=3)
    return figure
