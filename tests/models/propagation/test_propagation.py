"""Properties of the propagation rules, worked numbers, and a synthetic study of what AD-CAM is for."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError
from scipy.spatial.distance import jensenshannon
from torch import Tensor

from models.networks.attention import AttentionCoupling, AttentionRollout, AttentionSum
from models.propagation.adcam import (
    adcam,
    agreement,
    conservative,
    diffuse,
    neighbourhoods,
    restarted,
    sinkhorn,
    source_boxes,
    step_weights,
    transition,
)
from models.propagation.knobs import (
    EARLIER,
    SELF_LOOP,
    Direction,
    Mode,
    PropagationRule,
    Settings,
    Similarity,
    lazy_share,
)
from models.propagation.rule import RULES, Attention, rectified

SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
MODES: tuple[Mode, ...] = get_args(Mode)
SELF_LOOPS = ("rowmax", "keep", "zero", "lazy:0.7")
LINEAR = ("none", *EARLIER, "tscam", "transcam", "transcam_transposed")
seeds = st.integers(0, 2**31)
tokens = st.integers(1, 12)

GOLDEN = torch.tensor([[0.5, 0.4, 0.1, 0], [0.4, 0.5, 0.1, 0], [0.1, 0.1, 0.4, 0.4], [0, 0, 0.4, 0.6]])
MAP = torch.tensor([[1, 0.2, 0.1, 0]])


def random_attention(seed: int, n: int, sparse: float = 0.3, dtype: torch.dtype = torch.float64) -> Tensor:
    """Attention with a part of its mass on class tokens; entries are zero with probability `sparse`."""
    generator = torch.Generator().manual_seed(seed)
    attention = (2 * torch.randn(n, n, dtype=torch.float64, generator=generator)).softmax(1)
    kept = torch.rand(n, n, generator=generator) >= sparse
    return (0.9 * attention * kept).to(dtype)


def random_maps(seed: int, classes: int, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randn(classes, n, dtype=torch.float64, generator=generator).to(dtype)


def random_parts(seed: int, n: int) -> Attention:
    """All that any rule reads, in float32."""
    patches = random_attention(seed, n, dtype=torch.float32)
    rollout = random_attention(seed + 7, n, dtype=torch.float32)
    return Attention(patches, random_attention(seed + 8, n, 0, torch.float32)[0], rollout)


def knobs(**changes: Any) -> Settings:
    """Settings with changes; `shared_topk` gets the number that it needs."""
    if changes.get("similarity") == "shared_topk":
        changes = {"topk": 3, **changes}
    return Settings(**changes)


def variants() -> Iterator[Settings]:
    """Every word of every knob, one at a time."""
    yield Settings()
    yield Settings(topk=2)
    yield Settings(mode="ppr", steps="closed")
    yield from (knobs(similarity=word) for word in SIMILARITIES)
    yield from (Settings(self_loop=word) for word in SELF_LOOPS)
    yield from (Settings(direction=word) for word in DIRECTIONS)
    yield from (Settings(mode=word) for word in MODES)


VARIANTS = tuple(variants())


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Equal up to the order of additions, which differs between devices, threads and ways to write a formula."""
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def off_diagonal(matrix: Tensor) -> Tensor:
    return matrix[~torch.eye(len(matrix), dtype=torch.bool)]


def step_of(attention: Tensor, options: Settings) -> Tensor:
    weights = conservative(attention, options)
    return transition(weights, options.direction, options.sinkhorn_iters, lazy_share(options.self_loop))


# Worked numbers


@pytest.mark.parametrize(
    ("kind", "s01", "s02", "s03", "s23"),
    [
        ("bhattacharyya", 0.994427, 0.623607, 0.2, 0.889898),
        ("js", 0.991968, 0.555971, 0.180482, 0.885475),
        ("intersection", 0.9, 0.3, 0.1, 0.8),
        ("jaccard", 0.9 / 1.1, 0.3 / 1.7, 0.1 / 1.9, 0.8 / 1.2),
        ("cosine", 0.97619, 0.344016, 0.085592, 0.951303),
        ("shared_topk", 1, 0.75, 1 / 3, 0.5),
        ("none", 1, 1, 1, 1),
    ],
)
def test_worked_agreements(kind: Similarity, s01: float, s02: float, s03: float, s23: float) -> None:
    shared = agreement(neighbourhoods(GOLDEN), kind)
    found = torch.stack([shared[0, 1], shared[0, 2], shared[0, 3], shared[2, 3]])
    assert_same(found, torch.tensor([s01, s02, s03, s23], dtype=torch.float32))


