"""Predictions from several scales: each rule beside its formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.segmenters import predictions
from models.segmenters.predictions import PREDICTIONS, predict, resized_rows

SIZE = (12, 16)


class Linear(nn.Module):
    """A pixel's logits are a fixed mix of its colours and of its column, so that mirror images differ."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.mix(images) + torch.linspace(-1, 1, images.shape[3])


@pytest.fixture(scope="module")
def network() -> Linear:
    torch.manual_seed(0)
    return Linear().requires_grad_(False)


@pytest.fixture(scope="module")
def views() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(3, 6, 8), torch.randn(3, 12, 16), torch.randn(3, 18, 24)]


def placed(values: Tensor) -> Tensor:
    return functional.interpolate(values, SIZE, mode="bilinear", align_corners=False)[0]


def both(network: Linear, view: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of a view, and those of its mirror image turned back."""
    return network(view[None]), network(view.flip(2)[None]).flip(3)


def test_mean_of_probabilities(network: Linear, views: list[Tensor]) -> None:
    wanted = torch.stack([placed(logits.softmax(1)) for view in views for logits in both(network, view)]).mean(0)
    assert torch.allclose(predict(network, views, SIZE, "mean"), wanted, atol=1e-6)


def test_mean_of_logits(network: Linear, views: list[Tensor]) -> None:
    wanted = torch.stack([placed(logits) for view in views for logits in both(network, view)]).mean(0).softmax(0)
    assert torch.allclose(predict(network, views, SIZE, "logits"), wanted, atol=1e-6)


def test_largest_probability_of_the_scales(network: Linear, views: list[Tensor]) -> None:
    wanted = torch.stack([placed(network(view[None])).softmax(0) for view in views]).amax(0)
    assert torch.allclose(predict(network, views, SIZE, "max", flip=False), wanted, atol=1e-6)


def test_largest_sum_of_both_mirror_images(network: Linear, views: list[Tensor]) -> None:
    wanted = torch.stack([placed(sum(both(network, view), torch.zeros(()))) for view in views]).amax(0).softmax(0)
    assert torch.allclose(predict(network, views, SIZE, "toco"), wanted, atol=1e-6)


def test_sum_of_the_largest_of_both_mirror_images(network: Linear, views: list[Tensor]) -> None:
    wanted = torch.stack([placed(torch.maximum(*both(network, view))) for view in views]).sum(0).softmax(0)
    assert torch.allclose(predict(network, views, SIZE, "toco_coco"), wanted, atol=1e-6)


@pytest.mark.parametrize("fusion", PREDICTIONS)
def test_one_view_without_its_mirror_image_is_the_network_itself(
    network: Linear, views: list[Tensor], fusion: str
) -> None:
    assert torch.allclose(predict(network, views[1:2], SIZE, fusion, flip=False), network(views[1][None]).softmax(1)[0])


@pytest.mark.parametrize("fusion", PREDICTIONS)
def test_bands_change_no_bit(
    network: Linear, views: list[Tensor], fusion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict(network, views, SIZE, fusion)
    monkeypatch.setattr(predictions, "BAND", 3 * 4 * SIZE[1])
    assert torch.equal(predict(network, views, SIZE, fusion), whole)


@pytest.mark.parametrize("size", [(5, 7), (12, 16), (31, 17), (3, 40)])
def test_rows_are_those_of_bilinear_interpolation(size: tuple[int, int]) -> None:
    values = torch.randn(2, 9, 7, generator=torch.Generator().manual_seed(0))
    wanted = functional.interpolate(values[None], (size[0], 7), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(resized_rows(values, size[0], 0, size[0]), wanted, atol=1e-6)
    assert torch.equal(resized_rows(values, size[0], 1, 3), resized_rows(values, size[0], 0, size[0])[:, 1:3])
