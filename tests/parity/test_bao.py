"""BAO against arrays computed with the released program."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.amn.balanced_seed_loss import smoothed_targets
from models.amn.knobs import SeedLossKnobs
from models.bao.network import BaoNetwork, bao_loss, target_labels, target_scores
from models.bao.target import Phase, TargetSchedule, Update, cosine_momentum, update_target
from tests.support.filled_weights import filled_network
from tests.support.golden_files import GOLDEN_DIR, golden, load, near, released_shapes, tensors


@pytest.mark.parametrize("path", golden("bao_loss_"))
def test_bao_loss(path: Path) -> None:
    file = load(path)
    cam, tags = tensors(file, "teacher_cam", "image_labels")
    near(target_scores(cam[:, 1:], tags), file["score"], 1e-6)
    assert np.mean(target_labels(cam[:, 1:], tags).numpy() == file["pseudo_label"]) >= 0.999
    labels = torch.from_numpy(file["pseudo_label"]).long()
    knobs = SeedLossKnobs(label_smoothing=float(file["eps"]))
    near(smoothed_targets(labels, cam.shape[1], knobs.label_smoothing), file["target_distribution"], 1e-6)

    inputs = tensors(file, "activation_map", "logits_conv", "logits_trans")
    activation_map, convolutional, transformer = (value.requires_grad_() for value in inputs)
    logits = (convolutional + transformer)[:, 1:]
    loss = bao_loss(logits, activation_map, labels, tags, float(file["pcl_weight"]), knobs)
    for ours, name in ((loss.total, "loss_total"), (loss.tags, "loss_cls"), (loss.pixels, "loss_pcl")):
        near(ours, file[name], 1e-5)
    loss.total.backward()
    for value, name in zip(inputs, ("activation_map", "logits_conv", "logits_trans"), strict=True):
        near(value.grad, file[f"grad_{name}"], 1e-4)


@pytest.mark.parametrize("path", golden("bao_ema"))
def test_bao_ema(path: Path) -> None:
    file = load(path)
    base, final, steps = float(file["start"]), float(file["final"]), int(file["iterations_per_epoch"])
    plan = TargetSchedule((Phase(0, "ema"),), 3, base, final)
    target, online = (nn.ParameterList([torch.zeros(file["teacher_init"].shape)]) for _ in range(2))
    target[0].data = torch.from_numpy(file["teacher_init"])
    for t, iteration in enumerate(file["iteration"].tolist()):
        update = Update("ema", cosine_momentum(iteration, steps, base, final))
        assert iteration == steps or update == plan.at(2, iteration, steps)
        assert update.momentum == pytest.approx(file["momentum_f64"][t], rel=1e-9)
        online[0].data = torch.from_numpy(file["student"][t])
        update_target(target, online, update)
        near(target[0], file["teacher_after"][t], 1e-6)


RELEASED = {"head.maps.condition.gate.": "label_enc.", "head.maps.manipulate.": "classifier_x.", "base.backbone.": ""}


def released_name(name: str) -> str:
    """What the released program calls an entry of ours."""
    ((ours, theirs),) = ((ours, theirs) for ours, theirs in RELEASED.items() if name.startswith(ours))
    return theirs + name.removeprefix(ours)


def on_conformer_s(classes: int = 20) -> BaoNetwork:
    return BaoNetwork({"network": "transcam", "size": "conformer_s", "classes": classes})


@torch.inference_mode()
@pytest.mark.parametrize("path", golden("bao_forward_"))
def test_forward(path: Path) -> None:
    file = load(path)
    classes, gain = file["image_labels"].shape[1], float(file["qkv_gain"])
    network = filled_network(lambda: on_conformer_s(classes), released_name, int(file["salt"]), gain)
    images, tags = tensors(file, "input", "image_labels")
    outputs = network(images, tags)
    near(outputs.logits, (file["logits_conv"] + file["logits_trans"])[:, 1:], 3e-5)
    near(outputs.activation_map, file["activation_map"], 3e-5)
    near(outputs.cam, file["cam_coupled"][:, 1:], 3e-5)
    near(torch.cat([outputs.activation_map[:, :1], outputs.cam], 1), file["inference_map"], 3e-5)


def test_names_shapes_and_parameters() -> None:
    with torch.device("meta"):
        network = on_conformer_s()
    ours = {released_name(name): list(own.shape) for name, own in network.state_dict().items()}
    assert ours == released_shapes(GOLDEN_DIR / "shapes_bao_conformer_s.json")
    assert sum(parameter.numel() for parameter in network.parameters()) == 36_680_127
