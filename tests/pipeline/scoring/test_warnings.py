"""Results that are no use are said, with what to try."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.scoring.warnings import label_pixels, mask_warnings, said, tag_warnings, truth_warnings


def pixels(**shares: int) -> np.ndarray:
    counts = np.zeros(256, dtype=np.int64)
    for label, count in shares.items():
        counts[int(label[1:])] = count
    return counts


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (pixels(_0=100, _255=50), "all is background; lower bg_thresh"),
        (pixels(_0=9990, _1=6, _2=4), "99.9% of the pixels are background"),
        (pixels(_0=50, _1=50), "all foreground is cat, though tags name 2 classes"),
        (pixels(_0=1, _1=50, _2=49), "data.background=false"),
        (pixels(_255=9), "every pixel is ignored"),
    ],
)
def test_masks_of_one_thing_are_said(counts: np.ndarray, words: str) -> None:
    (warning,) = mask_warnings("masks", counts, ["cat", "dog"], tagged=2)
    assert words in warning


def test_ordinary_masks_are_not() -> None:
    assert mask_warnings("masks", pixels(_0=60, _1=20, _2=20), ["cat", "dog"], tagged=2) == []
    assert mask_warnings("masks", pixels(_0=60, _1=20), ["cat"], tagged=1) == []
    assert mask_warnings("segmenter", pixels(_1=20, _2=30), ["cat", "dog"], tagged=2) == []
    assert (label_pixels(np.array([[0, 1, 255]], np.uint8)) == pixels(_0=1, _1=1, _255=1)).all()


def test_a_segmenter_that_predicts_background_alone_is_told_of_its_masks() -> None:
    (warning,) = mask_warnings("segmenter", pixels(_0=100), ["cat"], tagged=1)
    assert warning.startswith("segmenter: all is background; look at the masks")


def test_a_classifier_at_chance_is_said() -> None:
    (warning,) = tag_warnings({"cat": 0.25, "dog": 0.19}, {"cat": 0.05, "dog": 0.03})
    assert "the classifier hardly knows the tags (mAP 0.22, guessing 0.04)" in warning
    assert tag_warnings({"cat": 0.8, "dog": 0.9}, {"cat": 0.4, "dog": 0.5}) == []


def test_a_perfect_score_of_a_class_that_is_everywhere_tells_nothing() -> None:
    (warning,) = tag_warnings({"person": 1.0}, {"person": 1.0})
    assert "every validation photograph shows person" in warning
    assert tag_warnings({}, {"cat": 0.0}) == []


def test_true_masks_without_background_hint_at_the_knob() -> None:
    assert truth_warnings(0.6) == []
    assert "the true masks hold 1.0% background" in truth_warnings(0.99)[0]


def test_warnings_are_printed_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert said([]) == {} and said(["a"]) == {"warnings": ["a"]}
    assert capsys.readouterr().out == "WARNING: a\n"
