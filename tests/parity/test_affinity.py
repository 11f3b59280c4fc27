"""AffinityNet and inter-pixel relations against arrays computed with the released programs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.affinity.affinitynet import affinity_loss, feature_affinity
from models.affinity.irn import boundary_loss, path_affinity
from models.affinity.pairs import Neighbourhood, affinity_label, pair_masks, path_cells, reduce_label
from models.labels import IGNORE
from pipeline.config.masks import MaskRules
from pipeline.maps.background import confident_channels
from pipeline.maps.labellings import channels_at
from tests.support.golden_files import close, golden, load, near
from tests.support.stencil import packed


@pytest.mark.parametrize("path", golden("psa_labels_"))
def test_psa_labels(path: Path) -> None:
    file = load(path)
    low, high = (torch.from_numpy(file[f"{name}_alpha_maps"])[None] for name in ("low", "high"))
    label = affinity_label(low, high, int(file["pool"]))
    assert torch.equal(label[0], torch.from_numpy(file["label"]))
    masks = pair_masks(label, Neighbourhood(int(file["radius"])))
    for mask, name, count in zip(masks, ("bg_pos", "fg_pos", "neg"), file["counts"], strict=True):
        assert torch.equal(packed(mask[0], file), torch.from_numpy(file[name]).bool())
        assert mask.sum() == count


@pytest.mark.parametrize("path", golden("psa_affinity_"))
def test_psa_affinity(path: Path) -> None:
    file = load(path)
    hood = Neighbourhood(int(file["radius"]))
    feature = torch.from_numpy(file["feature"]).requires_grad_()
    affinity = feature_affinity(feature, hood)
    close(packed(affinity, file), file["affinity"], 1e-6)
    masks = pair_masks(torch.from_numpy(file["label"]), hood)
    loss = affinity_loss(affinity, masks)
    loss.total.backward()
    for ours, name in zip(loss, ("loss", "bg_loss", "fg_loss", "neg_loss"), strict=True):
        near(ours, file[name], 1e-5)
    for mask, name in zip(masks, ("bg_pos", "fg_pos", "neg"), strict=True):
        assert int(mask.sum()) == round(float(file[f"{name}_count"]))
    assert feature.grad is not None
    near(feature.grad, file["grad_feature"], 1e-4)


@pytest.mark.parametrize("path", golden("irn_paths_"))
def test_irn_paths(path: Path) -> None:
    file = load(path)
    hood = Neighbourhood(int(file["radius"]))
    paths = [path_cells(dy, dx) for dy, dx in file["offsets"].tolist()]
    assert [len(cells) for cells in paths] == file["path_cell_count"].tolist()
    theirs = np.split(file["path_cells"], np.cumsum(file["path_cell_count"])[:-1])
    assert [sorted(cells) for cells in paths] == [sorted(map(tuple, cells.tolist())) for cells in theirs]
    affinity = path_affinity(torch.from_numpy(file["boundary"])[None], hood)[0]
    close(packed(affinity, file), file["affinity"], 1e-6)


@pytest.mark.parametrize("path", golden("irn_loss_"))
def test_irn_loss(path: Path) -> None:
    file = load(path)
    hood = Neighbourhood(int(file["radius"]))
    full, label = torch.from_numpy(file["label_full"]), torch.from_numpy(file["label"])
    assert torch.equal(reduce_label(full, full.shape[-1] // label.shape[-1]), label)
    masks = pair_masks(label, hood, first_ignored=21)
    assert [int(mask.sum()) for mask in masks] == file["counts"].tolist()

    logits = torch.from_numpy(file["boundary_logit"]).requires_grad_()
    rows, columns = (int(step) for step in file["affinity_sub_step"])
    affinity = packed(path_affinity(torch.sigmoid(logits[:, 0]), hood), file)
    close(affinity[:, ::rows, ::columns], file["affinity_sub"], 1e-6)
    near(affinity.mean(), file["affinity_mean"], 1e-5)

    loss = boundary_loss(logits, label, hood)
    near((loss.bg + loss.fg) / 2, file["pos_loss"], 1e-5)
    for ours, name in ((loss.bg, "bg_pos_loss"), (loss.fg, "fg_pos_loss"), (loss.neg, "neg_loss")):
        near(ours, file[name], 1e-5)
    without_displacement = (file["pos_loss"] + file["neg_loss"]) / 2
    near(loss.total, without_displacement, 1e-5)
    loss.total.backward()
    assert logits.grad is not None
    near(logits.grad, file["grad_boundary_logit"], 1e-4)


@pytest.mark.parametrize("path", golden("irn_label_"))
def test_confident_labels(path: Path) -> None:
    file = load(path)
    pair = [float(file["fg_threshold"]), float(file["bg_threshold"])]
    channels = confident_channels(*channels_at(file["image"], file["cam"], None, pair, MaskRules()))
    labels = np.array([0, *file["class_ids"]], dtype=np.uint8)[np.where(channels == IGNORE, 0, channels)]
    labels[channels == IGNORE] = IGNORE
    assert np.mean(labels == file["label"]) >= 0.999