def test_worked_diffusion() -> None:
    weights = conservative(GOLDEN, Settings())
    found = torch.stack([weights[0, 1], weights[0, 2], weights[2, 3], weights[0, 3]])
    torch.testing.assert_close(found, torch.tensor([0.395554, 0.038889, 0.316767, 0]), atol=1e-5, rtol=0)
    first = [0.476573, 0.476573, 0.046854, 0]
    expected = torch.tensor([first, first, [0.054672, 0.054672, 0.445328, 0.445328], [0, 0, 0.5, 0.5]])
    torch.testing.assert_close(transition(weights), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Settings(steps=1), [0.576573, 0.576573, 0.110139, 0.05]),
        (Settings(), [0.554719, 0.554719, 0.134359, 0.080069]),
        (Settings(mode="ppr", steps="closed", alpha=0.8), [0.611121, 0.451121, 0.163601, 0.109068]),
        (Settings(steps=1, self_loop="keep"), [0.623901, 0.534482, 0.109077, 0.034553]),
        (Settings(steps=1, self_loop="keep", gamma=0), [0.59, 0.51, 0.16, 0.04]),
    ],
)
def test_worked_maps(options: Settings, expected: list[float]) -> None:
    result = RULES["adcam"].propagate(MAP, Attention(GOLDEN), (2, 2), options)
    torch.testing.assert_close(result, torch.tensor([expected]), atol=1e-5, rtol=0)


def test_worked_class_aware_affinity() -> None:
    # The example is doubly stochastic already, so that nothing but the square remains.
    result = RULES["caa"].propagate(MAP, Attention(GOLDEN), (2, 2), Settings())
    torch.testing.assert_close(result, torch.tensor([[0.515, 0.507, 0.19, 0.088]]), atol=1e-5, rtol=0)


# The conservative step


@given(seeds, tokens, st.sampled_from(SIMILARITIES), st.floats(0, 8), st.sampled_from([None, 1, 3, 99]), st.booleans())
@settings(deadline=None, max_examples=150)
def test_attention_is_only_ever_reduced(
    seed: int, n: int, kind: Similarity, gamma: float, topk: int | None, single: bool
) -> None:
    attention = random_attention(seed, n, dtype=torch.float32 if single else torch.float64)
    topk = 3 if kind == "shared_topk" else topk
    for self_loop in ("keep", "zero"):
        weights = conservative(attention, Settings(similarity=kind, gamma=gamma, topk=topk, self_loop=self_loop))
        assert (weights >= 0).all() and (weights <= attention).all()
    weights = conservative(attention, Settings(similarity=kind, gamma=0, topk=topk))
    assert torch.equal(off_diagonal(weights), off_diagonal(attention))


@given(seeds, tokens, st.sampled_from(SIMILARITIES), st.sampled_from([None, 1, 4]), st.integers(1, 15))
@settings(deadline=None, max_examples=150)
def test_agreement_is_a_symmetric_share(seed: int, n: int, kind: Similarity, topk: int | None, chunk: int) -> None:
    attention = random_attention(seed, n, dtype=torch.float32)
    attention[-1] = attention[0]  # equal rows agree by 1, which rounding may exceed
    shared = agreement(neighbourhoods(attention, topk), kind, chunk)
    assert_same(shared, shared.mT)
    assert (shared.diagonal() == 1).all() and (shared >= 0).all() and (shared <= 1).all()


@pytest.mark.parametrize("kind", [kind for kind in SIMILARITIES if kind != "none"])
def test_equal_neighbourhoods_agree_and_disjoint_ones_do_not(kind: Similarity) -> None:
    attention = random_attention(0, 6, 0).float()
    attention[1] = 0.5 * attention[0]  # the same neighbourhood, with half of the mass on class tokens
    attention[2, :3], attention[3, 3:] = 0, 0
    shared = agreement(neighbourhoods(attention), kind)
    assert shared[0, 1] == pytest.approx(1, abs=1e-6)
    assert shared[2, 3] == pytest.approx(0, abs=1e-6)
    weights = conservative(attention, knobs(similarity=kind, topk=6))
    assert attention[2, 3] > 0.01 and weights[2, 3] == pytest.approx(0, abs=1e-6)
    assert weights[0, 1] == pytest.approx(float(attention[0, 1]), rel=1e-5)


@given(seeds, st.integers(2, 9))
@settings(deadline=None, max_examples=30)
def test_agreements_against_their_definitions(seed: int, n: int) -> None:
    rows = neighbourhoods(random_attention(seed, n, 0.4) + 0.01 * torch.eye(n, dtype=torch.float64))
    table = rows.numpy()
    for kind, formula in {
        "bhattacharyya": lambda p, q: np.sqrt(p * q).sum(),
        "js": lambda p, q: 1 - jensenshannon(p, q, base=2) ** 2,
        "intersection": lambda p, q: 1 - np.abs(p - q).sum() / 2,
        "jaccard": lambda p, q: np.minimum(p, q).sum() / np.maximum(p, q).sum(),
        "cosine": lambda p, q: p @ q / np.sqrt((p @ p) * (q @ q)),
    }.items():
        expected = np.array([[formula(p, q) for q in table] for p in table])
        np.testing.assert_allclose(agreement(rows, kind), expected, atol=1e-7)  # type: ignore[arg-type]


