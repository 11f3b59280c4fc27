"""The bars that kept runs of the bundled scenes are held to: trainings, the CRF, thresholds, intervals, coverage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.counts import Counts
from tools.compare import value
from tools.instrument.bar import Bar, Measured
from tools.kept import CEILING_METHOD, Run, drawing_of, learned_from_masks, place_of, read_run, setting
from tools.pairs import RESAMPLES, Place, Setting, drawn_weights, matrix, miou, study_counts

PLAIN = "cam"
RULED = ("cam", "irn", "transcam", "toco")
ENOUGH = ("cam", "irn", "transcam", "toco", "bao")
"""As many methods as a correlation is taken of, at least; those that are asked for where there are fewer."""

Number = Callable[[Run], float | None]
Values = NDArray[np.float64]
TINY = 1e-9
"""Points that are rounding, no difference."""


def kept_runs(study: Path, drawings: Sequence[int]) -> list[Run]:
    """The runs of a study on some drawings of the bundled scenes (none given: on all); none where there is no study."""
    runs = [read_run(folder) for folder in sorted(study.glob("*")) if folder.is_dir()]
    return [run for run in runs if run and wanted(drawing_of(run), drawings)]


def wanted(drawing: str, drawings: Sequence[int]) -> bool:
    """Whether a run on some drawing is asked for; runs on photographs have none, nor have those of the first scenes."""
    return drawing in map(str, drawings) if drawings else drawing != "none"


def run_bars(study: Path, drawings: Sequence[int]) -> list[Bar]:
    """All bars that are read from the runs of a study; each needs its runs on every drawing."""
    runs = kept_runs(study, drawings)
    places = [str(drawing) for drawing in drawings] or sorted({drawing_of(run) for run in runs})
    weak = [run for run in runs if not learned_from_masks(run)]
    return [
        supervised_bar(runs, places),
        *plain_bars(runs, places),
        crf_bar(weak, places),
        interval_bar(study, places),
        threshold_bar(weak, places),
        *coverage_bars(weak, places),
    ]


def lacking(runs: Sequence[Run], methods: Sequence[str], places: Sequence[str]) -> list[str]:
    """Those of some methods that have no run on one of the drawings; all where there is no drawing."""
    there = {(setting(run)[0], drawing_of(run)) for run in runs}
    return [method for method in methods if not places or any((method, place) not in there for place in places)]


def supervised_bar(runs: Sequence[Run], places: Sequence[str]) -> Bar:
    """The segmenter can learn the scenes."""
    full = [run for run in of(runs, CEILING_METHOD) if "segmenter" in run]
    found = measured(full, points("segmenter", "miou"))
    return Bar(
        "2 full supervision, val mIoU", least=75, measured=found, missing=lacking(full, [CEILING_METHOD], places)
    )


def plain_bars(runs: Sequence[Run], places: Sequence[str]) -> list[Bar]:
    """The classifier knows its classes, and its maps leave room above them."""
    oracle = measured(of(runs, PLAIN), points("seeds", "oracle", "miou"))
    tags = measured(of(runs, PLAIN), points("classifier", "map"))
    missing = lacking(of(runs, PLAIN), [PLAIN], places)
    return [
        Bar("3 plain CAM at its oracle threshold, mIoU", 40, 55, oracle, missing),
        Bar("3 tag mAP of its classifier", least=93, measured=tags, missing=missing),
    ]


def crf_bar(weak: Sequence[Run], places: Sequence[str]) -> Bar:
    """The CRF is of some use to every method, and does not make the masks by itself."""
    with_crf = [run for run in weak if run.get("masks", {}).get("protocol", {}).get("crf", "none") != "none"]
    found = measured(with_crf, less(points("masks", "miou"), points("refined", "miou")))
    return Bar("4 masks less refined maps: the CRF", 1, 8, found, lacking(with_crf, RULED, places))


def interval_bar(study: Path, places: Sequence[str]) -> Bar:
    """A difference of 2 points between methods can be seen; the ceiling is none, and stands far off."""
    counts = study_counts(study, "segmenter") if study.is_dir() else {}
    chosen = {
        name: {place: one for place, one in runs.items() if place[0] in places}
        for name, runs in counts.items()
        if name[0] != CEILING_METHOD
    }
    there = [
        {name[0] for name, runs in chosen.items() if drawing in {place[0] for place in runs}} for drawing in places
    ]
    pairable = bool(there) and all(len(methods) > 1 for methods in there)
    missing = () if pairable else RULED[:2]
    return Bar("5 half-width of paired 95 % intervals, val mIoU", most=2, measured=half_widths(chosen), missing=missing)


def threshold_bar(weak: Sequence[Run], places: Sequence[str]) -> Bar:
    """Rules that read no mask find a threshold near the best one. A fixed number is no such rule."""
    ruled = [run for run in weak if setting(run)[0] in RULED and not is_number(setting(run)[1])]
    found = measured(ruled, less(points("refined", "oracle", "miou"), points("refined", "miou")))
    missing = lacking([run for run in ruled if "refined" in run], RULED, places)
    return Bar(
        "6 refined maps below their oracle threshold (chosen with masks)", most=3, measured=found, missing=missing
    )


def coverage_bars(weak: Sequence[Run], places: Sequence[str]) -> list[Bar]:
    """Masks of methods are not told apart by how much they cover; for information, by the best of their maps.

    Better maps also spill less, so the first correlation has two causes. The second one holds the maps' oracle fixed:
    what is left of the first is what thresholds add.
    """
    masks, oracle = points("masks", "miou"), points("refined", "oracle", "miou")
    wanted = {
        "7 correlation over methods: masks mIoU, coverage error": ((masks, coverage_error), 0.6),
        "  the same, given the oracle mIoU of refined maps": ((masks, coverage_error, oracle), inf),
        "  masks mIoU, oracle mIoU of refined maps": ((masks, oracle), inf),
    }
    return [correlation_bar(name, weak, numbers, most, places) for name, (numbers, most) in wanted.items()]


def correlation_bar(
    name: str, runs: Sequence[Run], wanted: Sequence[Number], most: float, places: Sequence[str]
) -> Bar:
    """The correlation of two numbers (see `correlation`) over methods, each the mean of its runs."""
    groups: dict[str, list[list[float]]] = {}
    with_numbers = [run for run in runs if all(number(run) is not None for number in wanted)]
    for run in with_numbers:
        known = [value for number in wanted if (value := number(run)) is not None]
        groups.setdefault(setting(run)[0], []).append(known)
    means = np.array([np.mean(rows, axis=0) for rows in groups.values()]).reshape(-1, len(wanted))
    found = correlation(*means.T) if len(means) >= len(ENOUGH) else None
    more = [method for method in ENOUGH if method not in groups][: max(0, len(ENOUGH) - len(means))]
    missing = [method for method in (*groups, *more) if method in more or lacking(with_numbers, [method], places)]
    measured = [] if found is None else [Measured(f"{len(means)} methods", found)]
    return Bar(name, -most, most, measured, missing, "not enough runs", digits=2)


def correlation(one: Values, other: Values, given: Values | None = None) -> float | None:
    """Pearson's correlation, from -1 to 1; nothing where one of the two does not vary.

    With a third number `given` it is the partial correlation: of what a straight line on that number leaves of each.
    """
    if given is not None:
        if not np.ptp(given):
            return correlation(one, other)
        one, other = (values - np.polyval(np.polyfit(given, values, 1), given) for values in (one, other))
    varies = all(np.ptp(values) > TINY for values in (one, other))
    return float(np.corrcoef(one, other)[0, 1]) if varies else None


# ---------------------------------------------------------------------------------------------------------- intervals


def half_widths(counts: Mapping[Setting, Mapping[Place, Counts]]) -> list[Measured]:
    """Half the width in points of the paired interval of every two runs of one seed and drawing, as `tools.pairs`.

    Args:
        counts: of the same photographs, by setting, drawing and seed.
    """
    found: list[Measured] = []
    for place in sorted({place for runs in counts.values() for place in runs}):
        drawn = {name: resampled(runs[place]) for name, runs in sorted(counts.items()) if place in runs}
        for one, other in (pair for pair in combinations(drawn, 2) if pair[0][0] != pair[1][0]):
            low, high = np.quantile(drawn[one] - drawn[other], (0.025, 0.975))
            found.append(Measured(f"{one[0]} and {other[0]}, {where(place)}", 100 * float(high - low) / 2))
    return found


def resampled(counts: Counts) -> NDArray[np.float64]:
    """mIoU (RESAMPLES,) of photographs drawn with replacement, the same ones for all runs that counted the same."""
    ids, labels = sorted(counts.ids), 1 + int(counts.table()[:, 1:3].max(initial=0))
    cells = matrix(counts, ids, labels)
    return np.concatenate([miou(cells, weights) for weights in drawn_weights(len(ids), RESAMPLES, 0)])


# ------------------------------------------------------------------------------------------------------------ numbers


def measured(runs: Sequence[Run], number: Number) -> list[Measured]:
    """A number of every run that has it."""
    found = ((f"{setting(run)[0]}, {where(place_of(run))}", number(run)) for run in runs)
    return [Measured(name, known) for name, known in found if known is not None]


def of(runs: Sequence[Run], method: str) -> list[Run]:
    """The runs of a method."""
    return [run for run in runs if setting(run)[0] == method]


def points(*keys: str) -> Number:
    """A share among the scores of a run, times 100."""

    def number(run: Run) -> float | None:
        return None if (share := value(run, keys)) is None else 100 * share

    return number


def less(one: Number, other: Number) -> Number:
    """The difference of two numbers of a run that has both."""

    def number(run: Run) -> float | None:
        first, second = one(run), other(run)
        return None if first is None or second is None else first - second

    return number


def coverage_error(run: Run) -> float | None:
    """How far the share of foreground in the masks is from the true one, in points, at least 0."""
    error = less(points("masks", "coverage", "foreground_where_known"), points("masks", "coverage", "true_foreground"))(
        run
    )
    return None if error is None else abs(error)


def is_number(text: str) -> bool:
    """Whether a background threshold is a number, and no rule."""
    return text.replace(".", "", 1).isdigit()


def where(place: Place) -> str:
    """Drawing and seed of a run, in words."""
    return f"drawing {place[0]} seed {place[1]}"
