"""The folder that predictions of other photographs need: whole, equal to the stage, in bounded memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.build import build
from models.registry import SEGMENTERS
from pipeline import predict
from pipeline.config.stages import code_records
from pipeline.data.images import read_image
from pipeline.data.manifest import load_manifest
from pipeline.data.masks import read_mask
from pipeline.prediction.predictor import Predictor, of_other_code, read_about
from pipeline.run.errors import UserError
from pipeline.run.files import write_json
from pipeline.run.source import RECORDS
from pipeline.training.weights import load_initial, save_network
from tests.support import ROOT
from tests.support.project import CLASSES, PHOTOGRAPHS, SIZE, coarse, configure, write_photographs
from tests.support.stages import run

NETWORK: dict[str, Any] = {"network": "efficientnet_lite0_deeplabv3plus", "labels": 3}
KNOBS: dict[str, Any] = {"predict__long_side": 80, "predict__scales": [0.75, 1.0]}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two training and two validation photographs, and a segmenter that sees something."""
    monkeypatch.chdir(tmp_path)
    write_photographs(Path(), [("a",), ("b",)] * 2, val=2, paint=coarse)
    torch.manual_seed(0)
    network = build(NETWORK)
    load_initial(network, NETWORK["network"], "imagenet", SEGMENTERS[NETWORK["network"]].imagenet)
    save_network(Path("data/segmenter"), network, NETWORK)


def predicted(**knobs: Any) -> None:
    params = configure(data__name="folder", data__root=PHOTOGRAPHS, **(KNOBS | knobs))
    write_json(RECORDS, code_records(params))
    run(predict)


@pytest.mark.parametrize("crf", ["none", "deeplab"])
def test_the_folder_alone_gives_the_masks_of_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crf: str
) -> None:
    predicted(predict__crf=crf)
    records = load_manifest().split("val").records
    images = {record.id: read_image(Path(PHOTOGRAPHS, record.image)) for record in records}
    wanted = {record.id: read_mask(Path(f"data/predictions/{record.id}.png"), record.size) for record in records}
    shutil.copytree("data/predictor", tmp_path / "elsewhere/network")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    predictor = Predictor("../elsewhere/network", device="cpu")
    assert predictor.classes == list(CLASSES)
    for name, image in images.items():
        np.testing.assert_array_equal(predictor(image), wanted[name])
    assert len(np.unique(list(wanted.values()))) > 1


def test_other_knobs_can_be_asked_for() -> None:
    predicted()
    image = Path(PHOTOGRAPHS, "2.png")
    usual, other = Predictor()(image), Predictor(scales=[2.0], flip=False)(image)
    assert usual.shape == other.shape == SIZE and not np.array_equal(usual, other)
    with pytest.raises(UserError, match=r"scales = \[\]"):
        Predictor(scales=[])
    with pytest.raises(UserError, match="sclaes"):
        Predictor(sclaes=[1.0])


def test_what_is_no_photograph_or_no_predictor_is_named(tmp_path: Path) -> None:
    predicted()
    with pytest.raises(UserError, match=r"this array is \(4, 4\) of uint8"):
        Predictor()(np.zeros((4, 4), dtype=np.uint8))
    with pytest.raises(UserError, match="not found; the stage predict writes it"):
        Predictor(tmp_path / "nowhere")
    about = Path("data/predictor/predictor.json")
    about.write_text(about.read_text().replace("classes", "klasses"))
    with pytest.raises(UserError, match="is not what predict writes"):
        Predictor()


def test_predictions_of_other_code_are_known() -> None:
    predicted()
    about = read_about(Path("data/predictor"))
    assert not of_other_code(about)
    assert of_other_code(about.model_copy(update={"how": about.how.model_copy(update={"code": "0123"})}))


PEAK = """
import sys
from pathlib import Path
import numpy as np
from pipeline.prediction.predictor import Predictor
rng = np.random.default_rng(0)
image = rng.integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
labels = Predictor(sys.argv[1], device="cpu")(image)
assert labels.shape == (3000, 4000)
# Not getrusage: what that reports begins with the peak of the process that started this one.
status = Path("/proc/self/status").read_text().splitlines()
print(int(next(line.split()[1] for line in status if line.startswith("VmHWM:"))) / 2**20)
"""


@pytest.mark.slow
def test_memory_at_12_megapixels_with_200_labels() -> None:
    description = NETWORK | {"labels": 200}
    save_network(Path("data/segmenter"), build(description), description)
    predicted(predict__long_side=256)
    command = [sys.executable, "-c", PEAK, str(Path("data/predictor").absolute())]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) < 1.5, "GiB"


def test_photographs_are_upright(tmp_path: Path) -> None:
    predicted()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 50)).save(tmp_path / "turned.jpg", exif=exif)
    assert Predictor()(tmp_path / "turned.jpg").shape == (80, 50)
