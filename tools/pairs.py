"""Whether two methods differ on the same photographs: paired bootstrap of the difference of their mIoU.

Every method of a study is paired with the one that its preset claims to improve, and with plain CAM, run by run: the
same training seed, the same drawing. One resample
draws photographs with replacement, as many as there are, for each drawing anew; both methods, and all trainings on that
drawing, get the same ones. The difference is that of the mIoU of all drawn photographs together, mean over the pairs of
runs, and the interval holds 95 % of the resamples. It says what other photographs might have given, not what another
training might: several seeds and drawings show that.

Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13 (percentile interval).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from pipeline.config.presets import baseline as claimed_baseline
from pipeline.run.errors import UserError
from pipeline.scoring.counts import Counts, counts_path, load_counts
from pipeline.scoring.scores import iou
from tools.kept import KEPT_COUNTS, place_of, read_run, setting

PLAIN = "cam"
RESAMPLES, CHUNK, SEED = 2_000, 100, 0
SCORED = {"masks": "masks mIoU", "segmenter": "val mIoU"}

Setting = tuple[str, str]
Place = tuple[str, int]
Truth = dict[str, dict[int, int]]


class Difference(NamedTuple):
    """A difference of mIoU, the ends of its interval, and how many pairs of runs it is the mean of."""

    mean: float
    low: float
    high: float
    pairs: int


def pairs_table(study: Path, baseline: str | None = None) -> str:
    """One row for each setting and each setting of its baselines, or nothing where the study has no counts to pair.

    Args:
        study: folder of its runs.
        baseline: of every method; none: each is paired with the one that it claims to improve, and with plain CAM.

    Raises:
        UserError: runs on the same drawing counted different photographs, or none is of a baseline that was named.
    """
    counts = {artefact: study_counts(study, artefact) for artefact in SCORED}
    settings = sorted({name for found in counts.values() for name in found})
    if settings and baseline and all(method != baseline for method, _ in settings):
        raise UserError(f"{study} has no run of {baseline} that kept its counts; name another --baseline")
    header = ["method", "background threshold", "less", "its threshold"]
    columns = [text for name in SCORED.values() for text in (f"{name}, difference", "95 % interval", "pairs of runs")]
    lines = [[*header, *columns], ["---"] * len(header) + ["---:"] * len(columns)]
    for one, base in pairs_of(settings, baseline):
        cells = [text for found in counts.values() for text in cells_of(found.get(one, {}), found.get(base, {}))]
        lines.append([*one, *base, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if len(lines) > 2 else ""


def pairs_of(settings: Sequence[Setting], baseline: str | None) -> list[tuple[Setting, Setting]]:
    """Each setting with those of its baselines; see `pairs_table`."""
    found: list[tuple[Setting, Setting]] = []
    for one in settings:
        names = (baseline,) if baseline else dict.fromkeys((claimed_baseline(one[0]), PLAIN))
        found += [(one, base) for name in names for base in settings if base[0] == name and base != one]
    return found


def cells_of(one: Mapping[Place, Counts], base: Mapping[Place, Counts]) -> list[str]:
    """Difference, interval and number of pairs in points; dashes where no two runs have the same seed and drawing."""
    if (found := difference(one, base)) is None:
        return ["-"] * 3
    return [f"{100 * found.mean:+.1f}", f"{100 * found.low:+.1f} to {100 * found.high:+.1f}", str(found.pairs)]


# ------------------------------------------------------------------------------------------------------------- counts


def study_counts(study: Path, artefact: str) -> dict[Setting, dict[Place, Counts]]:
    """The counts that the runs of a study have kept of an artefact, by setting, drawing and seed.

    Raises:
        UserError: runs on the same drawing counted different photographs.
    """
    found: dict[Setting, dict[Place, Counts]] = {}
    first: dict[str, tuple[Path, Truth]] = {}
    for folder in sorted(path for path in study.iterdir() if path.is_dir()):
        path = counts_path(folder / KEPT_COUNTS, artefact)
        if path.exists() and (counts := load_counts(path)).ids:
            run = read_run(folder)
            drawing, _ = place = place_of(run)
            other, truth = first.setdefault(drawing, (path, true_pixels(counts)))
            if truth != true_pixels(counts):
                raise UserError(
                    f"{path} counts other photographs than {other}, or the same ones with another truth, so they "
                    "cannot be paired; keep runs on other data (data.limit, data.classes, ...) in another study"
                )
            runs = found.setdefault(setting(run), {})
            if place in runs:
                raise UserError(
                    f"{folder} has the method, background threshold, seed and drawing of another run of this study, so "
                    "a table cannot tell them apart; keep runs with other knobs in another study"
                )
            runs[place] = counts
    return found


def true_pixels(counts: Counts) -> Truth:
    """How many pixels of each true label each photograph has."""
    found: Truth = {name: {} for name in counts.ids}
    for photograph, true, _, pixels in counts.table().tolist():
        labels = found[counts.ids[photograph]]
        labels[true] = labels.get(true, 0) + pixels
    return found


def matrix(counts: Counts, ids: Sequence[str], labels: int) -> csr_array:
    """(photographs in the order of `ids`, labels * labels) pixels, sparse."""
    order = {name: row for row, name in enumerate(ids)}
    photograph, true, predicted, pixels = counts.table().T
    rows = np.array([order[name] for name in counts.ids])[photograph]
    return csr_array((pixels, (rows, true * labels + predicted)), shape=(len(ids), labels * labels))


# ---------------------------------------------------------------------------------------------------------- bootstrap


def difference(
    one: Mapping[Place, Counts], base: Mapping[Place, Counts], resamples: int = RESAMPLES
) -> Difference | None:
    """The mIoU of one method less that of another, mean over pairs of runs; nothing where there is no pair."""
    places = sorted(one.keys() & base.keys())
    if not places:
        return None
    drawings = sorted({drawing for drawing, _ in places})
    observed, drawn = np.zeros(1), np.zeros(resamples)
    for number, drawing in enumerate(drawings):
        pairs = [(one[place], base[place]) for place in places if place[0] == drawing]
        ids = sorted(pairs[0][0].ids)
        labels = 1 + max(int(c.table()[:, 1:3].max(initial=0)) for pair in pairs for c in pair)
        matrices = [(matrix(a, ids, labels), matrix(b, ids, labels)) for a, b in pairs]
        observed += summed(matrices, np.ones((1, len(ids)), dtype=np.int64))
        weights = drawn_weights(len(ids), resamples, number)
        drawn += np.concatenate([summed(matrices, part) for part in weights])
    low, high = np.quantile(drawn / len(places), (0.025, 0.975))
    return Difference(float(observed[0]) / len(places), float(low), float(high), len(places))


def drawn_weights(photographs: int, resamples: int, number: int) -> Iterator[NDArray[np.int64]]:
    """How often each resample draws each photograph, some resamples at a time; the same for every pair of methods."""
    rng = np.random.default_rng((SEED, number))
    for start in range(0, resamples, CHUNK):
        share = np.full(photographs, 1 / photographs)
        yield rng.multinomial(photographs, share, size=min(CHUNK, resamples - start))


def summed(matrices: Sequence[tuple[csr_array, csr_array]], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """For each row of weights, the difference of the mIoU of weighted photographs, summed over pairs of runs."""
    parts = [miou(first, weights) - miou(second, weights) for first, second in matrices]
    return np.sum(parts, axis=0, dtype=np.float64)


def miou(counts: csr_array, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """mIoU of photographs counted as often as the weights say, for each row of weights."""
    flat = (counts.T @ weights.T).T
    labels = round(flat.shape[1] ** 0.5)
    per_label = iou(flat.reshape(-1, labels, labels))
    known = ~np.isnan(per_label)
    return np.where(known, per_label, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
