"""AD-CAM: worked numbers, the conservative and the convincing step, knobs that contradict each other."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.spatial.distance import jensenshannon
from torch import Tensor

from models.propagation.apply import propagate, rectified
from models.propagation.diffusion import Direction, restarted, transition
from models.propagation.rule import Observation
from models.propagation.rules.adcam import (
    GAMMAS,
    RULE,
    Knobs,
    Mode,
    Similarity,
    adcam,
    agreement,
    attended,
    conservative,
    diffuse,
    lazy_share,
    neighbourhoods,
    step_weights,
)
from tests.support.propagation import (
    GOLDEN,
    MAP,
    SELF_LOOPS,
    assert_same,
    moved_by,
    random_attention,
    random_maps,
    random_parts,
    variants,
)

SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)
MODES: tuple[Mode, ...] = get_args(Mode)
VARIANTS = [options for options in variants("adcam") if isinstance(options, Knobs)]
seeds = st.integers(0, 2**31)
tokens = st.integers(1, 12)


def knobs(**changes: Any) -> Knobs:
    """Knobs with changes; `shared_topk` gets the number that it needs."""
    if changes.get("similarity") == "shared_topk":
        changes = {"topk": 3, **changes}
    return Knobs(**changes)


def off_diagonal(matrix: Tensor) -> Tensor:
    return matrix[~torch.eye(len(matrix), dtype=torch.bool)]


def step_of(attention: Tensor, options: Knobs) -> Tensor:
    weights = conservative(attention, options)
    return transition(weights, options.direction, options.sinkhorn_iters, lazy_share(options.self_loop))


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
    weights = conservative(GOLDEN, Knobs())
    found = torch.stack([weights[0, 1], weights[0, 2], weights[2, 3], weights[0, 3]])
    torch.testing.assert_close(found, torch.tensor([0.395554, 0.038889, 0.316767, 0]), atol=1e-5, rtol=0)
    first = [0.476573, 0.476573, 0.046854, 0]
    expected = torch.tensor([first, first, [0.054672, 0.054672, 0.445328, 0.445328], [0, 0, 0.5, 0.5]])
    torch.testing.assert_close(transition(weights), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Knobs(steps=1), [0.576573, 0.576573, 0.110139, 0.05]),
        (Knobs(), [0.554719, 0.554719, 0.134359, 0.080069]),
        (Knobs(mode="ppr", steps="closed", alpha=0.8), [0.611121, 0.451121, 0.163601, 0.109068]),
        (Knobs(steps=1, self_loop="keep"), [0.623901, 0.534482, 0.109077, 0.034553]),
        (Knobs(steps=1, self_loop="keep", gamma=0), [0.59, 0.51, 0.16, 0.04]),
    ],
)
def test_worked_maps(options: Knobs, expected: list[float]) -> None:
    result = propagate(RULE, MAP, Observation(GOLDEN), (2, 2), options)
    torch.testing.assert_close(result, torch.tensor([expected]), atol=1e-5, rtol=0)


# The conservative step


@given(seeds, tokens, st.sampled_from(SIMILARITIES), st.floats(0, 8), st.sampled_from([None, 1, 3, 99]), st.booleans())
@settings(deadline=None, max_examples=150)
def test_attention_is_only_ever_reduced(
    seed: int, n: int, kind: Similarity, gamma: float, topk: int | None, single: bool
) -> None:
    attention = random_attention(seed, n, dtype=torch.float32 if single else torch.float64)
    topk = 3 if kind == "shared_topk" else topk
    for self_loop in ("keep", "zero"):
        weights = conservative(attention, Knobs(similarity=kind, gamma=gamma, topk=topk, self_loop=self_loop))
        assert (weights >= 0).all() and (weights <= attention).all()
    weights = conservative(attention, Knobs(similarity=kind, gamma=0, topk=topk))
    assert torch.equal(off_diagonal(weights), off_diagonal(attention))


def two_groups(own: float) -> Tensor:
    """Tokens 0 to 5 and 6 to 11 attend `own` times as much to their own group as to the other one."""
    group = torch.arange(12) // 6
    attention = torch.where(group[:, None] == group, own, 1.0)
    return attention / attention.sum(1, keepdim=True)


@pytest.mark.parametrize("own", [1.5, 2.0, 4.0])
def test_auto_takes_the_least_gamma_that_halves_the_tokens_attended_to(own: float) -> None:
    attention, same = two_groups(own), torch.block_diag(torch.ones(6, 6), torch.ones(6, 6))
    counts = {gamma: float(attended(conservative(attention, Knobs(gamma=gamma)))) for gamma in (0.0, *GAMMAS)}
    enough = [gamma for gamma in GAMMAS if counts[gamma] <= counts[0.0] / 2]
    gamma = enough[0] if enough else GAMMAS[-1]
    weights = conservative(attention, Knobs(gamma="auto"))
    assert torch.equal(weights, conservative(attention, Knobs(gamma=gamma)))
    before, after = ((neighbourhoods(matrix) * same).sum(1).mean() for matrix in (attention, weights))
    assert after > before, "more of the attention stays in the own group"


def test_attended_counts_tokens() -> None:
    assert float(attended(torch.ones(5, 5))) == pytest.approx(4)
    assert float(attended(torch.eye(5))) == pytest.approx(1), "self loops do not count"
    alike = torch.full((6, 6), 1 / 6)
    assert torch.equal(conservative(alike, Knobs(gamma="auto", self_loop="keep")), alike), "equal rows stay as they are"


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
    loops = {word: conservative(attention, Knobs(gamma=0, self_loop=word)).diagonal().tolist() for word in SELF_LOOPS}
    assert loops["rowmax"] == pytest.approx([0.5, 0.2, 0])
    assert loops["keep"] == pytest.approx([0.1, 0.6, 0.7])
    assert loops["zero"] == loops["lazy:0.7"] == [0, 0, 0]
    lazy = step_of(attention, Knobs(gamma=0, self_loop="lazy:0.7"))
    # The third token attends to itself alone; without a self loop it is isolated and keeps what it has.
    expected = [[0.3, 0.7 * 5 / 7, 0.7 * 2 / 7], [0.7 * 2 / 3, 0.3, 0.7 / 3], [0, 0, 1]]
    torch.testing.assert_close(lazy, torch.tensor(expected))


@pytest.mark.parametrize("kind", ["js", "intersection", "jaccard"])
@pytest.mark.parametrize("chunk", [1, 5, 12, 400])
def test_chunks_do_not_matter(kind: Similarity, chunk: int) -> None:
    attention = random_attention(0, 13, dtype=torch.float32)
    whole = conservative(attention, Knobs(similarity=kind, chunk=13))
    torch.testing.assert_close(conservative(attention, Knobs(similarity=kind, chunk=chunk)), whole)


# The convincing step


@given(seeds, tokens, st.sampled_from(SELF_LOOPS), st.sampled_from(MODES), st.integers(0, 6))
@settings(deadline=None, max_examples=100)
def test_pull_takes_means(seed: int, n: int, self_loop: str, mode: Mode, steps: int) -> None:
    options = Knobs(self_loop=self_loop, mode=mode, steps=steps)
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
    options = Knobs(direction=way, self_loop=self_loop, mode=mode, steps="closed" if closed and mode == "ppr" else 4)
    step = step_of(random_attention(seed, n, 0.6), options)
    maps = random_maps(seed, 3, n)
    torch.testing.assert_close(diffuse(maps, step, options).sum(1), maps.sum(1), atol=1e-5, rtol=0)


def test_push_gives_in_proportion_to_attention() -> None:
    weights = torch.tensor([[0.0, 0.3, 0.1], [0.2, 0.2, 0.0], [0.1, 0.1, 0.2]])
    maps = torch.tensor([[1.0, 0, 0]])
    options = Knobs(steps=1)
    # Token 0 attends to 1 and 2; tokens 1 and 2 attend to it.
    for way, expected in {"push_row": [0, 0.75, 0.25], "push_col": [0, 2 / 3, 1 / 3], "pull": [0, 0.5, 0.25]}.items():
        moved = diffuse(maps, transition(weights, way), options)  # type: ignore[arg-type]
        torch.testing.assert_close(moved, torch.tensor([expected]))


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
    step = step_of(random_attention(5, 8), Knobs())
    maps = random_maps(5, 2, 8)
    power = [maps @ torch.linalg.matrix_power(step, t).mT for t in range(31)]
    restarting = maps
    for _ in range(30):
        restarting = 0.7 * restarting @ step.mT + 0.3 * maps
    heat = maps @ torch.matrix_exp(-3.5 * (torch.eye(8).double() - step)).mT
    total = (power[0] + 0.7 * power[1] + 0.49 * power[2] + 0.343 * power[3]) / (1 + 0.7 + 0.49 + 0.343)
    for options, expected in [
        (Knobs(steps=5), power[5]),
        (Knobs(mode="ppr", steps=30, alpha=0.7), restarting),
        (Knobs(mode="heat", tau=3.5), heat),
        (Knobs(mode="sum", steps=3, alpha=0.7), total),
    ]:
        torch.testing.assert_close(diffuse(maps, step, options), expected, atol=1e-7, rtol=0)


@given(seeds, tokens, st.floats(0, 0.9), st.sampled_from(["pull", "push_row", "push_col"]))
@settings(deadline=None, max_examples=50)
def test_closed_form_equals_many_restarts(seed: int, n: int, alpha: float, way: Direction) -> None:
    step = step_of(random_attention(seed, n, dtype=torch.float32), Knobs(direction=way))
    maps = rectified(random_maps(seed, 2, n, torch.float32))
    iterated = diffuse(maps, step, Knobs(mode="ppr", steps=200, alpha=alpha))
    torch.testing.assert_close(restarted(maps, step, alpha), iterated, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        Knobs(steps=0),
        Knobs(mode="ppr", steps=30, alpha=0),
        Knobs(mode="ppr", steps="closed", alpha=0),
        Knobs(mode="sum", steps=9, alpha=0),
        Knobs(mode="heat", tau=0),
        Knobs(self_loop="lazy:0"),
        Knobs(residual=1),
        Knobs(residual=1, box_mask=0.5),
    ],
)
def test_no_step_no_change(options: Knobs) -> None:
    maps = rectified(random_maps(3, 2, 12, torch.float32))
    moved = propagate(RULE, maps, random_parts(3, 12), (3, 4), options)
    torch.testing.assert_close(moved, maps, atol=1e-6, rtol=0)


def test_residual_mixes() -> None:
    maps, attention = rectified(random_maps(3, 2, 12)), random_attention(3, 12)
    moved = adcam(maps, attention, (3, 4), Knobs())
    mixed = adcam(maps, attention, (3, 4), Knobs(residual=0.3))
    torch.testing.assert_close(mixed, 0.3 * maps + 0.7 * moved)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_diffusion_is_linear(options: Knobs) -> None:
    attention, first, second = random_attention(9, 12), random_maps(9, 3, 12), random_maps(11, 3, 12)
    together = adcam(2 * first - 3 * second, attention, (3, 4), options)
    apart = 2 * adcam(first, attention, (3, 4), options) - 3 * adcam(second, attention, (3, 4), options)
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_components_never_exchange_activation(options: Knobs) -> None:
    attention = torch.zeros(9, 9)
    attention[:4, :4], attention[4:, 4:] = random_attention(1, 4).float(), random_attention(2, 5).float()
    maps = torch.zeros(1, 9)
    maps[0, :4] = 1
    moved = propagate(RULE, maps, Observation(attention), (3, 3), options)
    assert (moved[0, 4:].abs() < 1e-7).all()
    assert (moved[0, :4] > 0.01).any()


def test_plain_settings_are_row_normalised_transcam() -> None:
    maps, attention = rectified(random_maps(2, 2, 12, torch.float32)), random_attention(2, 12).float()
    attention /= attention.sum(1, keepdim=True)
    coupled = moved_by("transcam", maps, Observation(attention))
    unequal = Observation(attention * torch.linspace(0.2, 1, 12)[:, None])
    torch.testing.assert_close(moved_by("adcam", maps, unequal, gamma=0, steps=1, self_loop="keep"), coupled)
    assert_same(coupled, maps @ attention.mT)


# Knobs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 1.1}, "less than or equal to 1 "),
        ({"residual": -0.1}, "greater than or equal to 0 "),
        ({"box_mask": 2.0}, "less than or equal to 1 "),
        ({"alpha": math.nan}, "finite"),
        ({"gamma": -1.0}, "greater than or equal to 0 "),
        ({"gamma": math.inf}, "finite"),
        ({"tau": 101.0}, "less than or equal to 100 "),
        ({"topk": 0}, "greater than or equal to 1 "),
        ({"chunk": 0}, "greater than or equal to 1 "),
        ({"sinkhorn_iters": 0}, "greater than or equal to 1 "),
        ({"blocks": 0}, "greater than or equal to 1 "),
        ({"steps": -1}, "greater than or equal to 0 "),
        ({"max_tokens": 99}, "not permitted"),
        ({"steps": "closed"}, "needs mode = ppr"),
        ({"steps": "closed", "mode": "ppr", "alpha": 1.0}, "alpha below 1"),
        ({"similarity": "shared_topk"}, "give topk"),
        ({"self_loop": "lazy"}, "self_loop is"),
    ],
)
def test_knobs_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){next(iter(changes))}.*{message}"):
        Knobs(**changes)


def test_words_that_do_not_exist_are_refused() -> None:
    wrong: Any = "sideways"
    with pytest.raises(ValueError, match=r"unknown similarity 'sideways', choose from .*bhattacharyya"):
        agreement(GOLDEN, wrong)
    with pytest.raises(ValueError, match="unknown mode"):
        step_weights(wrong, 1, 0.5, 1.0)


@pytest.mark.parametrize(
    "word", ["lazy:", "lazy:1.2", "lazy:-0.1", "lazy:x", "lazy:.5", "rowmax ", "keep\n", "", "Zero"]
)
def test_self_loops_are_words_or_shares(word: str) -> None:
    for good in ("rowmax", "keep", "zero", "lazy:0", "lazy:0.25", "lazy:1", "lazy:1.0"):
        assert Knobs(self_loop=good).self_loop == good
    assert (lazy_share("lazy:0.25"), lazy_share("lazy:1"), lazy_share("zero")) == (0.25, 1, None)
    with pytest.raises(ValidationError, match="self_loop is"):
        Knobs(self_loop=word)
    with pytest.raises(ValueError, match="self_loop is"):
        lazy_share(word)