def test_topk_keeps_the_largest_neighbours() -> None:
    rows = neighbourhoods(torch.tensor([[0.1, 0.4, 0.2], [0.3, 0.0, 0.1], [0.0, 0.0, 0.0]]), 2)
    torch.testing.assert_close(rows, torch.tensor([[0, 2 / 3, 1 / 3], [0.75, 0, 0.25], [0, 0, 0]]))
    wide = random_attention(0, 7)
    assert torch.equal(neighbourhoods(wide, 7), neighbourhoods(wide))
    sets = agreement(
        neighbourhoods(torch.tensor([[0.5, 0.4, 0.1], [0.1, 0.5, 0.4], [0.4, 0.5, 0.1]]), 2), "shared_topk"
    )
    torch.testing.assert_close(sets, torch.tensor([[1, 0.5, 1], [0.5, 1, 0.5], [1, 0.5, 1]]))


def test_self_loops() -> None:
    attention = torch.tensor([[0.1, 0.5, 0.2], [0.2, 0.6, 0.1], [0.0, 0.0, 0.7]])
    loops = {
        word: conservative(attention, Settings(gamma=0, self_loop=word)).diagonal().tolist() for word in SELF_LOOPS
    }
    assert loops["rowmax"] == pytest.approx([0.5, 0.2, 0])
    assert loops["keep"] == pytest.approx([0.1, 0.6, 0.7])
    assert loops["zero"] == loops["lazy:0.7"] == [0, 0, 0]
    lazy = step_of(attention, Settings(gamma=0, self_loop="lazy:0.7"))
    # The third token attends to itself alone; without a self loop it is isolated and keeps what it has.
    expected = [[0.3, 0.7 * 5 / 7, 0.7 * 2 / 7], [0.7 * 2 / 3, 0.3, 0.7 / 3], [0, 0, 1]]
    torch.testing.assert_close(lazy, torch.tensor(expected))


# The convincing step


@given(seeds, tokens, st.sampled_from(SELF_LOOPS), st.sampled_from(MODES), st.integers(0, 6))
@settings(deadline=None, max_examples=100)
def test_pull_takes_means(seed: int, n: int, self_loop: str, mode: Mode, steps: int) -> None:
    options = Settings(self_loop=self_loop, mode=mode, steps=steps)
    step = step_of(random_attention(seed, n), options)
    torch.testing.assert_close(step.sum(1), torch.ones(n, dtype=step.dtype))
    maps = random_maps(seed, 3, n)
    moved = diffuse(maps, step, options)
    assert (moved <= maps.amax(1, keepdim=True) + 1e-9).all() and (moved >= maps.amin(1, keepdim=True) - 1e-9).all()
    constant = torch.full_like(maps, 0.7)
    torch.testing.assert_close(diffuse(constant, step, options), constant)


