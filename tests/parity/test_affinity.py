"""AffinityNet and inter-pixel relations against arrays computed with the released programs."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from models.affinity.affinitynet import ResNet38Affinity, affinity_loss, feature_affinity
from models.affinity.irn import boundary_loss, path_affinity
from models.affinity.pairs import Neighbourhood, affinity_label, pair_masks, path_cells, reduce_label
from models.networks.loading import check_and_load
from models.networks.resnet38 import ResNet38Classifier
from models.refine.walk import Mode, irn_walk, psa_scores, psa_walk, transition_matrix
from tests.support import GOLDEN
from tests.support.filled_weights import filled
from tests.support.golden_files import golden, load

MODES: tuple[Mode, ...] = ("chebyshev", "steps", "dense")


def close(ours: Tensor, reference: ArrayLike, tolerance: float, relative_to_max: bool = False) -> None:
    """Largest absolute difference at most `tolerance`, optionally times the reference's maximum."""
    reference = np.asarray(reference)
    scale = float(np.abs(reference).max()) if relative_to_max else 1.0
    assert tuple(ours.shape) == reference.shape
    assert np.abs(ours.detach().double().numpy() - reference).max() <= tolerance * scale


def agreement(ours: Tensor, reference: np.ndarray) -> float:
    return float((ours.numpy() == reference).mean())


def order(file: dict[str, np.ndarray]) -> list[int]:
    """Positions of the file's offsets in the stencil (files may sort them by path length)."""
    offsets = Neighbourhood(int(file["radius"])).offsets
    assert sorted(offsets) == sorted(map(tuple, file["offsets"].tolist()))
    return [offsets.index((dy, dx)) for dy, dx in file["offsets"].tolist()]


def packed(stencil: Tensor, file: dict[str, np.ndarray]) -> Tensor:
    """(..., n_offsets, h, w) -> (..., n_offsets, n_sources) in the file's order of offsets."""
    h, w = stencil.shape[-2:]
    source, _ = next(Neighbourhood(int(file["radius"])).windows(h, w))
    index = torch.arange(h * w).view(h, w)[source].flatten()
    if "source_index" in file:
        assert torch.equal(index, torch.from_numpy(file["source_index"]))
    return stencil[..., order(file), :, :].flatten(-2)[..., index]


