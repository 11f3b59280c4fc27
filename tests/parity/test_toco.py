"""ToCo against arrays computed with the released program."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models.schedules import warm_poly_rate
from models.toco.cams import multi_scale_cams
from models.toco.contrast import ctc_loss
from models.toco.crops import candidates, crop_flags, cut_crops
from models.toco.labels import cam_labels, denormalised, inside_boxes, pair_labels, refined_labels, region_mask
from models.toco.losses import mask_loss, ptc_loss
from tests.support.golden_files import File, agreement, close, golden, load, near

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def tensor(file: File, name: str) -> Tensor:
    return torch.from_numpy(file[name])


def thresholds(file: File) -> tuple[float, float]:
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
    near(loss, file["loss"], 1e-5)
    assert feature.grad is not None
    near(feature.grad, file["grad_feature"], 1e-4)


@pytest.mark.parametrize("path", golden("toco_ctc_"))
def test_class_token_contrast(path: Path) -> None:
    file = load(path)
    flags = tensor(file, "flags")
    student = tensor(file, "student").requires_grad_()
    by_view, teacher = (rows.unflatten(0, (-1, len(flags))) for rows in (student, tensor(file, "teacher")))
    assert len(by_view) == int(file["n_views"])
    loss = ctc_loss(by_view, teacher, flags, float(file["temperature"]), extra_term=True)
    loss.backward()
    near(loss, file["loss"], 1e-5)
    assert student.grad is not None
    near(student.grad, file["grad_student"], 1e-4)


@pytest.mark.parametrize("path", golden("toco_segloss_"))
def test_mask_loss(path: Path) -> None:
    file = load(path)
    logits, label = tensor(file, "logits").requires_grad_(), tensor(file, "label")
    loss = mask_loss(logits, label)
    loss.backward()
    near(loss, file["loss"], 1e-5)
    assert logits.grad is not None
    near(logits.grad, file["grad_logits"], 1e-4)
    halves = {"bg": label.masked_fill(label != 0, 255), "fg": label.masked_fill(label == 0, 255)}
    for name, half in halves.items():
        near(mask_loss(logits, half), file[f"loss_{name}"] / 2, 1e-5)
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