@given(
    seeds,
    tokens,
    st.sampled_from(["push_row", "push_col"]),
    st.sampled_from(SELF_LOOPS),
    st.sampled_from(MODES),
    st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_push_preserves_mass(seed: int, n: int, way: Direction, self_loop: str, mode: Mode, closed: bool) -> None:
    options = Settings(direction=way, self_loop=self_loop, mode=mode, steps="closed" if closed and mode == "ppr" else 4)
    step = step_of(random_attention(seed, n, 0.6), options)
    maps = random_maps(seed, 3, n)
    torch.testing.assert_close(diffuse(maps, step, options).sum(1), maps.sum(1), atol=1e-5, rtol=0)


def test_push_gives_in_proportion_to_attention() -> None:
    weights = torch.tensor([[0.0, 0.3, 0.1], [0.2, 0.2, 0.0], [0.1, 0.1, 0.2]])
    maps = torch.tensor([[1.0, 0, 0]])
    options = Settings(steps=1)
    # Token 0 attends to 1 and 2; tokens 1 and 2 attend to it.
    for way, expected in {"push_row": [0, 0.75, 0.25], "push_col": [0, 2 / 3, 1 / 3], "pull": [0, 0.5, 0.25]}.items():
        moved = diffuse(maps, transition(weights, way), options)  # type: ignore[arg-type]
        torch.testing.assert_close(moved, torch.tensor([expected]))


@given(seeds, st.integers(1, 20))
@settings(deadline=None, max_examples=50)
def test_many_sinkhorn_sweeps_are_doubly_stochastic(seed: int, n: int) -> None:
    # Entries within a factor of 5: each sweep at least halves the error, which nearly separate components prevent.
    weights = 0.2 + 0.8 * torch.rand(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    step = sinkhorn(weights, 20)
    ones = torch.ones(n, dtype=step.dtype)
    for axis in (0, 1):
        torch.testing.assert_close(step.sum(axis), ones, atol=1e-3, rtol=0)
    assert torch.equal(step, step.mT)
    once = sinkhorn(weights, 1)
    columns = weights / weights.sum(0, keepdim=True)
    rows = columns / columns.sum(1, keepdim=True)
    torch.testing.assert_close(once, (rows + rows.mT) / 2)


@example(0, 0.0, 0.1, "heat")
@given(st.integers(0, 40), st.floats(0, 1, exclude_max=True), st.floats(0, 100), st.sampled_from(MODES))
@settings(deadline=None, max_examples=150)
def test_numbers_of_steps_are_distributions(steps: int, alpha: float, tau: float, mode: Mode) -> None:
    weights = step_weights(mode, steps, alpha, tau)
    assert math.fsum(weights) == pytest.approx(1, abs=1e-12) and min(weights) >= 0
    if mode == "heat":
        assert math.fsum(t * weight for t, weight in enumerate(weights)) == pytest.approx(tau, abs=1e-6)
    else:
        assert len(weights) == steps + 1


def test_modes_against_their_definitions() -> None:
    step = step_of(random_attention(5, 8), Settings())
    maps = random_maps(5, 2, 8)
    power = [maps @ torch.linalg.matrix_power(step, t).mT for t in range(31)]
    restarting = maps
    for _ in range(30):
        restarting = 0.7 * restarting @ step.mT + 0.3 * maps
    heat = maps @ torch.matrix_exp(-3.5 * (torch.eye(8).double() - step)).mT
    total = (power[0] + 0.7 * power[1] + 0.49 * power[2] + 0.343 * power[3]) / (1 + 0.7 + 0.49 + 0.343)
    for options, expected in [
        (Settings(steps=5), power[5]),
        (Settings(mode="ppr", steps=30, alpha=0.7), restarting),
        (Settings(mode="heat", tau=3.5), heat),
        (Settings(mode="sum", steps=3, alpha=0.7), total),
    ]:
        torch.testing.assert_close(diffuse(maps, step, options), expected, atol=1e-7, rtol=0)


@given(seeds, tokens, st.floats(0, 0.9), st.sampled_from(["pull", "push_row", "push_col"]))
@settings(deadline=None, max_examples=50)
def test_closed_form_equals_many_restarts(seed: int, n: int, alpha: float, way: Direction) -> None:
    step = step_of(random_attention(seed, n, dtype=torch.float32), Settings(direction=way))
    maps = rectified(random_maps(seed, 2, n, torch.float32))
    iterated = diffuse(maps, step, Settings(mode="ppr", steps=200, alpha=alpha))
    torch.testing.assert_close(restarted(maps, step, alpha), iterated, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        Settings(steps=0),
        Settings(mode="ppr", steps=30, alpha=0),
        Settings(mode="ppr", steps="closed", alpha=0),
        Settings(mode="sum", steps=9, alpha=0),
        Settings(mode="heat", tau=0),
        Settings(self_loop="lazy:0"),
        Settings(residual=1),
        Settings(residual=1, box_mask=0.5),
    ],
)
def test_no_step_no_change(options: Settings) -> None:
    maps = rectified(random_maps(3, 2, 12, torch.float32))
    moved = RULES["adcam"].propagate(maps, random_parts(3, 12), (3, 4), options)
    torch.testing.assert_close(moved, maps, atol=1e-6, rtol=0)


def test_residual_mixes() -> None:
    maps, attention = rectified(random_maps(3, 2, 12)), random_attention(3, 12)
    moved = adcam(maps, attention, (3, 4), Settings())
    mixed = adcam(maps, attention, (3, 4), Settings(residual=0.3))
    torch.testing.assert_close(mixed, 0.3 * maps + 0.7 * moved)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_diffusion_is_linear(options: Settings) -> None:
    attention, first, second = random_attention(9, 12), random_maps(9, 3, 12), random_maps(11, 3, 12)
    together = adcam(2 * first - 3 * second, attention, (3, 4), options)
    apart = 2 * adcam(first, attention, (3, 4), options) - 3 * adcam(second, attention, (3, 4), options)
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_components_never_exchange_activation(options: Settings) -> None:
    attention = torch.zeros(9, 9)
    attention[:4, :4], attention[4:, 4:] = random_attention(1, 4).float(), random_attention(2, 5).float()
    maps = torch.zeros(1, 9)
    maps[0, :4] = 1
    moved = RULES["adcam"].propagate(maps, Attention(attention), (3, 3), options)
    assert (moved[0, 4:].abs() < 1e-7).all()
    assert (moved[0, :4] > 0.01).any()


# The rules


@given(seeds, tokens, st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_rules_follow_a_permutation_of_the_tokens(seed: int, n: int, classes: int) -> None:
    maps, parts = random_maps(seed, classes, n, torch.float32), random_parts(seed, n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert parts.patches is not None and parts.class_token is not None and parts.rollout is not None
    shuffled = Attention(parts.patches[order][:, order], parts.class_token[order], parts.rollout[order][:, order])
    options = [("adcam", option) for option in VARIANTS] + [(name, Settings()) for name in RULES]
    for name, option in options:
        plain = RULES[name].propagate(maps, parts, (1, n), option)
        moved = RULES[name].propagate(maps[:, order], shuffled, (1, n), option)
        assert_same(moved, plain[:, order])


@pytest.mark.parametrize("name", RULES)
def test_classes_do_not_see_each_other(name: str) -> None:
    maps, parts, options = random_maps(4, 3, 12, torch.float32), random_parts(4, 12), Settings(box_mask=0.5)
    together = RULES[name].propagate(maps, parts, (3, 4), options)
    apart = [RULES[name].propagate(row[None], parts, (3, 4), options) for row in maps]
    torch.testing.assert_close(together, torch.cat(apart))


def test_plain_settings_are_row_normalised_transcam() -> None:
    maps, attention = rectified(random_maps(2, 2, 12, torch.float32)), random_attention(2, 12).float()
    attention /= attention.sum(1, keepdim=True)
    plain = Settings(gamma=0, steps=1, self_loop="keep")
    coupled = RULES["transcam"].propagate(maps, Attention(attention), (3, 4), plain)
    unequal = Attention(attention * torch.linspace(0.2, 1, 12)[:, None])
    torch.testing.assert_close(RULES["adcam"].propagate(maps, unequal, (3, 4), plain), coupled)
    assert_same(coupled, maps @ attention.mT)


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
        torch.testing.assert_close(RULES[name].propagate(maps, parts, (3, 4), Settings()), values)


@pytest.mark.parametrize("name", RULES)
def test_raw_rules_keep_the_scale_and_others_normalise_it(name: str) -> None:
    maps, parts = random_maps(6, 2, 12, torch.float32), random_parts(6, 12)
    once = RULES[name].propagate(maps, parts, (3, 4), Settings())
    scaled = RULES[name].propagate(5 * maps, parts, (3, 4), Settings())
    torch.testing.assert_close(scaled, 5 * once if name in LINEAR else once)


def queries_and_keys(block: int, size: int = 13) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(block)
    return torch.randn(1, 3, size, 4, generator=generator), torch.randn(1, 3, size, 4, generator=generator)


def test_rollout_against_a_loop() -> None:
    observer, product = AttentionRollout(), np.eye(13)
    for block in range(4):
        queries, keys = queries_and_keys(block)
        observer(block, queries, keys)
        heads = [np.exp(q @ k.T) for q, k in zip(queries[0].double().numpy(), keys[0].double().numpy(), strict=True)]
        mean = sum(head / head.sum(1, keepdims=True) for head in heads) / 3
        mixed = mean + np.eye(13)
        product = mixed / mixed.sum(1, keepdims=True) @ product
    assert observer.product is not None
    maps = random_maps(0, 2, 12)
    found = RULES["rollout"].propagate(maps, Attention(rollout=observer.product[0, 1:, 1:]), (3, 4), Settings())
    expected = rectified(maps).numpy() @ product[1:, 1:].T
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_transcam_times_the_blocks_is_the_coupling_without_a_matrix() -> None:
    total, coupling = AttentionSum(), AttentionCoupling()
    for block in range(4):
        for observer in (total, coupling):
            observer(block, *queries_and_keys(block))
    maps = random_maps(0, 2, 12, torch.float32)
    attention = Attention(total.mean(0)[1:, 1:])
    coupled = RULES["transcam"].propagate(maps, attention, (3, 4), Settings())
    torch.testing.assert_close(4 * coupled, coupling.couple(maps[None])[0])


def test_class_aware_affinity_against_its_definition() -> None:
    maps, attention = rectified(random_maps(8, 2, 12)), random_attention(8, 12, 0)
    boxes = source_boxes(maps, (3, 4), 0.7)
    assert 0 < boxes.sum() < 24
    matrix = attention
    for _ in range(3):
        matrix = matrix / matrix.sum(0, keepdim=True)
        matrix = matrix / matrix.sum(1, keepdim=True)
    matrix = (matrix + matrix.mT) / 2
    expected = torch.stack([(matrix @ matrix * box) @ row for box, row in zip(boxes, maps, strict=True)])
    found = RULES["caa"].propagate(maps, Attention(attention), (3, 4), Settings(box_mask=0.7))
    torch.testing.assert_close(found, expected.float())


def test_ppr_is_the_closed_form_on_plain_attention() -> None:
    maps, attention = rectified(random_maps(8, 2, 12, torch.float32)), random_attention(8, 12, 0).float()
    for way in ("pull", "push_row"):
        options = Settings(alpha=0.8, direction=way)
        found = RULES["ppr"].propagate(maps, Attention(attention), (3, 4), options)
        step = attention / attention.sum(1, keepdim=True)
        inverse = torch.linalg.inv(torch.eye(12) - 0.8 * (step if way == "pull" else step.mT))
        assert_same(found, 0.2 * maps @ inverse.mT)


def test_boxes_are_inclusive_and_one_for_each_component() -> None:
    picture = [
        [0.9, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.8, 0.0, 0.0, 0.0, 0.0],  # touches the cell above at a corner: one component
        [0.0, 0.0, 0.0, 0.0, 0.5, 0.0],
        [0.0, 0.0, 0.0, 0.3, 0.0, 1.0],
    ]
    maps = torch.tensor([picture, [[0.0] * 6] * 4]).flatten(1)
    boxes = source_boxes(maps, (4, 6), 0.5).view(2, 4, 6)
    expected = torch.zeros(4, 6)
    expected[:2, :2] = 1
    expected[2:, 4:] = 1
    assert torch.equal(boxes[0], expected)
    assert boxes[1].all()


@pytest.mark.parametrize("name", ["adcam", "caa"])
def test_activation_outside_the_boxes_is_no_source_but_a_target(name: str) -> None:
    maps, attention = rectified(random_maps(8, 1, 12, torch.float32)), random_attention(8, 12, 0).float()
    boxes = source_boxes(maps, (3, 4), 0.7)
    options = Settings(box_mask=0.7)
    found = RULES[name].propagate(maps, Attention(attention), (3, 4), options)
    inside = RULES[name].propagate(maps * boxes, Attention(attention), (3, 4), Settings())
    assert_same(found, inside)
    assert (found[boxes == 0] > 0).all()


# Hard inputs


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("name", RULES)
def test_hard_inputs(name: str, options: Settings) -> None:
    if name == "caa" and options.steps == "closed":
        pytest.skip("caa takes a number of steps")
    zero_rows = random_parts(0, 12)
    assert zero_rows.patches is not None
    zero_rows.patches[[0, 5]], zero_rows.patches[:, [0, 7]] = 0, 0
    nothing = Attention(torch.zeros(12, 12), torch.zeros(12), torch.zeros(12, 12))
    tiny = Attention(torch.full((12, 12), 1e-42), torch.zeros(12), torch.zeros(12, 12))
    maps = random_maps(0, 3, 12, torch.float32)
    maps[1] = -1
    for attention in (zero_rows, nothing, tiny):
        result = RULES[name].propagate(maps, attention, (3, 4), options)
        assert result.isfinite().all() and result.dtype == torch.float32
    assert RULES[name].propagate(maps[:0], zero_rows, (3, 4), options).shape == (0, 12)
    single = RULES[name].propagate(torch.tensor([[2.0]]), random_parts(0, 1), (1, 1), options)
    assert single.shape == (1, 1) and single.isfinite().all()


def test_inputs_stay_as_they_are() -> None:
    for name, rule in RULES.items():
        maps, parts = random_maps(0, 2, 12, torch.float32), random_parts(0, 12)
        rule.propagate(maps, parts, (3, 4), Settings(box_mask=0.5))
        assert torch.equal(maps, random_maps(0, 2, 12, torch.float32)), name
        for found, expected in zip(vars(parts).values(), vars(random_parts(0, 12)).values(), strict=True):
            assert torch.equal(found, expected), name


@pytest.mark.parametrize("kind", ["js", "intersection", "jaccard"])
@pytest.mark.parametrize("chunk", [1, 5, 12, 400])
def test_chunks_do_not_matter(kind: Similarity, chunk: int) -> None:
    attention = random_attention(0, 13, dtype=torch.float32)
    whole = conservative(attention, Settings(similarity=kind, chunk=13))
    torch.testing.assert_close(conservative(attention, Settings(similarity=kind, chunk=chunk)), whole)


@pytest.mark.parametrize("name", RULES)
def test_half_precision_is_computed_in_single(name: str) -> None:
    parts, maps = random_parts(0, 12), random_maps(0, 2, 12, torch.float32)
    half = Attention(*(part.half() for part in vars(parts).values()))
    rounded = Attention(*(part.half().float() for part in vars(parts).values()))
    expected = RULES[name].propagate(maps, rounded, (3, 4), Settings())
    assert torch.equal(RULES[name].propagate(maps, half, (3, 4), Settings()), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(RULES[name].propagate(maps, half, (3, 4), Settings()), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_devices_agree() -> None:
    parts, maps = random_parts(0, 35), random_maps(0, 2, 35, torch.float32)
    there = Attention(*(part.cuda() for part in vars(parts).values()))
    for name, options in [("adcam", options) for options in VARIANTS] + [(name, Settings()) for name in RULES]:
        moved = RULES[name].propagate(maps.cuda(), there, (5, 7), options)
        assert moved.is_cuda
        assert_same(moved.cpu(), RULES[name].propagate(maps, parts, (5, 7), options))


# The registry and the settings


@pytest.mark.parametrize("name", RULES)
def test_rules_read_what_they_say(name: str) -> None:
    rule, parts, maps = RULES[name], random_parts(0, 12), random_maps(0, 2, 12, torch.float32)
    fields = {"attention": "patches", "class_token": "class_token", "rollout": "rollout"}
    given_parts = Attention(**{fields[need]: getattr(parts, fields[need]) for need in rule.needs})
    expected = rule.propagate(maps, parts, (3, 4), Settings())
    assert torch.equal(rule.propagate(maps, given_parts, (3, 4), Settings()), expected)
    assert any(tag in rule.source for tag in ("`published`", "`released`", "`reconstructed`")) or name == "none"
    if rule.needs:
        with pytest.raises(ValueError, match="not accumulated"):
            rule.propagate(maps, Attention(), (3, 4), Settings())


def test_blocks_that_rules_take() -> None:
    assert RULES["transcam"].block_numbers(12) == range(12)
    assert RULES["caa"].block_numbers(12) == range(4, 12)
    assert RULES["caa"].block_numbers(6) == range(6)


def test_large_grids_are_refused_where_a_matrix_would_be_needed() -> None:
    maps = torch.zeros(1, 65 * 64)
    for name, rule in RULES.items():
        if name in ("none", *EARLIER, "tscam"):
            rule.propagate(maps, Attention(class_token=maps[0]), (65, 64), Settings())
            continue
        with pytest.raises(ValueError, match=r"65 x 64 has 4160 tokens.*max_tokens = 4096.*long side.*scale"):
            rule.propagate(maps, Attention(), (65, 64), Settings())


@pytest.mark.parametrize("shape", [(2, 11), (12,), (1, 2, 12)])
def test_activation_off_the_grid_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="does not fit a grid"):
        RULES["none"].propagate(torch.zeros(shape), Attention(), (3, 4), Settings())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 1.1}, "from 0 to 1"),
        ({"residual": -0.1}, "from 0 to 1"),
        ({"box_mask": 2.0}, "from 0 to 1"),
        ({"alpha": math.nan}, "from 0 to 1"),
        ({"gamma": -1.0}, "gamma is at least 0"),
        ({"gamma": math.inf}, "gamma is at least 0"),
        ({"tau": 101.0}, "tau from 0 to 100"),
        ({"topk": 0}, "at least 1"),
        ({"chunk": 0}, "at least 1"),
        ({"sinkhorn_iters": 0}, "at least 1"),
        ({"max_tokens": 0}, "at least 1"),
        ({"steps": -1}, "steps is a number"),
        ({"steps": "closed"}, "needs mode = ppr"),
        ({"steps": "closed", "mode": "ppr", "alpha": 1.0}, "alpha below 1"),
        ({"similarity": "shared_topk"}, "give topk"),
        ({"self_loop": "lazy"}, "self_loop is"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**changes)


def test_words_that_do_not_exist_are_refused() -> None:
    wrong: Any = "sideways"
    with pytest.raises(ValueError, match=r"unknown similarity 'sideways', choose from .*bhattacharyya"):
        agreement(GOLDEN, wrong)
    with pytest.raises(ValueError, match="unknown direction"):
        transition(GOLDEN, wrong)
    with pytest.raises(ValueError, match="unknown mode"):
        step_weights(wrong, 1, 0.5, 1.0)
    with pytest.raises(ValueError, match="no closed form"):
        RULES["ppr"].propagate(MAP, Attention(GOLDEN), (2, 2), Settings(alpha=1))
    with pytest.raises(ValueError, match="number instead of closed"):
        RULES["caa"].propagate(MAP, Attention(GOLDEN), (2, 2), Settings(mode="ppr", steps="closed"))


@pytest.mark.parametrize(
    "word", ["lazy:", "lazy:1.2", "lazy:-0.1", "lazy:x", "lazy:.5", "rowmax ", "keep\n", "", "Zero"]
)
def test_self_loops_are_checked_alike_by_pattern_and_settings(word: str) -> None:
    class Section(BaseModel):
        self_loop: Annotated[str, Field(pattern=SELF_LOOP)]

    for good in ("rowmax", "keep", "zero", "lazy:0", "lazy:0.25", "lazy:1", "lazy:1.0"):
        assert Section(self_loop=good).self_loop == good
    assert (lazy_share("lazy:0.25"), lazy_share("lazy:1"), lazy_share("zero")) == (0.25, 1, None)
    with pytest.raises(ValidationError):
        Section(self_loop=word)
    with pytest.raises(ValueError, match="self_loop is"):
        lazy_share(word)


# A synthetic study. It says nothing about photographs, but shows which property of the attention each step answers.

SIDE, LAYERS, HEADS, SINKS, FEATURES = 24, 12, 6, 6, 16
GRID = (SIDE, SIDE)
SCENES = 6
LOW, HIGH = 1.0, 2.0


def scene(seed: int, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Attention (N, N), a class map (1, N) and the object's mask (N,) of a picture that does not exist.

    An elliptic object on two backgrounds, beside a patch that looks like it. Attention follows the similarity of
    noisy features: nearby in shallow layers, everywhere in deep ones, where six tokens draw everyone's attention.
    Noise makes a token resemble itself more than the others of its region. The map peaks on a part of the object and,
    weaker, on the look-alike, under noise of its own.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    centre, radii = (uniform(8, 16), uniform(9, 12)), (uniform(4, 6), uniform(5, 7))
    target = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 <= 1
    top = int(uniform(2, 18))
    double = (y >= top) & (y < top + 4) & (x >= 19) & (x < 23) & ~target
    region = (y > uniform(8, 16)).long().masked_fill(target, 2).masked_fill(double, 3).flatten()
    looks = torch.nn.functional.normalize(normal(4, FEATURES), dim=1)
    looks[3] = torch.nn.functional.normalize(0.7 * looks[2] + 0.7 * looks[3], dim=0)

    places = torch.stack([y.flatten(), x.flatten()], 1).float()
    distance = torch.cdist(places, places) ** 2
    sinks = torch.randperm(SIDE * SIDE, generator=generator)[:SINKS]
    attention = torch.zeros(SIDE * SIDE, SIDE * SIDE)
    for layer in range(LAYERS):
        depth = layer / (LAYERS - 1)
        features = looks[region] + noise * normal(HEADS, SIDE * SIDE, FEATURES) / FEATURES**0.5
        scores = (0.6 + 1.4 * depth) * features @ features.mT - (1 - depth) ** 2 * distance / (2 * 2.5**2)
        scores[:, :, sinks] += 3 * depth
        attention += scores.softmax(-1).sum(0) / (LAYERS * HEADS)

    def blob(row: float, column: float, width: float) -> Tensor:
        return torch.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * width**2))

    row, column = (c + r * uniform(-0.5, 0.5) for c, r in zip(centre, radii, strict=True))
    part = target * blob(row, column, 0.45 * min(radii))
    maps = part + 0.8 * double * blob(top + 1.5, 20.5, 1.5) + 0.2 * normal(SIDE, SIDE)
    return attention, maps.flatten()[None], target.flatten()


def overlap(maps: Tensor, target: Tensor) -> tuple[float, float, float]:
    """IoU at thresholds 0.3 and 0.5 and at the best one, of a map rectified and normalised to [0, 1]."""
    values = maps.relu()[0]
    values = (values - values.min()) / (values.max() - values.min())
    shares = [float(((values >= t) & target).sum() / ((values >= t) | target).sum()) for t in np.arange(1, 100) / 100]
    return shares[29], shares[49], max(shares)


@pytest.fixture(scope="module")
def study() -> dict[float, list[tuple[Tensor, Tensor, Tensor]]]:
    return {noise: [scene(seed, noise) for seed in range(SCENES)] for noise in (LOW, HIGH)}


Study = dict[float, list[tuple[Tensor, Tensor, Tensor]]]


def mean_overlap(study: Study, noise: float, rule: str, **changes: Any) -> tuple[float, float, float]:
    """Means over the scenes of `overlap`."""
    results = []
    for attention, maps, target in study[noise]:
        moved = RULES[rule].propagate(maps, Attention(attention), GRID, knobs(**changes))
        results.append(overlap(moved, target))
    at3, at5, best = np.mean(results, axis=0).tolist()
    return at3, at5, best


def test_generator_is_as_described(study: Study) -> None:
    for noise, scenes in study.items():
        for attention, _, target in scenes:
            torch.testing.assert_close(attention.sum(1), torch.ones(SIDE * SIDE))
            assert (attention.sum(0) > 2.5).sum() == SINKS
            assert 0.08 < target.float().mean() < 0.3
        assert mean_overlap(study, noise, "none")[2] < 0.45


def test_noisy_attention_breaks_plain_coupling_but_not_adcam(study: Study) -> None:
    coupled, diffused = ([mean_overlap(study, n, rule)[2] for n in (LOW, HIGH)] for rule in ("transcam", "adcam"))
    twice = mean_overlap(study, HIGH, "adcam", gamma=0, self_loop="keep")[2]
    assert diffused[1] > coupled[1] + 0.1 and diffused[1] > twice + 0.1
    assert coupled[0] - coupled[1] > 0.2
    assert abs(diffused[0] - diffused[1]) < 0.05
    assert min(diffused) > 0.85


def test_agreement_holds_back_false_positives(study: Study) -> None:
    """Against the same diffusion without agreement: the object reaches less of what is not the object."""
    for noise in (LOW, HIGH):
        with_agreement, without = mean_overlap(study, noise, "adcam"), mean_overlap(study, noise, "adcam", gamma=0)
        assert with_agreement[0] > without[0] + 0.05
        assert abs(with_agreement[2] - without[2]) < 0.05  # the order of the tokens is as good without it


def test_an_untreated_diagonal_freezes_the_diffusion(study: Study) -> None:
    frozen = mean_overlap(study, HIGH, "adcam", similarity="cosine", gamma=4, self_loop="keep")
    assert frozen == pytest.approx(mean_overlap(study, HIGH, "none"), abs=0.02)
    assert mean_overlap(study, HIGH, "adcam", similarity="cosine", gamma=4)[2] > 0.7


def test_sinks_collect_what_rows_push(study: Study) -> None:
    for noise in (LOW, HIGH):
        pushed, pulled = mean_overlap(study, noise, "adcam", direction="push_row"), mean_overlap(study, noise, "adcam")
        assert pushed[1] < pulled[1] - 0.3 and pushed[2] > 0.7


def test_more_steps_rank_better_and_spread_further(study: Study) -> None:
    for noise in (LOW, HIGH):
        few, many = mean_overlap(study, noise, "adcam"), mean_overlap(study, noise, "adcam", steps=4)
        assert many[2] > few[2] and many[0] < few[0] - 0.1


def test_the_configuration_allows_exactly_the_rules_that_there_are() -> None:
    assert set(RULES) == set(get_args(PropagationRule))
