"""Networks of segmentation_models_pytorch: any size, names that are checked, encoders that start from weights."""

from __future__ import annotations

import pytest
import torch

from models.build import build, segmenter_description
from models.segmenters.smp import MEAN, STD
from pipeline.config.load import resolve
from pipeline.run.errors import UserError
from tests.support.knobs import shipped


def test_description_names_decoder_and_encoder() -> None:
    described = segmenter_description("smp:unet:resnet18", 3)
    assert described == {"network": "smp", "decoder": "unet", "encoder": "resnet18", "labels": 3}
    assert segmenter_description("deeplabv2_resnet101", 3) == {"network": "deeplabv2_resnet101", "labels": 3}


def test_encoder_takes_weights_and_normalisation() -> None:
    network = build(segmenter_description("smp:unet:resnet18", 3))
    state = {name: torch.full_like(value, 2) for name, value in network.backbone.state_dict().items()}
    network.load_pretrained(state)
    assert network.backbone.state_dict()["conv1.weight"].eq(2).all()
    assert (network.mean, network.std) == (MEAN, STD)
    half = build(segmenter_description("smp:unet:tu-tf_efficientnet_lite0", 3))
    assert half.mean == half.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("smp:unett:resnet18", "segmentation_models_pytorch has no decoder 'unett'; it has .*unetplusplus"),
        ("smp:unet:resnt18", "segmentation_models_pytorch has no encoder 'resnt18'"),
        ("smp:unet", "pattern"),
        ("unet", "allowed are"),
    ],
)
def test_unknown_names_stop_before_any_work(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"segmenter.network = '{name}' \(str\): .*{reason}"):
        resolve(shipped(segmenter__network=name))
    assert resolve(shipped(segmenter__network="smp:unet:resnet18")).segmenter.network == "smp:unet:resnet18"
