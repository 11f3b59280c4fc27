"""Networks in ONNX give their own logits at any size, and carry what a program needs to use them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.registry import SEGMENTERS
from pipeline.prediction.predictor import ABOUT, About, PredictConfig
from pipeline.run.errors import UserError
from pipeline.run.files import write_json
from pipeline.training.weights import load_network
from tests.support.project import CLASSES, write_network
from tools import export_onnx, optional
from tools.export_onnx import checked, convert, export

WHERE = "is not installed (requirements-extras.txt)"
onnx = pytest.importorskip("onnx", reason=f"onnx {WHERE}")
onnxruntime = pytest.importorskip("onnxruntime", reason=f"onnxruntime {WHERE}")

PREDICTOR, OUT = Path("data/predictor"), Path("network.onnx")
LITE: dict[str, Any] = {"network": "efficientnet_lite0_deeplabv3plus", "labels": 3}
QUICK = [
    LITE,
    {"network": "smp", "decoder": "unet", "encoder": "resnet18", "labels": 3},
    {"network": "toco", "encoder": "vit_test", "classes": 2, "width": 16},
    {"network": "toco", "encoder": "lite0_early_vit", "classes": 2},
]
SLOW = [
    *({"network": name, "labels": 3} for name in SEGMENTERS if name not in (LITE["network"], "deeplabv2_resnet101")),
    {"network": "smp", "decoder": "segformer", "encoder": "mit_b0", "labels": 3},
]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    how = PredictConfig(scales=[0.5, 1.0], long_side=192)
    about = About(classes=list(CLASSES), how=how, mean=[0.5] * 3, std=[0.5] * 3, chosen=[])
    write_json(PREDICTOR / ABOUT, about.model_dump(mode="json"))


def written(description: dict[str, Any]) -> Any:
    """Export an untrained network; gives the session."""
    write_network(PREDICTOR, description)
    assert export(PREDICTOR, OUT) <= 1e-4
    return onnxruntime.InferenceSession(OUT, providers=["CPUExecutionProvider"])


def named(description: dict[str, Any]) -> str:
    return ":".join(str(value) for value in description.values() if isinstance(value, str))


@pytest.mark.parametrize(
    "description",
    [*QUICK, *(pytest.param(some, marks=pytest.mark.slow) for some in SLOW)],
    ids=lambda description: named(description),
)
def test_every_kind_of_network_gives_its_own_logits_at_sizes_not_checked_before(description: dict[str, Any]) -> None:
    session = written(description)
    network = load_network(PREDICTOR, "train_segmenter")
    segmenter = (network if hasattr(network, "loss") else network.segmenter()).eval()
    for size in ((1, 3, 64, 181), (3, 3, 90, 47)):
        images = torch.randn(size)
        (found,) = session.run(["logits"], {"image": images.numpy()})
        with torch.inference_mode():
            expected = segmenter(images).numpy()
        assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
        assert found.shape == (size[0], 3, *size[2:])


def test_all_networks_that_predict_are_tried() -> None:
    tried = {description["network"] for description in (*QUICK, *SLOW)}
    assert tried == {*SEGMENTERS, "smp", "toco"} - {"deeplabv2_resnet101"}, "which is deeplabv2_resnet50, but longer"


def test_metadata_is_enough_to_predict() -> None:
    told = {key: json.loads(value) for key, value in written(LITE).get_modelmeta().custom_metadata_map.items()}
    assert told["classes"] == ["background", *CLASSES]
    assert told["mean"] == told["std"] == [0.5, 0.5, 0.5]
    assert (told["long_side"], told["square"], told["scales"], told["flip"]) == (192, False, [0.5, 1.0], True)
    assert told["network"] == LITE and told["fusion"] == "mean" and "code" not in told
    (image,) = onnx.load(OUT).graph.input
    assert [axis.dim_param or axis.dim_value for axis in image.type.tensor_type.shape.dim] == [
        "batch",
        3,
        "height",
        "width",
    ]


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_network(PREDICTOR, LITE)
    monkeypatch.setattr(sys, "argv", ["export_onnx", "sub/network.onnx"])
    export_onnx.main()
    assert "at 128x96, 75x200, 161x113" in capsys.readouterr().out and Path("sub/network.onnx").exists()
    monkeypatch.setattr(sys, "argv", ["export_onnx", "network.pth"])
    with pytest.raises(UserError, match=r"network\.pth: the name of the result ends in \.onnx"):
        export_onnx.main()


class SizeOfTheTrace(nn.Module):
    """Its graph keeps the size that it was traced with."""

    def forward(self, images: Tensor) -> Tensor:
        size = [int(side) for side in images.shape[2:]]
        return functional.interpolate(images[:, :, ::2, ::2], size, mode="bilinear")


class OtherAtOtherSizes(nn.Module):
    """Its graph takes the branch that it was traced with."""

    def forward(self, images: Tensor) -> Tensor:
        return images * 2 if images.shape[2] == 97 else images


@pytest.mark.parametrize("network", [SizeOfTheTrace(), OtherAtOtherSizes()])
def test_graphs_of_one_size_are_found_out(network: nn.Module) -> None:
    convert(network, OUT)
    with pytest.raises(UserError, match=r"onnxruntime (gives|cannot run)"):
        checked(network, onnxruntime.InferenceSession(OUT, providers=["CPUExecutionProvider"]))


class Complex(nn.Module):
    """No operator of ONNX computes this."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.linalg.eigvals(images[:, :, :3, :3]).real


def test_pooling_to_a_size_that_depends_on_the_image_is_refused() -> None:
    write_network(PREDICTOR, {"network": "smp", "decoder": "upernet", "encoder": "tu-convnext_atto", "labels": 3})
    with pytest.raises(UserError, match=r"no form in ONNX: Unsupported: .* adaptive_avg_pool2d"):
        export(PREDICTOR, OUT)
    assert not OUT.exists()


def test_a_network_without_a_graph_is_refused_with_the_reason(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"this network has no form in ONNX: .*linalg_eig"):
        convert(Complex(), OUT)
    assert "graph(" not in capfd.readouterr().out


def test_what_is_wrong_leaves_the_earlier_file(monkeypatch: pytest.MonkeyPatch) -> None:
    OUT.write_text("of before")
    write_network(PREDICTOR, LITE)
    monkeypatch.setattr(export_onnx, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match=r"logits that differ by .* on images of 128x96"):
        export(PREDICTOR, OUT)
    assert OUT.read_text() == "of before" and not list(Path().glob(".network*"))


def test_a_localizer_that_does_not_segment_is_refused() -> None:
    write_network(
        PREDICTOR, {"network": "cam_classifier", "backbone": "efficientnet_lite0", "classes": 2, "dropout": 0.0}
    )
    with pytest.raises(UserError, match="cam_classifier does not"):
        export(PREDICTOR, OUT)


def test_a_missing_library_names_its_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise ImportError(f"No module named {module!r}")

    monkeypatch.setattr(optional, "import_module", missing)
    with pytest.raises(UserError, match=r"onnx is needed \(.*\); run `pip install -r requirements-extras\.txt`"):
        export(PREDICTOR, OUT)
