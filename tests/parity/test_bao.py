"""AMN, BAO and the seed loss of DSRG against arrays computed with the released programs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from models.amn.balanced_seed_loss import (
    SeedLossForm,
    balanced_cross_entropy,
    log_probabilities,
    seed_loss,
    smoothed_targets,
)
from models.amn.conditioning import DilatedSum, LabelConditioning
from models.bao.network import BaoNetwork, bao_loss, target_labels, target_scores
from models.bao.target import TargetSchedule, Update, cosine_momentum, update_target
from models.maps import fuse_logits, nearest
from tests.models.bao.test_target import schedule
from tests.support.filled_weights import filled
from tests.support.golden_files import GOLDEN_DIR, golden, load


def close(ours: Tensor | None, reference: ArrayLike, tolerance: float) -> None:
    """Largest difference at most `tolerance` times the reference's largest magnitude."""
    assert ours is not None
    expected = np.asarray(reference)
    assert tuple(ours.shape) == expected.shape
    assert np.abs(ours.detach().double().numpy() - expected).max() <= tolerance * np.abs(expected).max()


def tensors(file: dict[str, np.ndarray], *names: str) -> list[Tensor]:
    return [torch.from_numpy(file[name]) for name in names]


@pytest.mark.parametrize("path", golden("amn_loss_"))
def test_amn_loss(path: Path) -> None:
    file = load(path)
    logits, full, label = tensors(file, "logits", "label_full", "label")
    assert torch.equal(nearest(full, label.shape[-2:]), label)
    form = SeedLossForm(smoothing=float(file["eps"]))
    close(smoothed_targets(label.long(), logits.shape[1], form.smoothing), file["target_distribution"], 1e-6)
    loss = seed_loss(logits.requires_grad_(), label, form).total
    close(loss, file["loss"], 1e-5)
    loss.backward()
    close(logits.grad, file["grad_logits"], 1e-4)


@pytest.mark.parametrize("path", golden("dsrg_seed_loss_"))
def test_dsrg_seed_loss(path: Path) -> None:
    file = load(path)
    logits, cues = tensors(file, "logits", "cues")
    labels = torch.where(cues.sum(1) > 0, cues.argmax(1), 255)
    form = SeedLossForm("image", "sum", smoothing=0.0, floor=float(file["min_prob"]))
    close(log_probabilities(logits, form.floor).exp(), file["probs"], 1e-6)
    loss = seed_loss(logits.requires_grad_(), labels, form)
    for ours, name in zip(loss, ("loss", "loss_bg", "loss_fg"), strict=True):
        close(ours, file[name], 1e-5)
    loss.total.backward()
    close(logits.grad, file["grad_logits"], 1e-4)
    probs = torch.from_numpy(file["probs"]).requires_grad_()
    balanced_cross_entropy(probs.log(), labels, form).total.backward()
    close(probs.grad, file["grad_probs"], 1e-4)


@pytest.mark.parametrize("path", golden("amn_condition_"))
def test_amn_condition(path: Path) -> None:
    file = load(path)
    feature, tags = tensors(file, "feature", "image_labels")
    condition = LabelConditioning(tags.shape[1], feature.shape[1])
    manipulate = DilatedSum(feature.shape[1], file["logits"].shape[1], file["rates"].tolist())
    condition.gate.load_state_dict(named(file, "label_enc_weight", "label_enc_bias"))
    for number, branch in enumerate(manipulate.branches):
        branch.load_state_dict(named(file, f"aspp_weight{number}", f"aspp_bias{number}"))
    manipulate.eval()
    logits = manipulate(condition(feature.requires_grad_(), tags))
    close(logits, file["logits"], 1e-5)
    (logits * torch.from_numpy(file["grad_output"])).sum().backward()
    close(feature.grad, file["grad_feature"], 1e-5)
    close(condition.gate.weight.grad, file["grad_label_enc_weight"], 1e-5)


def named(file: dict[str, np.ndarray], weight: str, bias: str) -> dict[str, Tensor]:
    return dict(zip(("weight", "bias"), tensors(file, weight, bias), strict=True))


