"""Maps of views: mirror images, batches, propagation rules in the same pass, and what is refused before any of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models.cam.classifier import CamClassifier
from models.localizer import Localizer
from models.networks.attention import AttentionSum
from models.propagation.rule import Rule, RuleKnobs, unchanged
from models.propagation.rules import load_rule, rule_names
from models.transcam.hybrid import HybridClassifier
from models.transcam.network import TransCam
from pipeline.config.cams import CamsKnobs
from pipeline.config.load import resolve
from pipeline.maps import extraction
from pipeline.run.errors import UserError
from pipeline.run.runtime import machine_of
from pipeline.run.told import Runtime
from tests.support.knobs import shipped
from tests.support.stages import LOCAL

CLASSES = 3
MACHINE = machine_of(Runtime.model_validate(LOCAL))


def settings(**knobs: Any) -> CamsKnobs:
    """The compact knobs of extraction, some of them changed."""
    compact = resolve(shipped()).cams.model_dump()
    return CamsKnobs.model_validate(compact | {"long_side": None, "scales": [1.0, 0.5], "batch": 2} | knobs)


def rules(*names: str) -> CamsKnobs:
    """The compact knobs with some rules."""
    return settings(rules=list(names))


def view_maps(
    network: Any, views: Tensor, classes: Sequence[tuple[int, ...]], config: CamsKnobs
) -> dict[str, list[Tensor]]:
    return extraction.view_maps(network, views, classes, CLASSES, config, MACHINE)


def maps(network: Any, views: Tensor, classes: Sequence[tuple[int, ...]], rule: str = "none") -> Tensor:
    """The maps of views with equally many classes, (B, K, h, w)."""
    return torch.stack(view_maps(network, views, classes, rules(rule))[rule])


def own_maps(network: Localizer, view: Tensor) -> Tensor:
    return network.activations(view, torch.ones(1, 2)).classes


def hybrid() -> HybridClassifier:
    """A classifier with attention whose maps are not all alike."""
    torch.manual_seed(0)
    network = HybridClassifier(3, dim=32).eval()
    network.map_head.weight.data.abs_()  # features are positive: so are the maps
    return network


def counted(function: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return function(*arguments, **named)

    return call


def test_maps_are_the_mean_over_mirror_images_and_batching_changes_nothing() -> None:
    torch.manual_seed(0)
    network = CamClassifier("efficientnet_lite0", 2).eval()
    views, both = torch.randn(3, 3, 48, 64), [(1, 2)] * 3
    together = maps(network, views, both)
    with torch.inference_mode():
        alone = torch.stack(
            [(own_maps(network, v[None]) + own_maps(network, v[None].flip(3)).flip(3))[0] / 2 for v in views]
        )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps(network, views.flip(3), both).flip(3), together, atol=1e-5, rtol=1e-5)


def test_coupled_maps_are_attention_times_maps_of_the_same_view() -> None:
    network, view = hybrid(), torch.randn(1, 3, 48, 80)
    expected = []
    for seen in (view, view.flip(3)):
        attention = AttentionSum()
        with torch.inference_mode():
            own = network.parts(seen, [attention]).maps[0, [0, 2]].flatten(1)
        expected.append((own @ attention.mean(0)[1:, 1:].mT).unflatten(1, (3, 5)))
    mean = (expected[0] + expected[1].flip(2)) / 2
    torch.testing.assert_close(maps(network, view, [(1, 3)], "transcam")[0], mean, atol=1e-5, rtol=1e-4)


def test_several_rules_cost_one_forward_pass_and_equal_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network, views, classes = hybrid(), torch.randn(2, 3, 48, 64), [(1,), (1, 3)]
    names = ["adcam", "none", "transcam", "tscam", "rollout", "adcam:gamma=0,steps=1"]
    alone = {rule: view_maps(network, views, classes, rules(rule))[rule] for rule in names}
    calls: list[int] = []
    monkeypatch.setattr(HybridClassifier, "parts", counted(HybridClassifier.parts, calls))
    together = view_maps(network, views, classes, rules(*names))
    assert len(calls) == 1 and list(together) == names
    for rule in names:
        for own, mine in zip(alone[rule], together[rule], strict=True):
            torch.testing.assert_close(own, mine)
    assert not torch.allclose(together["adcam"][0], together["adcam:gamma=0,steps=1"][0])


def test_padding_of_a_conformer_is_mirrored_with_the_view() -> None:
    """The mirror image of a view that ends within a token has its padding on the left."""
    torch.manual_seed(0)
    network, view = TransCam("conformer_tiny", 3).eval(), torch.randn(1, 3, 40, 40)
    whole = functional.pad(view, (0, 8, 0, 8))
    for rule in ("none", "adcam"):
        expected = [network.parts(v).maps[0, :2] for v in (whole, whole.flip(3))]
        if rule == "none":
            mean = (expected[0] + expected[1].flip(2)) / 2
            torch.testing.assert_close(maps(network, view, [(1, 2)], rule)[0], mean, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(maps(network, view, [(1, 2)], rule), maps(network, whole, [(1, 2)], rule))


def test_too_large_a_grid_is_refused_before_any_attention_is_computed() -> None:
    config = settings(rules=["transcam"], max_tokens=10)
    with pytest.raises(UserError, match=r"cams.rules: transcam: a grid of 3 x 4 .* lower the long side"):
        view_maps(hybrid(), torch.randn(1, 3, 48, 64), [(1,)], config)


@pytest.mark.parametrize("name", [name for name in rule_names() if load_rule(name).earlier is None])
def test_large_grids_are_refused_where_attention_would_be_needed(name: str) -> None:
    network, chosen = hybrid(), extraction.chosen_rules(rules(name), depth=3)
    extraction.refuse_unfit(chosen, network, (64, 64), rules(name).max_tokens)
    if load_rule(name).needs:
        with pytest.raises(UserError, match=r"65 x 64 has 4160 tokens.*max_tokens = 4096.*long side.*scale"):
            extraction.refuse_unfit(chosen, network, (65, 64), rules(name).max_tokens)
    else:
        extraction.refuse_unfit(chosen, network, (65, 64), rules(name).max_tokens)


def test_earlier_maps_that_the_network_has_not_are_refused() -> None:
    with pytest.raises(UserError, match=r"cams.rules: aux: the network gives no such maps; it gives its own"):
        view_maps(hybrid(), torch.randn(1, 3, 48, 64), [(1,)], rules("aux"))


def test_fusion_says_how_mirror_images_are_merged() -> None:
    network, view = hybrid(), torch.randn(1, 3, 48, 64)
    with torch.inference_mode():
        one, other = (network.parts(seen).maps[0, :1] for seen in (view, view.flip(3)))
    for fusion, expected in (("max", (one + other.flip(2)) / 2), ("toco", torch.maximum(one, other.flip(2)))):
        found = view_maps(network, view, [(1,)], settings(fusion=fusion))["none"][0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in rule_names() if load_rule(name).earlier is None])
def test_every_rule_that_is_asked_for_is_applied(name: str) -> None:
    network, views = hybrid(), torch.randn(1, 3, 48, 64)
    plain, moved = maps(network, views, [(1, 3)]), maps(network, views, [(1, 3)], name)
    assert torch.equal(plain, moved) == (load_rule(name).formula is unchanged)


def test_a_rule_that_reads_no_attention_is_applied_too(monkeypatch: pytest.MonkeyPatch) -> None:
    doubled = Rule(lambda activation, *_: 2 * activation, RuleKnobs, "M' = 2 M", raw=True)
    monkeypatch.setattr(extraction, "load_rule", lambda _: doubled)
    network, views = hybrid(), torch.randn(1, 3, 48, 64)
    with torch.inference_mode():
        moved = maps(network, views, [(1, 3)])
    monkeypatch.undo()
    torch.testing.assert_close(moved, 2 * maps(network, views, [(1, 3)]))
