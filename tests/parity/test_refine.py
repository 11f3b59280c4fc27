"""Walks and pixel-adaptive refinement against arrays computed with the released programs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.affinity.irn import path_affinity
from models.affinity.pairs import Neighbourhood
from models.refine.par import PAR
from models.refine.walk import Mode, irn_walk, psa_scores, psa_walk, transition_matrix, upsample
from tests.support.golden_files import File, agreement, close, golden, load, tensors
from tests.support.stencil import unpacked

MODES: tuple[Mode, ...] = ("chebyshev", "steps", "dense")


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
    walked = psa_walk(
        cam,
        affinity,
        radius=radius,
        beta=float(file["beta"]),
        steps=2 ** int(file["log2_steps"]),
        alpha=alpha,
        mode=mode,
    )
    large = upsample(walked, 8, cam.shape[-2:])
    close(walked[0], file["score_walk"], 1e-4)
    samples = sampled(large[0], file)
    # The file samples the padded image.
    close(samples, file["score_up_sub"][:, : samples.shape[1], : samples.shape[2]], 1e-4)
    ids = torch.from_numpy(np.concatenate([[0], file["class_ids"]]))
    assert agreement(ids[large[0].argmax(0)], file["label"]) >= 0.999
    degree = (transition_matrix(affinity, radius)[0] > 0).sum(0).view(h, w)
    assert torch.equal(degree, torch.from_numpy(file["degree"]))


def sampled(maps: Tensor, file: File) -> Tensor:
    """The grid of samples that the file stores of the upsampled maps."""
    row, column = (int(start) for start in file["sub_start"])
    step = int(file["sub_step"])
    return maps[..., row::step, column::step]


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


@pytest.mark.parametrize("path", golden("toco_par_"))
def test_par(path: Path) -> None:
    file = load(path)
    dilations = tuple(int(dilation) for dilation in file["dilations"])
    image, mask = tensors(file, "image_uint8", "mask")
    pixels = image.float() / 255
    for iterations, name in ((int(file["iterations"]), "refined"), (1, "refined_1_iteration")):
        par = PAR(dilations, iterations, float(file["w1"]), float(file["w2"]))
        close(par.refine(pixels, mask), file[name], 1e-5)
