"""ToCo and activation modulation against arrays computed with the released programs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.dual_branch.modulation import ActivationModulation, Gaussian
from models.refine.par import PAR
from models.schedules import warm_poly_rate
from models.toco.cams import multi_scale_cams
from models.toco.contrast import ctc_loss
from models.toco.crops import candidates, crop_flags, cut_crops
from models.toco.labels import (
    cam_labels,
    denormalised,
    inside_boxes,
    pair_labels,
    refined_labels,
    region_mask,
)
from models.toco.losses import mask_loss, ptc_loss
from tests.parity.test_affinity import agreement, close
from tests.support.golden_files import golden, load

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def tensor(file: dict[str, np.ndarray], name: str) -> Tensor:
    return torch.from_numpy(file[name])


def thresholds(file: dict[str, np.ndarray]) -> tuple[float, float]:
    return float(file["low_threshold"]), float(file["high_threshold"])


@pytest.mark.parametrize("path", golden("toco_camlabel_"))
def test_labels_from_maps(path: Path) -> None:
    file = load(path)
    cam, tags = tensor(file, "cam"), tensor(file, "image_labels")
    low, high = thresholds(file)
    background = float(file["bkg_threshold"])
    inside = inside_boxes(tensor(file, "valid_box"), cam.shape[2:])
    label = cam_labels(cam, tags, low, high, inside)
    assert torch.equal(label, tensor(file, "label_train"))
    assert torch.equal(cam_labels(cam, tags, background, background), tensor(file, "label_eval"))
    assert torch.equal(cam_labels(cam, tags, background, background, inside), tensor(file, "label_box_only"))
    assert torch.equal(region_mask(cam, tags, low, high), tensor(file, "roi_mask"))
    assert torch.equal(pair_labels(label[:, ::4, ::4]), tensor(file, "pair_mask_sub4"))


@pytest.mark.parametrize("path", golden("toco_crops_"))
def test_crops(path: Path) -> None:
    file = load(path)
    regions, image = tensor(file, "roi_mask"), tensor(file, "image")
    size, count, limit = int(file["crop_size"]), int(file["crop_num"]), float(file["negative_limit"])
    allowed = candidates(regions, size, count)
    assert allowed.sum(dim=(1, 2)).tolist() == file["candidate_count"].tolist()
    corners = [list(grid.nonzero()[chosen]) for grid, chosen in zip(allowed, file["chosen_candidate"], strict=True)]
    top_left = tensor(file, "crop_top_left")
    assert torch.equal(torch.stack([torch.stack(rows) for rows in corners]), top_left)
    assert torch.equal(top_left + size // 2, tensor(file, "crop_centre"))
    close(cut_crops(regions[:, None].float(), top_left, size).mean((2, 3, 4)), file["mask_mean"], 1e-6)
    flags = functional.pad(crop_flags(regions, top_left, size, limit), (2, 0), value=True)
    assert torch.equal(flags, tensor(file, "flags").bool())
    assert torch.equal(cut_crops(image, top_left, size)[:, :, 0], tensor(file, "crops_channel0"))


@pytest.mark.parametrize("path", golden("toco_par_"))
def test_par(path: Path) -> None:
    file = load(path)
    dilations = tuple(int(dilation) for dilation in file["dilations"])
    pixels, mask = tensor(file, "image_uint8").float() / 255, tensor(file, "mask")
    for iterations, name in ((int(file["iterations"]), "refined"), (1, "refined_1_iteration")):
        par = PAR(dilations, iterations, float(file["w1"]), float(file["w2"]))
        close(par.refine(pixels, mask), file[name], 1e-5)


@pytest.mark.parametrize("path", golden("toco_refine_"))
def test_refined_labels(path: Path) -> None:
    file = load(path)
    pixels = denormalised(tensor(file, "input_normalised"), MEAN, STD)
    assert torch.equal((pixels * 255).round().byte(), tensor(file, "image_denorm_uint8"))
    cam, tags, boxes = (tensor(file, name) for name in ("cam", "image_labels", "valid_box"))
    label = refined_labels(pixels, cam, tags, *thresholds(file), boxes, reduction=int(file["down_scale"]))
    assert agreement(label, file["label"]) >= 0.999


@pytest.mark.parametrize("path", golden("toco_ptc_"))
def test_patch_token_contrast(path: Path) -> None:
    file = load(path)
    label, feature = tensor(file, "label"), tensor(file, "feature").requires_grad_()
    pairs = pair_labels(label)
    assert int((pairs == 1).sum()) == int(file["pair_count_pos"])
    assert int((pairs == 0).sum()) == int(file["pair_count_neg"])
    loss = ptc_loss(feature, label, absolute=True)
    loss.backward()
    close(loss, file["loss"], 1e-5, relative_to_max=True)
    assert feature.grad is not None
    close(feature.grad, file["grad_feature"], 1e-4, relative_to_max=True)


@pytest.mark.parametrize("path", golden("toco_ctc_"))
def test_class_token_contrast(path: Path) -> None:
    file = load(path)
    flags = tensor(file, "flags")
    student = tensor(file, "student").requires_grad_()
    by_view, teacher = (rows.unflatten(0, (-1, len(flags))) for rows in (student, tensor(file, "teacher")))
    assert len(by_view) == int(file["n_views"])
    loss = ctc_loss(by_view, teacher, flags, float(file["temperature"]), extra_term=True)
    loss.backward()
    close(loss, file["loss"], 1e-5, relative_to_max=True)
    assert student.grad is not None
    close(student.grad, file["grad_student"], 1e-4, relative_to_max=True)


@pytest.mark.parametrize("path", golden("toco_segloss_"))
def test_mask_loss(path: Path) -> None:
    file = load(path)
    logits, label = tensor(file, "logits").requires_grad_(), tensor(file, "label")
    loss = mask_loss(logits, label)
    loss.backward()
    close(loss, file["loss"], 1e-5, relative_to_max=True)
    assert logits.grad is not None
    close(logits.grad, file["grad_logits"], 1e-4, relative_to_max=True)
    halves = {"bg": label.masked_fill(label != 0, 255), "fg": label.masked_fill(label == 0, 255)}
    for name, half in halves.items():
        close(mask_loss(logits, half), file[f"loss_{name}"] / 2, 1e-5, relative_to_max=True)
        alone = functional.cross_entropy(logits, tensor(file, f"label_{name}_only").long(), ignore_index=255) / 2
        torch.testing.assert_close(mask_loss(logits, tensor(file, f"label_{name}_only")), alone)
    assert mask_loss(logits, torch.full_like(label, 255)) == 0


@pytest.mark.parametrize("path", golden("toco_lr"))
def test_learning_rate(path: Path) -> None:
    file = load(path)
    for case in range(int(file["n_cases"])):
        one = {name.removeprefix(f"c{case}_"): value for name, value in file.items() if name.startswith(f"c{case}_")}
        ours = [
            warm_poly_rate(
                int(step),
                float(one["base_lr"]),
                int(one["max_iters"]),
                int(one["warmup_iters"]),
                float(one["warmup_ratio"]),
                float(one["power"]),
            )
            for step in one["step"]
        ]
        assert ours == pytest.approx(one["lr_f64"].tolist(), rel=1e-9)


@pytest.mark.parametrize("path", golden("toco_mscam_"))
@pytest.mark.parametrize("reuse", [False, True])
def test_multi_scale_maps(path: Path, reuse: bool) -> None:
    file = load(path)
    kernel = torch.cat([tensor(file, "patch_weight_cam"), tensor(file, "patch_weight_aux")])
    image = tensor(file, "input")

    def network(views: Tensor) -> Tensor:
        return functional.conv2d(views, kernel, stride=kernel.shape[2:])

    fused = multi_scale_cams(network, image, file["scales_f64"].tolist(), network(image) if reuse else None)
    for maps, name in zip(fused.chunk(2, dim=1), ("cam", "cam_aux"), strict=True):
        close(maps, file[name], 1e-5)


PARAMETERS = {
    "ChannelAMM__mlp__1": "channel.0",
    "ChannelAMM__mlp__3": "channel.2",
    "SpatialAMM__spatial__conv": "spatial.0",
    "SpatialAMM__spatial__bn": "spatial.1",
}


def own_name(theirs: str) -> str:
    module, entry = theirs.rsplit("__", 1)
    return f"{PARAMETERS[module]}.{entry}"


def modulation(file: dict[str, np.ndarray]) -> ActivationModulation:
    """The released module with the parameters of the file."""
    released = Gaussian("pdf", statistics="batch", unbiased=True, epsilon=0)
    module = ActivationModulation(file["x"].shape[1], released, reduction=int(file["reduction"]))
    state = {own_name(name[6:]): torch.from_numpy(file[name]) for name in file if name.startswith("param_")}
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    norm = normalisation(module)
    norm.eps, norm.momentum = float(file["bn_eps"]), float(file["bn_momentum"])
    return module


def normalisation(module: ActivationModulation) -> nn.BatchNorm2d:
    assert module.spatial is not None
    assert isinstance(module.spatial[1], nn.BatchNorm2d)
    return module.spatial[1]


@pytest.mark.parametrize("path", golden("amr_amm_"))
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_activation_modulation(path: Path, mode: str) -> None:
    file = load(path)
    x = tensor(file, "x").requires_grad_()
    for name in ("channel", "spatial"):
        module = modulation(file).train(mode == "train")
        gate = getattr(module, f"{name}_gate")(x)
        close(x * gate, file[f"{name}_gate_out_{mode}"], 1e-5, relative_to_max=True)
    module = modulation(file).train(mode == "train")
    out = module(x)
    close(out, file[f"amm_out_{mode}"], 1e-5, relative_to_max=True)
    (out * tensor(file, "grad_output")).sum().backward()
    assert x.grad is not None
    close(x.grad, file[f"grad_x_{mode}"], 1e-4, relative_to_max=True)
    for name in ("running_mean", "running_var"):
        close(normalisation(module).get_buffer(name), file[f"bn_{name}_after_{mode}"], 1e-5)
    if mode == "train":
        parameters = dict(module.named_parameters())
        names = [name for name in file if name.startswith("grad_") and "AMM" in name]
        assert {own_name(name[5:]) for name in names} == parameters.keys()
        for name in names:
            gradient = parameters[own_name(name[5:])].grad
            assert gradient is not None
            close(gradient, file[name], 1e-4, relative_to_max=True)