@pytest.mark.parametrize("path", golden("amn_camfuse_"))
def test_amn_camfuse(path: Path) -> None:
    file = load(path)
    logits = tensors(file, *(f"logits_scale{number}" for number in range(len(file["scales_f64"]))))
    initial = torch.from_numpy(file["pseudo_label"])
    height, width = (int(side) for side in file["image_size"])
    sizes = {"cam": ((height - 1) // 4 + 1, (width - 1) // 4 + 1), "high_res": (height, width)}
    for name, size in sizes.items():
        maps = fuse_logits(logits, size, [size] * len(logits), file["class_ids"].tolist(), initial)
        close(maps, file[name], 1e-5)


@pytest.mark.parametrize("path", golden("bao_loss_"))
def test_bao_loss(path: Path) -> None:
    file = load(path)
    cam, tags = tensors(file, "teacher_cam", "image_labels")
    close(target_scores(cam[:, 1:], tags), file["score"], 1e-6)
    assert np.mean(target_labels(cam[:, 1:], tags).numpy() == file["pseudo_label"]) >= 0.999
    labels = torch.from_numpy(file["pseudo_label"]).long()
    form, classes = SeedLossForm(smoothing=float(file["eps"])), cam.shape[1]
    close(smoothed_targets(labels, classes, form.smoothing), file["target_distribution"], 1e-6)

    inputs = tensors(file, "activation_map", "logits_conv", "logits_trans")
    activation_map, convolutional, transformer = (value.requires_grad_() for value in inputs)
    logits = (convolutional + transformer)[:, 1:]
    loss = bao_loss(logits, activation_map, labels, tags, float(file["pcl_weight"]), form)
    for ours, name in ((loss.total, "loss_total"), (loss.tags, "loss_cls"), (loss.pixels, "loss_pcl")):
        close(ours, file[name], 1e-5)
    loss.total.backward()
    for value, name in zip(inputs, ("activation_map", "logits_conv", "logits_trans"), strict=True):
        close(value.grad, file[f"grad_{name}"], 1e-4)


@pytest.mark.parametrize("path", golden("bao_ema"))
def test_bao_ema(path: Path) -> None:
    file = load(path)
    base, final, steps = float(file["start"]), float(file["final"]), int(file["iterations_per_epoch"])
    plan: TargetSchedule = schedule("ema", epochs=3, base=base, final=final)
    target, online = (nn.ParameterList([torch.zeros(file["teacher_init"].shape)]) for _ in range(2))
    target[0].data = torch.from_numpy(file["teacher_init"])
    for t, iteration in enumerate(file["iteration"].tolist()):
        update = Update("ema", cosine_momentum(iteration, steps, base, final))
        assert iteration == steps or update == plan.at(2, iteration, steps)
        assert update.momentum == pytest.approx(file["momentum_f64"][t], rel=1e-9)
        online[0].data = torch.from_numpy(file["student"][t])
        update_target(target, online, update)
        close(target[0], file["teacher_after"][t], 1e-6)


# The released names of what BAO adds; all others are the backbone's.
RELEASED = {"label_enc.": "head.maps.condition.gate.", "classifier_x.": "head.maps.manipulate."}


def our_name(name: str) -> str:
    """Where an entry of the released network lies in ours."""
    for theirs, ours in RELEASED.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return f"base.backbone.{name}"


@torch.inference_mode()
@pytest.mark.parametrize("path", golden("bao_forward_"))
def test_forward(path: Path) -> None:
    file = load(path)
    classes = file["image_labels"].shape[1]
    with torch.device("meta"):
        network = BaoNetwork({"network": "transcam", "size": "conformer_s", "classes": classes})
    network = network.to_empty(device="cpu").eval()
    theirs = {our_name(name): name for name in released_shapes()}
    state = {
        name: filled(theirs[name], tuple(own.shape), int(file["salt"]), float(file["qkv_gain"]))
        for name, own in network.state_dict().items()
    }
    network.load_state_dict(state)
    images, tags = (torch.from_numpy(file[name]) for name in ("input", "image_labels"))
    outputs = network(images, tags)
    close(outputs.logits, (file["logits_conv"] + file["logits_trans"])[:, 1:], 3e-5)
    close(outputs.activation_map, file["activation_map"], 3e-5)
    close(outputs.cam, file["cam_coupled"][:, 1:], 3e-5)
    close(torch.cat([outputs.activation_map[:, :1], outputs.cam], 1), file["inference_map"], 3e-5)


def released_shapes() -> dict[str, list[int]]:
    """Names and shapes of the released network."""
    (path,) = GOLDEN_DIR.glob("shapes_bao_*.json")
    entries: dict[str, list[int]] = json.loads(path.read_text())["entries"]
    return entries


def test_names_shapes_and_parameters() -> None:
    with torch.device("meta"):
        network = BaoNetwork({"network": "transcam", "size": "conformer_s", "classes": 20})
    own = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert own == {our_name(name): shape for name, shape in released_shapes().items()}
    assert sum(parameter.numel() for parameter in network.parameters()) == 36_680_127