def unpacked(pairs: np.ndarray, file: dict[str, np.ndarray], grid: tuple[int, int]) -> Tensor:
    """The inverse, zeros where no source is."""
    stencil = torch.zeros(len(pairs), grid[0] * grid[1])
    rows = torch.tensor(order(file))[:, None]
    stencil[rows, torch.from_numpy(file["source_index"])] = torch.from_numpy(pairs)
    return stencil.view(-1, *grid)


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
        close(ours, file[name], 1e-5, relative_to_max=True)
    for mask, name in zip(masks, ("bg_pos", "fg_pos", "neg"), strict=True):
        assert int(mask.sum()) == round(float(file[f"{name}_count"]))
    assert feature.grad is not None
    close(feature.grad, file["grad_feature"], 1e-4, relative_to_max=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", golden("psa_walk_"))
def test_psa_walk(path: Path, mode: Mode) -> None:
    file = load(path)
    h, w = (int(side) for side in file["grid_size"])
    radius, alpha = int(file["radius"]), float(file["alpha"])
    affinity = unpacked(file["affinity"], file, (h, w))[None]
    cam = torch.from_numpy(file["cam"])[None]
    assert cam.shape[-2:] == tuple(file["image_size"])
    close(psa_scores(cam, alpha)[0], file["score_pooled"], 1e-5)
    walked, large = psa_walk(
        cam,
        affinity,
        radius=radius,
        beta=float(file["beta"]),
        steps=2 ** int(file["log2_steps"]),
        alpha=alpha,
        mode=mode,
    )
    close(walked[0], file["score_walk"], 1e-4)
    samples = sampled(large[0], file)
    # The file samples the padded image.
    close(samples, file["score_up_sub"][:, : samples.shape[1], : samples.shape[2]], 1e-4)
    ids = torch.from_numpy(np.concatenate([[0], file["class_ids"]]))
    assert agreement(ids[large[0].argmax(0)], file["label"]) >= 0.999
    degree = (transition_matrix(affinity, radius)[0] > 0).sum(0).view(h, w)
    assert torch.equal(degree, torch.from_numpy(file["degree"]))


def sampled(maps: Tensor, file: dict[str, np.ndarray]) -> Tensor:
    """The grid of samples that the file stores of the upsampled maps."""
    row, column = (int(start) for start in file["sub_start"])
    step = int(file["sub_step"])
    return maps[..., row::step, column::step]


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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", golden("irn_propagate_"))
def test_irn_propagate(path: Path, mode: Mode) -> None:
    file = load(path)
    boundary, cam = (torch.from_numpy(file[name])[None] for name in ("boundary", "cam"))
    height, width = (int(side) for side in file["image_size"])
    hood = Neighbourhood(int(file["radius"]), "full")
    walked, large, _ = irn_walk(
        cam,
        boundary,
        path_affinity(boundary, hood),
        (height, width),
        radius=hood.radius,
        beta=float(file["beta"]),
        steps=2 ** int(file["log2_steps"]),
        mode=mode,
    )
    close(walked[0], file["score_walk"], 1e-4)
    close(sampled(large[0], file), file["score_norm_sub"], 1e-4)
    background = torch.full((1, height, width), float(file["bg_threshold"]))
    ids = torch.from_numpy(np.concatenate([[0], file["class_ids"]]))
    label = ids[torch.cat([background, large[0]]).argmax(0)]
    assert agreement(label, file["label"]) >= 0.999


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
    close(affinity.mean(), file["affinity_mean"], 1e-5, relative_to_max=True)

    loss = boundary_loss(logits, label, hood)
    close((loss.bg + loss.fg) / 2, file["pos_loss"], 1e-5, relative_to_max=True)
    for ours, name in ((loss.bg, "bg_pos_loss"), (loss.fg, "fg_pos_loss"), (loss.neg, "neg_loss")):
        close(ours, file[name], 1e-5, relative_to_max=True)
    without_displacement = (file["pos_loss"] + file["neg_loss"]) / 2
    close(loss.total, without_displacement, 1e-5, relative_to_max=True)
    loss.total.backward()
    assert logits.grad is not None
    close(logits.grad, file["grad_boundary_logit"], 1e-4, relative_to_max=True)


@lru_cache(maxsize=1)
def filled_trunk_entry(salt: int) -> dict[tuple[str, tuple[int, ...]], Tensor]:
    """Entries filled so far for one salt; both networks share the trunk's."""
    return {}


def fill(model: nn.Module, salt: int) -> None:
    entries = filled_trunk_entry(salt)
    state = {}
    for name, own in model.state_dict().items():
        key = (name, tuple(own.shape))
        if key not in entries:
            entries[key] = filled(name, key[1], salt)
        state[name] = entries[key]
    check_and_load(model, state)


@lru_cache(maxsize=1)
def classifier(n_classes: int, salt: int) -> ResNet38Classifier:
    with torch.device("meta"):
        model = ResNet38Classifier(n_classes)
    fill(model.to_empty(device="cpu"), salt)
    return model.eval()


@lru_cache(maxsize=1)
def affinity_net(salt: int) -> ResNet38Affinity:
    with torch.device("meta"):
        model = ResNet38Affinity()
    fill(model.to_empty(device="cpu"), salt)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("path", golden("psa_resnet38_cls_"))
def test_resnet38_classifier(path: Path) -> None:
    file = load(path)
    model = classifier(file["logits"].shape[1], int(file["salt"]))
    image = torch.from_numpy(file["input"])
    close(model(image), file["logits"], 3e-5, relative_to_max=True)
    maps = model.class_maps(image)
    close(maps, file["cam_raw"], 3e-5, relative_to_max=True)
    close(maps.relu(), file["cam_relu"], 3e-5, relative_to_max=True)
    taps = model.taps(image)._asdict()
    for (name, tap), step in zip(taps.items(), file["channel_step"], strict=True):
        close(tap[:, ::step], file[f"{name}_sub"], 3e-5, relative_to_max=True)


@torch.no_grad()
@pytest.mark.parametrize("path", golden("psa_resnet38_aff_"))
def test_resnet38_affinity(path: Path) -> None:
    file = load(path)
    model = affinity_net(int(file["salt"]))
    image = torch.from_numpy(file["input"])
    concatenated = model.concatenated(image)[:, :: int(file["concat_channel_step"])]
    close(concatenated, file["concat_sub"], 3e-5, relative_to_max=True)
    feature = model(image)
    close(feature[:, :: int(file["feature_channel_step"])], file["feature_sub"], 3e-5, relative_to_max=True)
    close(feature.mean((2, 3)), file["feature_channel_mean"], 3e-5, relative_to_max=True)
    if "pair_affinity" in file:
        pairs = feature_affinity(feature, Neighbourhood(5))[0].flatten(1)
        # The files of the network do not repeat the offsets; sources are those with a non-zero affinity.
        close(pairs[:, pairs[0] > 0], file["pair_affinity"], 2e-6)


@pytest.mark.parametrize("kind", ["cls", "aff"])
def test_resnet38_names_and_shapes(kind: str) -> None:
    listed = json.loads((GOLDEN / f"shapes_psa_resnet38_{kind}.json").read_text())
    with torch.device("meta"):
        model = ResNet38Classifier() if kind == "cls" else ResNet38Affinity()
    assert {name: list(own.shape) for name, own in model.state_dict().items()} == listed["entries"]
