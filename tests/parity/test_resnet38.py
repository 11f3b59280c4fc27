"""The networks on ResNet-38, with filled weights, against arrays computed with the released program of PSA."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.affinity.affinitynet import FeatureAffinity
from models.cam.classifier import CamClassifier
from models.networks.resnet38 import ResNet38
from tests.support.filled_weights import filled_network
from tests.support.golden_files import GOLDEN_DIR, close, golden, load, near, released_shapes

CLASSES = 20
SALT = 0
LAYERS = {"project.0.0": "f8_3", "project.1.0": "f8_4", "project.2.0": "f8_5", "mix": "f9", "": "fc8"}
"""The layers of our heads, by the names of the released program."""


def released_name(name: str) -> str:
    """What the released program calls an entry of ours."""
    part, entry = name.split(".", 1)
    if part == "backbone":
        return entry
    layer, _, weight = entry.rpartition(".")
    return f"{LAYERS[layer]}.{weight}"


def plain_classifier() -> CamClassifier:
    return CamClassifier("resnet38", CLASSES)


def plain_affinity() -> FeatureAffinity:
    return FeatureAffinity("resnet38")


@pytest.fixture(scope="module")
def classifier() -> CamClassifier:
    return filled_network(plain_classifier, released_name, SALT)


@pytest.fixture(scope="module")
def affinity() -> FeatureAffinity:
    return filled_network(plain_affinity, released_name, SALT)


@torch.no_grad()
@pytest.mark.parametrize("path", golden("psa_resnet38_cls_"))
def test_classifier(classifier: CamClassifier, path: Path) -> None:
    file = load(path)
    assert int(file["salt"]) == SALT
    image = torch.from_numpy(file["input"])
    near(classifier(image), file["logits"], 3e-5)
    maps = classifier.activations(image, torch.ones(1, CLASSES)).classes
    near(maps, file["cam_raw"], 3e-5)
    near(maps.relu(), file["cam_relu"], 3e-5)
    assert isinstance(classifier.backbone, ResNet38)
    taps = classifier.backbone.taps(image)._asdict()
    for (name, tap), step in zip(taps.items(), file["channel_step"], strict=True):
        near(tap[:, ::step], file[f"{name}_sub"], 3e-5)


@torch.no_grad()
@pytest.mark.parametrize("path", golden("psa_resnet38_aff_"))
def test_affinity(affinity: FeatureAffinity, path: Path) -> None:
    file = load(path)
    assert int(file["salt"]) == SALT
    image = torch.from_numpy(file["input"])
    concatenated = list[Tensor]()

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        concatenated.append(inputs[0])

    with affinity.head.mix.register_forward_pre_hook(keep):
        feature = affinity(image)
    near(concatenated[0][:, :: int(file["concat_channel_step"])], file["concat_sub"], 3e-5)
    near(feature[:, :: int(file["feature_channel_step"])], file["feature_sub"], 3e-5)
    near(feature.mean((2, 3)), file["feature_channel_mean"], 3e-5)
    if "pair_affinity" in file:
        affinities, _ = affinity.affinity(image, 5, "psa")
        pairs = affinities[0].flatten(1)
        # The files of the network do not repeat the offsets; sources are those with a non-zero affinity.
        close(pairs[:, pairs[0] > 0], file["pair_affinity"], 2e-6)


@pytest.mark.parametrize(("kind", "build"), [("cls", plain_classifier), ("aff", plain_affinity)])
def test_names_and_shapes(kind: str, build: type[nn.Module]) -> None:
    with torch.device("meta"):
        model = build()
    ours = {released_name(name): list(own.shape) for name, own in model.state_dict().items()}
    assert ours == released_shapes(GOLDEN_DIR / f"shapes_psa_resnet38_{kind}.json")
