"""Stage predict: what is there is not predicted again, the CRF scales with the photograph."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.build import build, classifier_description
from models.kernels import KERNELS, Kernels
from models.registry import SEGMENTERS
from pipeline import predict
from pipeline.data.manifest import PREPARED, load_manifest, save_manifest
from pipeline.data.masks import read_mask
from pipeline.prediction import predictor
from pipeline.run.errors import UserError
from pipeline.run.files import sha256
from pipeline.training.weights import load_initial, save_network
from tests.support.processes import forked
from tests.support.project import PHOTOGRAPHS, SIZE, coarse, configure, write_network, write_photographs
from tests.support.stages import run

NETWORK: dict[str, Any] = {"network": "efficientnet_lite0_deeplabv3plus", "labels": 3}
VAL = ("2", "3", "4", "5")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two training and four validation photographs, and a segmenter."""
    monkeypatch.chdir(tmp_path)
    write_photographs(Path(), val=len(VAL), paint=coarse)
    write_segmenter()


def write_segmenter(seed: int = 0) -> None:
    """A head of random weights on a trunk that sees something."""
    torch.manual_seed(seed)
    network = build(NETWORK)
    load_initial(network, NETWORK["network"], "imagenet", SEGMENTERS[NETWORK["network"]].imagenet)
    save_network(Path("data/segmenter"), network, NETWORK)


def told(**knobs: Any) -> None:
    configure(data__name="folder", data__root=PHOTOGRAPHS, predict__scales=[1.0], **knobs)


def predictions() -> dict[str, str]:
    return {path.stem: sha256(path) for path in Path("data/predictions").iterdir()}


def test_validation_photographs_alone_are_predicted_in_their_size() -> None:
    told(predict__long_side=64)
    run(predict)
    assert predictions().keys() == set(VAL)
    found = [read_mask(Path(f"data/predictions/{name}.png"), SIZE) for name in VAL]
    assert set(np.unique(found).tolist()) <= {0, 1, 2} and len(np.unique(found)) > 1


def test_test_photographs_are_predicted_apart() -> None:
    manifest = load_manifest()
    (*kept, test) = manifest.records
    save_manifest(PREPARED, replace(manifest, records=tuple(kept)), [test])
    told()
    run(predict)
    assert predictions().keys() == {*VAL} - {test.id}
    assert [path.name for path in Path("data/test_predictions").iterdir()] == [f"{test.id}.png"]
    save_manifest(PREPARED, replace(manifest, records=tuple(kept)))
    run(predict)
    assert not any(Path("data/test_predictions").iterdir())


def test_killed_predictions_go_on_where_they_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    told()
    run(predict)
    whole = predictions()
    for folder in Path(".resume/predict").iterdir():
        folder.rename(folder.with_name("kept-" + folder.name))
    write, written = predict.write_mask, Path("written.txt")

    def note(path: Path, labels: NDArray[np.uint8]) -> None:
        write(path, labels)
        with written.open("a") as file:
            file.write(f"{path.stem}\n")

    def note_and_die(path: Path, labels: NDArray[np.uint8]) -> None:
        note(path, labels)
        if len(written.read_text().split()) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(predict, "write_mask", note_and_die)
    assert forked(lambda: run(predict)).status == -signal.SIGKILL
    monkeypatch.setattr(predict, "write_mask", note)
    run(predict)
    assert written.read_text().split() == list(VAL), "each once"
    assert predictions() == whole


def test_other_scales_and_another_network_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    write = predict.write_mask

    def note(path: Path, labels: NDArray[np.uint8]) -> None:
        done.append(path.stem)
        write(path, labels)

    monkeypatch.setattr(predict, "write_mask", note)
    for knobs, seed in (({}, 0), ({"predict__long_side": 80}, 0), ({"predict__long_side": 80}, 1)):
        told(**knobs)
        write_segmenter(seed)
        run(predict)
    assert done == list(VAL) * 3


@pytest.mark.parametrize(("reference", "factor"), [(500, SIZE[1] / 500), ("published", 1)])
def test_crf_is_made_for_the_size_of_the_photograph(
    monkeypatch: pytest.MonkeyPatch, reference: object, factor: float
) -> None:
    used: list[Kernels] = []
    crf = predictor.dense_crf

    def dense_crf(image: Any, unaries: Any, kernels: Kernels) -> Any:
        used.append(kernels)
        assert image.shape == (*SIZE, 3)
        return crf(image, unaries, kernels)

    monkeypatch.setattr(predictor, "dense_crf", dense_crf)
    told(predict__crf="deeplab", crf_reference=reference)
    run(predict)
    assert len(used) == len(VAL) and len(set(used)) == 1
    assert used[0].bilateral_sxy == pytest.approx(factor * KERNELS["deeplab"].bilateral_sxy)
    assert used[0].bilateral_srgb == KERNELS["deeplab"].bilateral_srgb, "grey levels do not scale"


@pytest.mark.parametrize(("knobs", "iterations"), [({}, 10), ({"predict__crf_iterations": 3}, 3)])
def test_crf_takes_as_many_iterations_as_it_is_told(
    monkeypatch: pytest.MonkeyPatch, knobs: dict[str, int], iterations: int
) -> None:
    used: list[Kernels] = []
    crf = predictor.dense_crf

    def dense_crf(image: Any, unaries: Any, kernels: Kernels) -> Any:
        used.append(kernels)
        return crf(image, unaries, kernels)

    monkeypatch.setattr(predictor, "dense_crf", dense_crf)
    told(predict__crf="deeplab", **knobs)
    run(predict)
    assert {kernels.iterations for kernels in used} == {iterations}


def test_rule_and_mirror_images_are_those_of_the_knobs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    scores = predictor.view_scores

    def noted(network: Any, views: Any, *rule: Any) -> Any:
        asked.append(rule)
        return scores(network, views, *rule)

    monkeypatch.setattr(predictor, "view_scores", noted)
    told(predict__fusion="max", predict__flip=False)
    run(predict)
    assert set(asked) == {("max", False)}


def test_network_that_does_not_segment_is_named() -> None:
    told()
    write_network(Path("data/segmenter"), classifier_description("efficientnet_lite0", 2, 0.0))
    with pytest.raises(UserError, match="needs a localizer that segments, but cam_classifier does not"):
        run(predict)


@pytest.mark.parametrize("crf", ["none", "irn"])
def test_no_pixel_is_background_where_every_one_belongs_to_a_class(crf: str) -> None:
    told(predict__long_side=64, data__background=False, predict__crf=crf)
    run(predict)
    found = {
        label for name in VAL for label in np.unique(read_mask(Path(f"data/predictions/{name}.png"), SIZE)).tolist()
    }
    assert found and found <= {1, 2}
