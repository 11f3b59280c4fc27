"""AMN and the seed loss of DSRG against arrays computed with the released programs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.amn.balanced_seed_loss import balanced_seed_loss, smoothed_targets
from models.amn.conditioning import DilatedSum, LabelConditioning
from models.amn.knobs import SeedLossKnobs
from models.maps import fuse_logits, nearest
from tests.support.golden_files import File, golden, load, near, tensors


@pytest.mark.parametrize("path", golden("amn_loss_"))
def test_amn_loss(path: Path) -> None:
    file = load(path)
    logits, full, label = tensors(file, "logits", "label_full", "label")
    assert torch.equal(nearest(full, label.shape[-2:]), label)
    knobs = SeedLossKnobs(label_smoothing=float(file["eps"]))
    near(smoothed_targets(label.long(), logits.shape[1], knobs.label_smoothing), file["target_distribution"], 1e-6)
    loss = balanced_seed_loss(logits.requires_grad_(), label, knobs).total
    near(loss, file["loss"], 1e-5)
    loss.backward()
    near(logits.grad, file["grad_logits"], 1e-4)


@pytest.mark.parametrize("path", golden("dsrg_seed_loss_"))
def test_dsrg_seed_loss(path: Path) -> None:
    """DSRG adds both sides, takes their means image by image, and keeps probabilities off zero."""
    file = load(path)
    logits, cues, probs = tensors(file, "logits", "cues", "probs")
    labels = torch.where(cues.sum(1) > 0, cues.argmax(1), 255)
    raised = logits.requires_grad_().softmax(1) + float(file["min_prob"])
    floored = raised / raised.sum(1, keepdim=True)
    near(floored, file["probs"], 1e-6)
    bg, fg = dsrg_sides(floored.log(), labels)
    for ours, name in zip((bg + fg, bg, fg), ("loss", "loss_bg", "loss_fg"), strict=True):
        near(ours, file[name], 1e-5)
    (bg + fg).backward()
    near(logits.grad, file["grad_logits"], 1e-4)

    scores = probs.log().requires_grad_()
    torch.stack(dsrg_sides(scores, labels)).sum().backward()
    # Ours take scores: the reference's gradient of probabilities has to pass through the softmax.
    (gradient,) = tensors(file, "grad_probs")
    near(scores.grad, probs * (gradient - (gradient * probs).sum(1, keepdim=True)), 1e-4)


def dsrg_sides(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The background's and the foreground's side: the mean over images."""
    knobs = SeedLossKnobs(label_smoothing=0.0)
    alone = [balanced_seed_loss(logits[[image]], labels[[image]], knobs) for image in range(len(logits))]
    return torch.stack([loss.bg for loss in alone]).mean(), torch.stack([loss.fg for loss in alone]).mean()


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
    near(logits, file["logits"], 1e-5)
    (logits * torch.from_numpy(file["grad_output"])).sum().backward()
    near(feature.grad, file["grad_feature"], 1e-5)
    near(condition.gate.weight.grad, file["grad_label_enc_weight"], 1e-5)


def named(file: File, weight: str, bias: str) -> dict[str, Tensor]:
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
        near(maps, file[name], 1e-5)
