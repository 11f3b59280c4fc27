"""DeepLab-v1 and v2 with filled weights, and v2's loss, against arrays computed with the released programs."""

from pathlib import Path

import pytest
import torch
from torch import nn

from models.build import build
from models.maps import nearest
from models.segmenters.deeplabv1 import DeepLabV1ResNet38
from models.segmenters.deeplabv2 import DeepLabV2, deeplabv2_resnet101
from models.segmenters.segmenter import pixel_loss
from tests.support.filled_weights import filled_network
from tests.support.golden_files import GOLDEN_DIR, agreement, close, golden, load, near, released_shapes, tensors

LABELS = 21
SALT = 0


def v1() -> DeepLabV1ResNet38:
    return DeepLabV1ResNet38(LABELS)


def v2() -> DeepLabV2:
    return deeplabv2_resnet101(LABELS)


@pytest.fixture(scope="module")
def deeplabv1() -> DeepLabV1ResNet38:
    return filled_network(v1, str, SALT)


@pytest.fixture(scope="module")
def deeplabv2() -> DeepLabV2:
    return filled_network(v2, lambda name: name.removeprefix("base."), SALT)


@torch.no_grad()
@pytest.mark.parametrize("path", golden("deeplabv1_resnet38_"))
def test_deeplabv1(deeplabv1: DeepLabV1ResNet38, path: Path) -> None:
    file = load(path)
    assert int(file["salt"]) == SALT
    image = torch.from_numpy(file["input"])
    near(deeplabv1.logits(image), file["logits_low"], 3e-5)
    logits = deeplabv1(image)
    near(logits[:, :, 3::8, 5::8], file["logits_sub"], 3e-5)
    assert agreement(logits.argmax(1).reshape(file["label"].shape), file["label"]) >= 0.999


@torch.no_grad()
@pytest.mark.parametrize("path", golden("deeplabv2_r101_"))
def test_deeplabv2(deeplabv2: DeepLabV2, path: Path) -> None:
    file = load(path)
    assert int(file["salt"]) == SALT
    blue_first = torch.from_numpy(file["input"])
    images = blue_first.flip(1)
    for ours, name in zip(deeplabv2.pyramid(images), ("logits", "logits_050", "logits_075", "logits_max"), strict=True):
        near(ours, file[name], 3e-5)
    assert deeplabv2(images).shape[2:] == images.shape[2:]


@pytest.mark.parametrize("path", golden("dlv2loss_"))
def test_four_terms(path: Path) -> None:
    file = load(path)
    labels = torch.from_numpy(file["labels"]).long()
    outputs = [logits.requires_grad_() for logits in tensors(file, *(f"logits_{number}" for number in range(4)))]
    with torch.device("meta"):
        network = v2()
    loss = network.loss(outputs, labels, pixel_loss)
    assert float(loss.detach()) == pytest.approx(float(file["loss_f64"]), rel=1e-5)
    loss.backward()
    for number, logits in enumerate(outputs):
        near(logits.grad, file[f"grad_{number}"], 1e-4)
        alone = network.loss([logits.detach()], labels, pixel_loss)
        assert float(alone) == pytest.approx(float(file["terms_f64"][number]), rel=1e-5)


@pytest.mark.parametrize("path", golden("dlv2loss_"))
def test_labels_of_four_terms(path: Path) -> None:
    file = load(path)
    for number in range(4):
        reduced = nearest(torch.from_numpy(file["labels"]), file[f"label_{number}"].shape[1:])
        close(reduced, file[f"label_{number}"], 0)


@pytest.mark.parametrize(
    ("build_network", "name"), [(v1, "deeplabv1_resnet38"), (v2, "deeplabv2_r101_msc")], ids=["v1", "v2"]
)
def test_names_and_shapes(build_network: type[nn.Module], name: str) -> None:
    with torch.device("meta"):
        network = build_network()
    ours = {entry: list(own.shape) for entry, own in network.state_dict().items()}
    assert ours == released_shapes(GOLDEN_DIR / f"shapes_{name}.json")


def parameters(network: str) -> int:
    with torch.device("meta"):
        return sum(own.numel() for own in build({"network": network, "labels": LABELS}).parameters())


def test_parameter_counts() -> None:
    assert parameters("deeplabv1_resnet38") == 124_220_245
    entries = released_shapes(GOLDEN_DIR / "shapes_deeplabv2_r101_msc.json")
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    counted = {name: torch.Size(shape).numel() for name, shape in entries.items() if not name.endswith(buffers)}
    assert parameters("deeplabv2_resnet101") == sum(counted.values())
