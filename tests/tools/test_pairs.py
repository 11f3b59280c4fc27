"""Paired bootstrap of the difference of two methods: against a plain loop, on equal photographs alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.run.errors import UserError
from pipeline.scoring.counts import Counts, counts_path, save_counts
from pipeline.scoring.records import write_scores
from pipeline.scoring.scores import iou, mean
from tools.compare import tables
from tools.pairs import SEED, difference, pairs_table

LABELS, PHOTOGRAPHS = 3, 30
Matrices = np.ndarray


def matrices(seed: int, better: int = 0) -> Matrices:
    """Confusion matrices of photographs with 75 pixels of each true label; more are right where they are better."""
    rng, same = np.random.default_rng(seed), np.eye(LABELS, dtype=np.int64)
    found = rng.multinomial(75, np.full(LABELS, 1 / LABELS), size=(PHOTOGRAPHS, LABELS))
    moved = np.minimum(found, better) * (1 - same)
    return found - moved + same * moved.sum(axis=2, keepdims=True)


def counts(of: Matrices, order: np.ndarray | None = None) -> Counts:
    found = Counts()
    for number in range(len(of)) if order is None else order:
        found.add(f"p{number}", of[number])
    return found


def miou(of: Matrices) -> float:
    return mean(iou(of.sum(axis=0)))


def test_difference_and_interval_agree_with_a_plain_loop() -> None:
    ids = sorted(f"p{number}" for number in range(PHOTOGRAPHS))
    ours, theirs = [matrices(seed, better=9) for seed in (1, 2)], [matrices(seed) for seed in (3, 4)]
    shuffled = np.random.default_rng(0).permutation(PHOTOGRAPHS)
    one = {("0", seed): counts(of, shuffled) for seed, of in enumerate(ours)}
    base = {("0", seed): counts(of) for seed, of in enumerate(theirs)} | {("0", 9): counts(theirs[0])}
    found = difference(one, base, resamples=150)
    assert found is not None and found.pairs == 2
    assert found.mean == pytest.approx(np.mean([miou(a) - miou(b) for a, b in zip(ours, theirs, strict=True)]))
    rng, drawn = np.random.default_rng((SEED, 0)), []
    weights = [rng.multinomial(PHOTOGRAPHS, [1 / PHOTOGRAPHS] * PHOTOGRAPHS, size=size) for size in (100, 50)]
    for row in np.concatenate(weights):
        chosen = [int(name[1:]) for name, times in zip(ids, row, strict=True) for _ in range(times)]
        drawn.append(np.mean([miou(a[chosen]) - miou(b[chosen]) for a, b in zip(ours, theirs, strict=True)]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))))
    assert found.low < found.mean < found.high


def test_equal_methods_differ_by_nothing_and_pairing_narrows_the_interval() -> None:
    same = difference({("0", 0): counts(matrices(1))}, {("0", 0): counts(matrices(1))})
    assert same is not None and same[:3] == (0, 0, 0)
    related = difference({("0", 0): counts(matrices(1, better=9))}, {("0", 0): counts(matrices(1))})
    foreign = difference({("0", 0): counts(matrices(1, better=9))}, {("0", 0): counts(matrices(2))})
    assert related is not None and foreign is not None
    assert related.high - related.low < (foreign.high - foreign.low) / 2
    assert difference({("0", 0): counts(matrices(1))}, {("1", 0): counts(matrices(1))}) is None


def test_drawings_are_resampled_apart() -> None:
    one = {(str(drawing), 0): counts(matrices(drawing, better=9)) for drawing in range(4)}
    base = {(str(drawing), 0): counts(matrices(drawing + 7)) for drawing in range(4)}
    several, single = difference(one, base), difference({("0", 0): one["0", 0]}, base)
    assert several is not None and single is not None and several.pairs == 4
    assert several.high - several.low < 0.75 * (single.high - single.low)


def write_run(study: Path, method: str, seed: int, of: Counts | None, drawing: int = 0) -> None:
    folder = study / f"{method}-{seed}-{drawing}"
    protocol = {"method": method, "bg_thresh": 0.2, "seed": seed, "drawing": drawing}
    write_scores(folder, "seeds", {"miou": 0.5, "protocol": protocol, "code": {"evaluate": "eeee"}})
    if of is not None:
        save_counts(counts_path(folder / "counts", "masks"), of)


def test_table_pairs_every_method_with_the_baseline(tmp_path: Path) -> None:
    study = tmp_path / "x"
    for seed in (0, 1):
        write_run(study, "cam", seed, counts(matrices(seed)))
        write_run(study, "irn", seed, counts(matrices(seed, better=9)))
    write_run(study, "bao", 0, None)
    text = tables(study)["pairs: x"]
    header, _, row = (line.strip("| ").split(" | ") for line in text.splitlines())
    cells = dict(zip(header[:7], row, strict=False))
    assert row[:4] == ["irn", "0.2", "cam", "0.2"] and row[-3:] == ["-"] * 3
    assert float(cells["masks mIoU, difference"]) > 0 and cells["pairs of runs"] == "2"
    low, high = map(float, cells["95 % interval"].split(" to "))
    assert 0 < low < high
    assert pairs_table(study, "irn").splitlines()[2].startswith("| cam | 0.2 | irn | 0.2 | -")
    with pytest.raises(UserError, match="no run of toco"):
        pairs_table(study, "toco")


def test_methods_are_paired_with_what_they_claim_to_improve_and_with_plain_cam(tmp_path: Path) -> None:
    for method in ("cam", "toco", "toco_plain", "toco_second_stage", "somebody_else"):
        write_run(tmp_path, method, 0, counts(matrices(0)))
    pairs = {tuple(line.strip("| ").split(" | ")[0:3:2]) for line in pairs_table(tmp_path).splitlines()[2:]}
    others = {(method, "cam") for method in ("toco", "toco_plain", "toco_second_stage", "somebody_else")}
    assert pairs == others | {("toco", "toco_plain"), ("toco_second_stage", "toco")}


def test_studies_without_counts_have_no_pairs(tmp_path: Path) -> None:
    write_run(tmp_path, "cam", 0, None)
    write_run(tmp_path, "irn", 0, None)
    assert pairs_table(tmp_path) == "" and not any(place.startswith("pairs") for place in tables(tmp_path))


def test_other_photographs_are_refused_on_the_same_drawing_alone(tmp_path: Path) -> None:
    write_run(tmp_path, "cam", 0, counts(matrices(0)))
    write_run(tmp_path, "cam", 1, counts(matrices(0)[:-1]), drawing=1)
    assert pairs_table(tmp_path) == ""
    write_run(tmp_path, "irn", 0, counts(matrices(0)[:-1]))
    with pytest.raises(UserError, match=r"irn-0-0/counts/masks.npz counts other photographs than .*cam-0-0"):
        pairs_table(tmp_path)
