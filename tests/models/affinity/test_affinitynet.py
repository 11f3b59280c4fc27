"""AffinityNet's head."""

import pytest
import torch

from models.affinity.affinitynet import AffinityNet


def test_affinity_head_on_maps_of_several_strides() -> None:
    features = [torch.randn(2, 40, 9, 11), torch.randn(2, 112, 5, 6), torch.randn(2, 320, 3, 3)]
    model = AffinityNet([40, 112, 320], (16, 32, 64))
    feature = model(features, (9, 11))
    assert feature.shape == (2, 112, 9, 11)
    feature.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    torch.testing.assert_close(model([f[:1] for f in features], (9, 11)), feature[:1])


@pytest.mark.parametrize("widths", [(16, 32), (16, 32, 60)])
def test_widths_that_do_not_fit_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="width"):
        AffinityNet([40, 112, 320], widths)
