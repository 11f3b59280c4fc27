"""The command that predicts any photographs: what it finds, what it writes, what it refuses."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.build import build
from pipeline import predict
from pipeline.prediction import command
from pipeline.run.errors import UserError
from pipeline.training.weights import save_network
from tests.support.project import CLASSES, PHOTOGRAPHS, coarse, configure, write_photographs
from tests.support.stages import run

NETWORK: dict[str, Any] = {"network": "efficientnet_lite0_deeplabv3plus", "labels": 3}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stage `predict` leaves for other photographs."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_photographs(Path(), [("a",), ("b",)], val=1, paint=coarse)
        torch.manual_seed(0)
        save_network(Path("data/segmenter"), build(NETWORK), NETWORK)
        configure(data__name="folder", data__root=PHOTOGRAPHS, predict__long_side=64, predict__scales=[1.0])
        run(predict)
    return folder / "data/predictor"


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photographs as they come, in the current folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "Straße [1] & co/b.PNG", "Straße [1] & co/deep/a.jpg"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse(0, (64, 96), rng)).save(path)
    (tmp_path / "in/notes.txt").write_text("no photograph")
    return tmp_path


def called(monkeypatch: pytest.MonkeyPatch, predictor: Path, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["predict", *words, "--predictor", str(predictor), "--device", "cpu"])
    command.main()


def results(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_masks_overlays_and_areas(inbox: Path, predictor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called(monkeypatch, predictor, "in", "--out", "out")
    names = ("a", "Straße [1] & co/b", "Straße [1] & co/deep/a")
    expected = {f"masks/{name}.png" for name in names} | {f"overlays/{name}.jpg" for name in names} | {"areas.csv"}
    assert results(inbox / "out") == expected
    rows = list(csv.DictReader((inbox / "out/areas.csv").open(encoding="utf-8")))
    for name in names:
        its = [row for row in rows if row["photograph"] == name]
        assert sum(int(row["pixels"]) for row in its) == 64 * 96
        assert sum(float(row["share"]) for row in its) == pytest.approx(1, abs=1e-5)
        assert {row["class"] for row in its} <= {"background", *CLASSES}
    assert Image.open(inbox / "out/masks/a.png").size == Image.open(inbox / "out/overlays/a.jpg").size == (96, 64)


def test_files_and_patterns(inbox: Path, predictor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called(monkeypatch, predictor, "in/a.jpg", "in/*/*.PNG", "--out", "out", "--no-overlays")
    assert results(inbox / "out") == {"masks/a.png", "masks/b.png", "areas.csv"}


def test_a_name_that_looks_like_a_pattern_is_a_name(
    inbox: Path, predictor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called(monkeypatch, predictor, "in/Straße [1] & co", "--out", "out", "--no-overlays")
    assert results(inbox / "out") == {"masks/b.png", "masks/deep/a.png", "areas.csv"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["in/lost.jpg"], "in/lost.jpg: no such photograph, and no folder or pattern with some"),
        (["in/*.tif"], r"in/\*.tif: no such photograph"),
        (["in", "in/Straße [1] & co/deep/a.jpg"], "both would be a; predict them into two folders"),
    ],
)
def test_words_that_name_nothing_or_two_things(
    inbox: Path, predictor: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: str
) -> None:
    with pytest.raises(UserError, match=expected.replace("[1]", r"\[1\]")):
        called(monkeypatch, predictor, *words, "--out", "out")
    assert not (inbox / "out").exists()


def test_a_bad_photograph_does_not_stop_the_others(
    inbox: Path, predictor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inbox / "in/bad.jpg").write_bytes(b"no JPEG")
    Image.new("RGB", (40, 30)).save(inbox / "in/large.png")
    with pytest.raises(UserError, match=r"(?s)bad\.jpg: is no image.*large\.png: .* megapixels") as caught:
        called(monkeypatch, predictor, "in", "--out", "out", "--no-overlays", "--max-megapixels", "0.001")
    assert "a.jpg" in str(caught.value), "too large as well"
    with pytest.raises(UserError, match=r"bad\.jpg"):
        called(monkeypatch, predictor, "in", "--out", "out", "--no-overlays")
    assert {"masks/a.png", "masks/large.png", "areas.csv"} <= results(inbox / "out")


@pytest.mark.parametrize(
    ("words", "knobs"),
    [
        ([], {}),
        (["--scales", "0.5", "1"], {"scales": [0.5, 1.0]}),
        (["--no-flip", "--crf", "none", "--long-side", "none"], {"flip": False, "crf": "none", "long_side": "none"}),
        (["--long-side", "320"], {"long_side": 320}),
    ],
)
def test_knobs_of_the_command_line(words: list[str], knobs: dict[str, Any]) -> None:
    assert command.knobs(command.parser().parse_args(["a.jpg", "--out", "out", *words])) == knobs
