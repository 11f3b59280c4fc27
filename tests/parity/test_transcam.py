"""Conformer, TransCAM and its fusion of scales against arrays computed with the released programs."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.maps import fuse_minmax
from models.networks.attention import AttentionSum, head_mean
from models.networks.conformer import CONFORMERS, Conformer, Head
from models.transcam.network import TransCam
from pipeline.maps.background import hard_labels, with_background
from tests.support.filled_weights import filled_network
from tests.support.golden_files import GOLDEN_DIR, File, golden, load, near, released_shapes


@lru_cache(maxsize=1)
def on_conformer_s(classes: int, salt: int, qkv_gain: float) -> TransCam:
    return filled_network(lambda: TransCam("conformer_s", classes), released_name, salt, qkv_gain)


def released_name(name: str) -> str:
    """What the released program calls an entry of ours."""
    return name.removeprefix("backbone.")


def close(ours: Tensor, reference: np.ndarray) -> None:
    """The tolerance of networks: 3e-5 of the reference's maximum."""
    near(ours, reference, 3e-5)


@torch.inference_mode()
@pytest.mark.parametrize("path", golden("transcam_forward_"))
def test_forward(path: Path) -> None:
    file = load(path)
    network = on_conformer_s(file["cam_conv"].shape[1] - 1, int(file["salt"]), float(file["qkv_gain"]))
    images = torch.from_numpy(file["input"])
    running, blocks = AttentionSum(), list[Tensor]()
    outputs = network.outputs(images, [running, lambda _, queries, keys: blocks.append(head_mean(queries, keys))])
    close(outputs.conv_logits, file["logits_conv"])
    close(outputs.token_logits, file["logits_trans"])
    close(outputs.maps, file["cam_conv"])
    close(torch.stack(blocks), file["attention_mean"])

    assert running.total is not None
    attention, maps = running.total[:, 1:, 1:], outputs.maps.flatten(2)
    close(attention, file["attention_sum_no_cls"])
    coupled = {
        "cam_coupled": maps @ attention.mT,
        "cam_coupled_transposed": maps @ attention,
        "cam_cls_attention": maps * running.total[:, :1, 1:],
    }
    for name, values in coupled.items():
        close(values.view_as(outputs.maps), file[name])
    close(network(images), (file["logits_conv"] + file["logits_trans"])[:, 1:])
    close(network.parts(images).maps, file["cam_conv"][:, 1:])


def fused(file: File) -> Tensor:
    """The file's maps, the mirrored ones mirrored back, on the photograph's grid."""
    pairs = [torch.from_numpy(file[f"maps_{number}"]) for number in range(len(file["input_sizes"]))]
    maps = [plain + mirrored.flip(2) for plain, mirrored in pairs]
    size = tuple(file["image_size"].tolist())
    return fuse_minmax(maps, size, [size] * len(maps))


@pytest.mark.parametrize("path", golden("transcam_fuse_"))
def test_fusion(path: Path) -> None:
    file = load(path)
    cam, class_ids = fused(file).numpy(), tuple(file["class_ids"].tolist())
    np.testing.assert_allclose(cam, file["cam"], rtol=0, atol=1e-5)
    labels = {name: label for name, label in file.items() if name.startswith("label_at_")}
    assert labels
    for name, label in labels.items():
        threshold = int(name.removeprefix("label_at_")) / 100
        assert np.mean(hard_labels(with_background(cam, threshold), class_ids) == label) >= 0.999


@pytest.mark.parametrize("path", golden("bao_fuse_"))
def test_fusion_with_background(path: Path) -> None:
    file = load(path)
    score = fused(file).numpy()
    np.testing.assert_allclose(score, file["score"], rtol=0, atol=1e-5)
    assert np.mean(hard_labels(score, tuple(file["class_ids"].tolist())) == file["label"]) >= 0.999


@pytest.mark.parametrize("prefix", ["shapes_conformer_", "shapes_transcam_"])
def test_names_and_shapes(prefix: str) -> None:
    """Each list of entries is that of one of our sizes."""
    paths = sorted(GOLDEN_DIR.glob(f"{prefix}*.json"))
    assert paths
    for path in paths:
        listed = released_shapes(path)
        outputs = listed["trans_cls_head.bias"][0]
        head: Head = "cam" if len(listed["conv_cls_head.weight"]) == 4 else "pooled"
        with torch.device("meta"):
            networks = [Conformer(size, outputs, head) for size in CONFORMERS.values()]
        entries = [{name: list(own.shape) for name, own in network.state_dict().items()} for network in networks]
        assert listed in entries, path.name
