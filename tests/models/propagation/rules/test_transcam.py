"""Rules that take or multiply the activation as it is, and the patch affinity that normalises it first."""

from __future__ import annotations

import torch

from tests.support.propagation import RULES, moved_by, random_maps, random_parts

EARLIER = ("aux", "baseline", "expansion")


def test_coupling_rules_read_the_raw_activation() -> None:
    maps, parts = random_maps(6, 2, 12, torch.float32), random_parts(6, 12)
    assert parts.patches is not None and parts.class_token is not None
    assert (maps < 0).any()
    expected = {
        "none": maps,
        **dict.fromkeys(EARLIER, maps),
        "tscam": parts.class_token * maps,
        "transcam": torch.einsum("ij,cj->ci", parts.patches, maps),
        "transcam_transposed": torch.einsum("ji,cj->ci", parts.patches, maps),
        "mct_patch": torch.einsum("ij,cj->ci", parts.patches, maps.relu() / maps.amax(1, keepdim=True)),
    }
    for name, values in expected.items():
        torch.testing.assert_close(moved_by(name, maps, parts), values)
        assert RULES[name].raw == (name != "mct_patch")


def test_earlier_maps_are_those_of_the_rules_name() -> None:
    for name, rule in RULES.items():
        assert rule.earlier == (name if name in EARLIER else None)
        assert not (rule.earlier and rule.needs)
