"""The bars of the instrument: what a grid lets through, and kept runs that hold, that do not, and that are missing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.cams import CamsKnobs
from pipeline.data.drawing.scene import draw_scene
from pipeline.scoring.counts import Counts, counts_path, save_counts
from pipeline.scoring.records import write_scores
from pipeline.scoring.scores import confusion_matrix, iou, mean
from tests.support import ROOT
from tools.instrument import __main__ as command
from tools.instrument.bar import HEADER, Bar, Measured, table
from tools.instrument.grid import (
    LABELS,
    SCENES,
    bound,
    cell_weights,
    compact_cams,
    grid_bars,
    scene_counts,
    through_grid,
)
from tools.instrument.runs import ENOUGH, RULED, correlation, half_widths, run_bars
from tools.pairs import difference

ALIGNED = CamsKnobs(long_side=160, scales=[1.0], batch=1)


def miou(mask: np.ndarray, labels: np.ndarray) -> float:
    return 100 * mean(iou(confusion_matrix(mask, labels, LABELS)))


def stripes(width: int, side: int = 160) -> np.ndarray:
    """A mask of upright stripes of background and of class 1."""
    return np.tile((np.arange(side) // width % 2).astype(np.uint8), (side, 1))


# --------------------------------------------------------------------------------------------------------------- grid


def test_a_mask_aligned_with_the_grid_passes_and_thin_parts_do_not() -> None:
    passed = [miou(mask, through_grid(mask, ALIGNED)[-1]) for mask in (stripes(32), stripes(12), stripes(4))]
    assert passed[0] == 100
    assert 100 > passed[1] > passed[2]


def test_every_scale_and_their_fusion_give_labels_of_the_size_of_the_mask() -> None:
    mask = draw_scene(3, "train", 1, 160)[1][:128]
    labels = through_grid(mask, compact_cams())
    assert len(labels) == len(compact_cams().scales) + 1 and all(one.shape == mask.shape for one in labels)
    coarse, fine, fused = (miou(mask, one) for one in labels)
    assert coarse < fine and coarse < fused < 100
    (alone,) = through_grid(mask, compact_cams().model_copy(update={"scales": [1.25]}))[:1]
    assert np.array_equal(alone, labels[1])


def test_cells_are_means_of_their_area_within_the_photograph() -> None:
    weights = cell_weights(3, 12, 10).numpy()
    assert np.allclose(weights, np.repeat(np.diag([1 / 4, 1 / 4, 1 / 2]), 4, axis=1)[:, :10])
    halves = cell_weights(2, 5, 5).numpy()
    assert np.allclose(halves[0], [0.4, 0.4, 0.2, 0, 0]) and np.allclose(halves[1], [0, 0, 0.2, 0.4, 0.4])


def test_scenes_are_counted_alike_each_time() -> None:
    (counts, share), (again, same) = scene_counts(101, 5), scene_counts(101, 5)
    assert np.array_equal(counts, again) and share == same
    assert counts.shape == (len(compact_cams().scales) + 1, LABELS, LABELS)
    assert counts[-1][1:].sum() / counts[-1].sum() == pytest.approx(share)


# ---------------------------------------------------------------------------------------------------------- kept runs


def keep(study: Path, method: str, seed: int = 0, drawing: int | None = 0, **changed: Any) -> None:
    """Keep a run that holds all bars, but for what is changed."""
    own: dict[str, Any] = {"bg_thresh": "colours", "crf": "irn", "map": 0.95, "oracle": 0.45, "refined": 0.43}
    own |= {"masks": 0.47, "foreground": 0.3, "val": 0.8, "counts": None} | changed
    folder = study / f"{method}-seed{seed}-drawing{drawing}"
    protocol = {"method": method, "bg_thresh": own["bg_thresh"], "seed": seed}
    protocol |= {} if drawing is None else {"drawing": drawing}
    maps = {"miou": own["refined"], "oracle": {"miou": own["oracle"], "threshold": 0.4}, "protocol": protocol}
    coverage = {"foreground_where_known": own["foreground"], "true_foreground": 0.25}
    write_scores(folder, "classifier", {"map": own["map"]})
    write_scores(folder, "seeds", maps | {"code": {"evaluate": "eeee"}})
    write_scores(folder, "refined", maps)
    labels = "full supervision" if method == "supervised" else "none"
    facts = {"crf": own["crf"], "pixel_labels": labels}
    write_scores(folder, "masks", {"miou": own["masks"], "coverage": coverage, "protocol": facts})
    write_scores(folder, "segmenter", {"miou": own["val"]})
    if own["counts"] is not None:
        save_counts(counts_path(folder / "counts", "segmenter"), own["counts"])


def bar(study: Path, start: str, *drawings: int) -> Bar:
    """The bar whose name starts so."""
    (found,) = (one for one in run_bars(study, drawings) if one.name.startswith(start))
    return found


def numbers(found: Bar) -> list[float]:
    return [one.value for one in found.measured]


@pytest.mark.parametrize(
    ("start", "method", "fitting", "value", "failing"),
    [
        ("2 full", "supervised", {"val": 0.75}, 75, {"val": 0.74}),
        ("3 plain", "cam", {"oracle": 0.54}, 54, {"oracle": 0.39}),
        ("3 tag", "cam", {"map": 0.93}, 93, {"map": 0.92}),
        ("4 masks", "bao", {"refined": 0.4, "masks": 0.48}, 8, {"masks": 0.42}),
        ("6 refined", "cam", {"refined": 0.43, "oracle": 0.46}, 3, {"refined": 0.4}),
    ],
)
def test_a_bar_holds_where_every_run_does(
    tmp_path: Path, start: str, method: str, fitting: dict[str, Any], value: float, failing: dict[str, Any]
) -> None:
    for ruled in RULED:
        keep(tmp_path, ruled)
    keep(tmp_path, method, **fitting)
    found = bar(tmp_path, start)
    assert found.holds() == "yes" and any(number == pytest.approx(value) for number in numbers(found))
    keep(tmp_path, method, seed=1, **failing)
    assert bar(tmp_path, start).holds() == "no"
    assert f"{method}, drawing 0 seed 1" in bar(tmp_path, start).source("run")


def test_bars_without_their_runs_name_the_command(tmp_path: Path) -> None:
    for study in (tmp_path, tmp_path / "none"):
        for one in run_bars(study, []):
            assert one.value() == "-" and one.holds() in ("open", "-") and one.missing
    assert bar(tmp_path, "2").source("study x --methods") == "no runs: `study x --methods supervised`"
    keep(tmp_path, "irn")
    found = bar(tmp_path, "6")
    assert found.holds() == "open" and found.missing == ["cam", "transcam", "toco"]
    assert found.source("run") == "irn, drawing 0 seed 0; none of cam, transcam, toco: `run cam transcam toco`"


def test_full_supervision_fixed_thresholds_and_masks_without_crf_are_no_part_of_other_bars(tmp_path: Path) -> None:
    keep(tmp_path, "supervised", masks=1.0)
    assert not bar(tmp_path, "4").measured and not bar(tmp_path, "7").measured
    keep(tmp_path, "cam", bg_thresh=0.45, refined=0.3, crf="none")
    assert not bar(tmp_path, "4").measured and not bar(tmp_path, "6").measured


def test_runs_of_other_drawings_and_of_photographs_are_left_out(tmp_path: Path) -> None:
    keep(tmp_path, "supervised", drawing=None, val=0.1)
    assert not bar(tmp_path, "2").measured
    keep(tmp_path, "supervised", drawing=7, val=0.8)
    keep(tmp_path, "supervised", drawing=8, val=0.9)
    assert numbers(bar(tmp_path, "2")) == pytest.approx([80, 90])
    assert numbers(bar(tmp_path, "2", 8)) == pytest.approx([90])


def test_a_bar_is_open_where_one_drawing_lacks_its_runs(tmp_path: Path) -> None:
    counts = counted(1, 200)
    for method in (*ENOUGH, "supervised"):
        keep(tmp_path, method, drawing=7, counts=counts)
    bars = [one for one in run_bars(tmp_path, [7]) if one.wanted() != "-" and not one.name.startswith("7")]
    assert [one.holds() for one in bars] == ["yes"] * 6
    assert all(one.holds() == "open" for one in run_bars(tmp_path, [7, 8]) if one in bars or one.wanted() != "-")
    keep(tmp_path, "cam", drawing=8, counts=counts)
    assert {one.holds() for one in run_bars(tmp_path, []) if one.name[0] in "2456"} == {"open"}
    assert bar(tmp_path, "3 plain").holds() == "yes"


def test_one_method_at_several_thresholds_is_one_method(tmp_path: Path) -> None:
    for number in range(len(ENOUGH)):
        keep(tmp_path, "cam", seed=number, bg_thresh=number / 10, masks=0.4 + number / 100, counts=counted(1, 9))
    assert not bar(tmp_path, "7").measured and not bar(tmp_path, "5").measured


def test_correlation_of_masks_with_what_they_cover(tmp_path: Path) -> None:
    shares = (0.3, 0.2, 0.35, 0.25, 0.28)
    for method, share in zip(ENOUGH[:4], shares, strict=False):
        keep(tmp_path, method, foreground=share, masks=0.5 - abs(share - 0.25), oracle=0.45)
    found = bar(tmp_path, "7")
    assert found.holds() == "open" and found.source("run") == f"not enough runs: `run {ENOUGH[4]}`"
    keep(tmp_path, ENOUGH[4], foreground=shares[4], masks=0.47)
    assert numbers(bar(tmp_path, "7")) == pytest.approx([-1]) and bar(tmp_path, "7").holds() == "no"
    assert not bar(tmp_path, "  masks mIoU").measured, "the oracle does not vary"
    keep(tmp_path, "amn", foreground=0.25, masks=0.4, oracle=0.3)
    found = bar(tmp_path, "7")
    assert found.holds() == "yes" and found.measured[0].on == "6 methods" and -0.6 < numbers(found)[0] < 0
    assert numbers(bar(tmp_path, "  masks mIoU"))[0] > 0.5
    assert bar(tmp_path, "  the same, given").measured[0].on == "6 methods"


def test_correlation_is_of_the_means_of_methods(tmp_path: Path) -> None:
    for number, method in enumerate(ENOUGH):
        for seed, sign in enumerate((1, -1)):
            keep(tmp_path, method, seed, foreground=0.3 + 0.01 * number + 0.02 * sign, masks=0.4 + 0.01 * number)
    assert numbers(bar(tmp_path, "7")) == pytest.approx([1])


def test_correlation_by_hand() -> None:
    one, other = np.array([1.0, 2, 3, 6]), np.array([2.0, 1, 4, 5])
    assert correlation(one, other) == pytest.approx(np.sum((one - 3) * (other - 3)) / np.sqrt(14 * 10))
    assert correlation(one, np.full(4, 0.3)) is None


def test_partial_correlation_by_hand() -> None:
    rng = np.random.default_rng(0)
    one, other, given = rng.normal(size=(3, 9)) + np.arange(9)
    xy, xz, yz = np.corrcoef(np.stack([one, other, given]))[[0, 0, 1], [1, 2, 2]]
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert correlation(one, other, given) == pytest.approx(expected)
    assert correlation(one, other, np.full(9, 0.3)) == pytest.approx(xy), "what does not vary explains nothing"
    assert correlation(one, 2 * given, given) is None, "nothing is left"


# ---------------------------------------------------------------------------------------------------------- intervals


def counted(seed: int, photographs: int, better: int = 0) -> Counts:
    """Counts of photographs with 75 pixels of each true label; more are right where they are better."""
    rng, found, same = np.random.default_rng(seed), Counts(), np.eye(3, dtype=np.int64)
    for number in range(photographs):
        cells = rng.multinomial(75, np.full(3, 1 / 3), size=3)
        moved = np.minimum(cells, better) * (1 - same)
        found.add(f"p{number}", cells - moved + same * moved.sum(axis=1, keepdims=True))
    return found


def test_half_widths_are_those_of_the_paired_intervals(tmp_path: Path) -> None:
    runs = {"cam": counted(1, 9), "irn": counted(2, 9, better=9), "toco": counted(3, 9)}
    for method, counts in runs.items():
        keep(tmp_path, method, drawing=3, counts=counts)
    found = bar(tmp_path, "5")
    assert [one.on.split(",")[0] for one in found.measured] == ["cam and irn", "cam and toco", "irn and toco"]
    paired = difference({("3", 0): runs["irn"]}, {("3", 0): runs["toco"]})
    assert paired is not None and numbers(found)[2] == pytest.approx(50 * (paired.high - paired.low))
    assert found.holds() == "no" and not bar(tmp_path, "5", 4).measured


def test_many_photographs_make_differences_visible(tmp_path: Path) -> None:
    place = ("0", 0)
    few, many = (
        half_widths({("cam", "0.2"): {place: counted(1, count)}, ("irn", "0.2"): {place: counted(2, count)}})[0].value
        for count in (20, 320)
    )
    assert many == pytest.approx(few / 4, rel=0.3)
    for method, seed in (("cam", 1), ("irn", 2)):
        keep(tmp_path, method, counts=counted(seed, 600))
    assert bar(tmp_path, "5").holds() == "yes"
    assert half_widths({("cam", "0.2"): {place: counted(1, 9)}, ("irn", "0.2"): {("0", 1): counted(2, 9)}}) == []


# ------------------------------------------------------------------------------------------------------------ command


def test_table_by_hand() -> None:
    bars = [
        Bar("a", 1, 8, [Measured("x", 2.04), Measured("y", 3)]),
        Bar("for information", measured=[Measured("x", 1)], digits=2),
        Bar("b", most=3, missing=["cam"]),
    ]
    assert table(bars, "run") == (
        "| bar             | wanted | value      | holds | from |\n"
        "| --------------- | ------ | ---------- | ----- | ---- |\n"
        "| a               | 1 to 8 | 2.0 to 3.0 | yes   | 2 numbers; least: x; most: y |\n"
        "| for information | -      | 1.00       | -     | x |\n"
        "| b               | <= 3   | -          | open  | no runs: `run cam` |"
    )


def run_command(monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, list[object]]:
    """Run the command without drawing scenes and without experiments; gives what it would have run and drawn."""
    asked: dict[str, list[object]] = {"runs": [], "drawings": []}
    grid = Bar("1 true masks", 85, measured=[Measured("drawing", 86.0)])

    def grid_bars(*drawn: object) -> list[Bar]:
        asked["drawings"].extend(drawn)
        return [grid]

    monkeypatch.setattr(command, "grid_bars", grid_bars)
    monkeypatch.setattr(command, "run_missing", lambda *places: asked["runs"].extend(places))
    monkeypatch.setattr("sys.argv", ["instrument", *words])
    command.main()
    return asked


def test_command_prints_every_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for method in (*ENOUGH, "supervised"):
        keep(tmp_path, method, counts=counted(1, 9))
    asked = run_command(monkeypatch, "--study", str(tmp_path))
    printed = capsys.readouterr().out
    rows = [re.split(r" *\| *", line.strip("| ")) for line in printed.splitlines()]
    assert tuple(rows[0]) == HEADER and [row[0][0] for row in rows[2:-2]] == list("12334567")
    assert asked == {"runs": [tmp_path, [], (0,), [None]], "drawings": [(101, 102), SCENES]}
    run_command(monkeypatch, "--study", str(tmp_path))
    assert capsys.readouterr().out == printed
    with pytest.raises(SystemExit, match="1"):
        run_command(monkeypatch, "--study", str(tmp_path), "--strict")


def test_other_drawings_are_run_and_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = run_command(monkeypatch, "--drawings", "7", "--methods", "cam", "supervised")
    own = Path(".instrument/drawings")
    assert asked == {"runs": [own, ["cam", "supervised"], (0,), [7]], "drawings": [[7], SCENES]}
    assert "`python -m tools.instrument --drawings 7 --methods supervised`" in capsys.readouterr().out
    run_command(monkeypatch)
    assert "`python -m tools.study scenes --seeds 0 --methods supervised`" in capsys.readouterr().out


def test_command_writes_the_page_and_says_where_code_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, page = tmp_path / "x", tmp_path / "page.md"
    keep(study, "cam")
    keep(study, "supervised")
    details = study / "supervised-seed0-drawing0/details/seeds.json"
    details.write_text(details.read_text().replace("eeee", "ffff"))
    page.write_text("before\n<!-- instrument -->\nformer\n<!-- end -->\nafter\n")
    run_command(monkeypatch, "--study", str(study), "--page", str(page))
    text = page.read_text()
    assert text.startswith("before\n<!-- instrument -->\n| bar ") and text.endswith("<!-- end -->\nafter\n")
    assert "former" not in text and "all methods: 2 versions of evaluate" in text


@pytest.mark.slow
def test_scenes_of_a_drawing_are_bounded_alike_each_time() -> None:
    assert bound(101, 2) == bound(101, 2)
    fused, *alone, share = grid_bars([101], 2)
    assert fused.wanted() == ">= 85" and 50 < numbers(fused)[0] < 100 and 0 < numbers(share)[0] < 100
    assert len(alone) == len(compact_cams().scales)


@pytest.mark.slow
def test_page_of_results_shows_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    if "<!-- instrument -->\n<!-- end -->" in text:
        pytest.skip("the table is not filled yet")
    monkeypatch.chdir(ROOT)
    (page := tmp_path / "page.md").write_text(text, encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["instrument", "--page", str(page)])
    command.main()
    assert page.read_text(encoding="utf-8") == text
