"""Scores against numbers computed with another program."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.scoring.scores import confusion_matrix, iou, mean, ratio
from tests.support.golden_files import golden, load


@pytest.mark.parametrize("path", golden("miou_"))
def test_scores(path: Path) -> None:
    file = load(path)
    labels = int(file["n_classes"])
    confusion = sum(
        (
            confusion_matrix(t[:h, :w], p[:h, :w], labels)
            for t, p, (h, w) in zip(file["gt"], file["pred"], file["sizes"], strict=True)
        ),
        np.zeros((labels, labels), dtype=np.int64),
    )
    np.testing.assert_array_equal(confusion, file["confusion"])
    np.testing.assert_allclose(iou(confusion), file["iou_per_class_f64"], atol=1e-9)
    assert mean(iou(confusion)) == pytest.approx(float(file["miou_nanmean"]), abs=1e-9)
    hit, predicted, true = np.diagonal(confusion), confusion.sum(0), confusion.sum(1)
    union = hit - hit + predicted + true - hit
    over = ratio(predicted - hit, predicted)
    np.testing.assert_allclose(over, file["over_activation_per_class_f64"], atol=1e-9)
    expected = {
        "over_activation_mean_fg": over[1:],
        "precision_mean": ratio(hit, predicted),
        "recall_mean": ratio(hit, true),
        "fp_over_union_mean": ratio(predicted - hit, union),
        "fn_over_union_mean": ratio(true - hit, union),
    }
    for name, values in expected.items():
        assert mean(values) == pytest.approx(float(file[name]), abs=1e-9), name
