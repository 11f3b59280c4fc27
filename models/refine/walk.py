"""Random walk of class scores on the pixel-affinity graph, without its N x N matrix.

With the symmetric affinities W (unit diagonal, raised element-wise to a power) and the degrees D, the walk
multiplies a score row t times by T = W D^-1. T is similar to the symmetric S = D^-1/2 W D^-1/2, so
score T^t = (score D^1/2) S^t D^-1/2, and S is applied as a stencil: one multiply-add of the whole grid for
each neighbour. Work and memory grow linearly with the number of cells.

Source: Ahn & Kwak, CVPR 2018, eq. 2-4; Ahn, Cho & Kwak, CVPR 2019, section 3.4. The stencil and the Chebyshev
series are ours (`reconstructed`): the released programs square the dense matrix, which `dense` does here.
"""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from models.affinity.pairs import Neighbourhood

Mode = Literal["chebyshev", "steps", "dense"]


@torch.no_grad()
def random_walk(
    scores: Tensor,
    weights: Tensor,
    *,
    radius: int = 5,
    beta: float = 8.0,
    steps: int = 256,
    mode: Mode = "chebyshev",
    tolerance: float = 1e-6,
) -> Tensor:
    """Walk score maps over the affinity graph of their grid.

    Args:
        scores: (B, K, h, w) floating point; K = 0 is allowed. Half precision is computed in float32.
        weights: (B, n_offsets, h, w) non-negative affinities in stencil layout; 0 where a pair does not exist
            (the border rule is in these zeros). Pairs that leave the grid are ignored.
        radius: radius of the stencil's offsets.
        beta: element-wise power of the affinities, above 0; larger is more conservative.
        steps: length t of the walk.
        mode: `chebyshev` for a truncated series, `steps` for one step after the other, `dense` for powers of
            the N x N matrix (tests and benchmarks only).
        tolerance: bound of the truncation error of `chebyshev` relative to the scores, both measured in the
            norm sqrt(sum_j degree_j score_j^2). float32 rounding adds about 1e-5 in every mode.

    Returns:
        (B, K, h, w) scores after t steps, each cell a convex combination of all cells' scores.

    Raises:
        ValueError: if shapes, beta, steps, mode or tolerance do not fit.
    """
    _check(scores, weights, radius, beta, steps, mode, tolerance)
    dtype = torch.promote_types(scores.dtype, torch.float32)
    scores = scores.to(dtype)
    if steps == 0 or scores.numel() == 0:
        return scores.clone()
    weights = weights.to(dtype).pow(beta)
    if mode == "dense":
        transition = torch.linalg.matrix_power(transition_matrix(weights, radius), steps)
        return (scores.flatten(2) @ transition).view_as(scores)
    stencil = _Stencil(scores, weights, radius)
    walked = stencil.steps(steps) if mode == "steps" else stencil.series(steps, tolerance)
    return (walked / stencil.root).view_as(scores)


def _check(scores: Tensor, weights: Tensor, radius: int, beta: float, steps: int, mode: str, tolerance: float) -> None:
    """Reject arguments of `random_walk` that do not fit together."""
    batch, _, h, w = scores.shape
    expected = (batch, len(Neighbourhood(radius).offsets), h, w)
    if weights.shape != expected:
        raise ValueError(f"affinities of shape {tuple(weights.shape)}, but these scores need {expected}")
    if mode not in get_args(Mode):
        raise ValueError(f"unknown walk mode {mode!r}, choose from {get_args(Mode)}")
    # The power 0 would turn pairs that do not exist into pairs.
    if beta <= 0 or steps < 0 or not 0 < tolerance < 1:
        raise ValueError(f"need beta > 0, steps >= 0 and 0 < tolerance < 1, got {beta}, {steps} and {tolerance}")


def transition_matrix(weights: Tensor, radius: int) -> Tensor:
    """Dense transition matrix of the walk.

    Args:
        weights: (B, n_offsets, h, w) affinities in stencil layout, already raised to their power.
        radius: radius of the offsets.

    Returns:
        (B, N, N), N = h * w; columns sum to 1, column j holds the weights that cell j collects scores with.

    Source: Ahn & Kwak, CVPR 2018, eq. 2-3; columns instead of rows as in the released code: `released`.
    """
    batch, _, h, w = weights.shape
    cell = torch.arange(h * w, device=weights.device).view(h, w)
    matrix = torch.diag_embed(weights.new_ones(batch, h * w))
    for o, (source, target) in enumerate(Neighbourhood(radius, "full").windows(h, w)):
        here, there = cell[source].flatten(), cell[target].flatten()
        pair = weights[:, o, *source].flatten(1)
        matrix[:, here, there] = pair
        matrix[:, there, here] = pair
    return matrix / matrix.sum(1, keepdim=True)


def chebyshev_coefficients(steps: int, tolerance: float) -> dict[int, float]:
    """Truncated Chebyshev series of x^steps on [-1, 1].

    x^t is the mean of T_|X| over the end point X of a t-step walk on the integers, so the coefficients are
    binomial probabilities, only degrees of t's parity occur and they sum to 1. Dropping the tail of weight
    q and rescaling the rest to sum 1 (which keeps constant maps exact) changes the polynomial by at most 2 q
    anywhere on [-1, 1]. The degree kept is the smallest with 2 q <= tolerance; it never exceeds
    sqrt(2 t ln(4 / tolerance)) + 2 (Hoeffding). At tolerance 1e-6, 80 multiplications replace 256.

    Args:
        steps: the exponent, at least 0.
        tolerance: largest allowed error.

    Returns:
        {degree: coefficient}, ascending, summing to 1.
    """
    # Exact integers: floating-point binomials of large exponents overflow.
    total = 2**steps
    mass = 0
    counts: dict[int, int] = {}
    for degree in range(steps % 2, steps + 1, 2):
        counts[degree] = math.comb(steps, (steps - degree) // 2) * (2 if degree else 1)
        mass += counts[degree]
        if 2 * (total - mass) / total <= tolerance:
            break
    return {degree: count / mass for degree, count in counts.items()}


class _Stencil:
    """The symmetric operator S on flattened, padded grids, with the two state buffers it works between.

    A neighbour (dy, dx) of a flattened grid is the cell dy * w + dx further on. Where that wraps into another
    row the weight is zero, so whole grids can be multiplied as one contiguous run; the zero padding at both
    ends serves the first and last rows. All views are made once: slicing would cost more than the arithmetic.
    """

    def __init__(self, scores: Tensor, weights: Tensor, radius: int) -> None:
        batch, channels, h, w = scores.shape
        cells, margin = h * w, (radius - 1) * (w + 1)
        pairs, diagonal, root = _normalise(weights, radius)
        self.root = root.view(batch, 1, cells)
        self.diagonal = diagonal.view(batch, 1, cells)
        padded = F.pad(pairs.view(batch, 1, -1, cells), (margin, 0))
        self.buffers = [scores.new_zeros(batch, channels, cells + 2 * margin) for _ in range(2)]
        self.cores = [b.narrow(2, margin, cells) for b in self.buffers]
        self.weights: list[Tensor] = []
        self.neighbours: list[list[Tensor]] = [[], []]
        for o, (dy, dx) in enumerate(Neighbourhood(radius).offsets):
            if dy >= h or abs(dx) >= w:
                continue
            step = dy * w + dx
            # Backwards, cell i meets the weight that is stored at its partner, cell i - step.
            self.weights += [padded[:, :, o].narrow(2, start, cells) for start in (margin, margin - step)]
            for buffer, views in zip(self.buffers, self.neighbours, strict=True):
                views += [buffer.narrow(2, start, cells) for start in (margin + step, margin - step)]
        torch.mul(scores.flatten(2), self.root, out=self.cores[0])

    def apply(self, source: int, gain: float, keep: float) -> Tensor:
        """Overwrite the other buffer by keep * other + gain * S source, and return it."""
        out = self.cores[1 - source].mul_(keep)
        for weight, neighbour in zip(self.weights, self.neighbours[source], strict=True):
            out.addcmul_(weight, neighbour, value=gain)
        # Last, because many small neighbours would be rounded away next to a large own score.
        return out.addcmul_(self.diagonal, self.cores[source], value=gain)

    def steps(self, steps: int) -> Tensor:
        """S^steps applied to the scores."""
        for step in range(steps):
            self.apply(step % 2, gain=1.0, keep=0.0)
        return self.cores[steps % 2]

    def series(self, steps: int, tolerance: float) -> Tensor:
        """The same by the three-term recurrence T_k+1 = 2 S T_k - T_k-1."""
        coefficients = chebyshev_coefficients(steps, tolerance)
        result = self.cores[0] * coefficients.get(0, 0.0)
        for degree in range(1, max(coefficients) + 1):
            first = degree == 1
            term = self.apply((degree - 1) % 2, gain=1.0 if first else 2.0, keep=0.0 if first else -1.0)
            if degree in coefficients:
                result.add_(term, alpha=coefficients[degree])
        return result


def _normalise(weights: Tensor, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (B, n_offsets, h, w) and diagonal (B, h, w) of S, and the square roots of the degrees (B, h, w).

    Computed in float64 and rounded once: a relative error of S is raised to the t-th power with it.
    """
    batch, _, h, w = weights.shape
    windows = list(Neighbourhood(radius, "full").windows(h, w))
    degree = torch.ones(batch, h, w, dtype=torch.float64, device=weights.device)
    for o, (source, target) in enumerate(windows):
        degree[:, *source] += weights[:, o, *source]
        degree[:, *target] += weights[:, o, *source]
    inverse_root = degree.rsqrt()
    pairs = torch.zeros_like(weights)
    for o, (source, target) in enumerate(windows):
        scale = inverse_root[:, *source] * inverse_root[:, *target]
        pairs[:, o, *source] = (weights[:, o, *source] * scale).to(weights.dtype)
    return pairs, degree.reciprocal().to(weights.dtype), degree.sqrt().to(weights.dtype)


def psa_scores(cam: Tensor, alpha: float = 16.0, stride: int = 8, background: float | None = None) -> Tensor:
    """Class maps and their background, averaged onto the walk's grid.

    Args:
        cam: (B, K, H, W) in [0, 1], the image's classes only; K = 0 gives pure background.
        alpha: power of the background (1 - max over classes)^alpha. 16 is `released` and `published`.
        stride: grid stride.
        background: a constant in place of that power; TransCAM takes 0.42: `released`.

    Returns:
        (B, K+1, ceil(H/stride), ceil(W/stride)), channel 0 the background. The image is zero-padded to the
        right and below, the background channel included.

    Source: Ahn & Kwak, CVPR 2018, eq. 1 and section 3.3; pooling from the released PSA code: `released`.
    """
    batch, classes, height, width = cam.shape
    strongest = cam.amax(1, keepdim=True) if classes else cam.new_zeros(batch, 1, height, width)
    behind = (1 - strongest) ** alpha if background is None else torch.full_like(strongest, background)
    stack = torch.cat([behind, cam], 1)
    return F.avg_pool2d(F.pad(stack, (0, -width % stride, 0, -height % stride)), stride)


@torch.no_grad()
def psa_walk(
    cam: Tensor,
    affinity: Tensor,
    *,
    radius: int = 5,
    beta: float = 8.0,
    steps: int = 256,
    alpha: float = 16.0,
    background: float | None = None,
    stride: int = 8,
    mode: Mode = "chebyshev",
    tolerance: float = 1e-6,
) -> Tensor:
    """Refine class maps with AffinityNet's affinities.

    Args:
        cam: (B, K, H, W) in [0, 1], the image's classes only.
        affinity: (B, n_offsets, ceil(H/stride), ceil(W/stride)) in [0, 1], stencil layout.
        radius: radius of the affinities.
        beta: see `random_walk`.
        steps: see `random_walk`.
        alpha: see `psa_scores`.
        background: see `psa_scores`.
        stride: grid stride.
        mode: see `random_walk`.
        tolerance: see `random_walk`.

    Returns:
        The walked scores (B, K+1, h, w), channel 0 the background; `upsample` brings them to the image, where the
        label is the argmax.

    Raises:
        ValueError: if the affinities do not fit the class maps.

    Source: Ahn & Kwak, CVPR 2018, section 3.3; released PSA code: `released`.
    """
    scores = psa_scores(cam, alpha, stride, background)
    return random_walk(scores, affinity, radius=radius, beta=beta, steps=steps, mode=mode, tolerance=tolerance)


@torch.no_grad()
def irn_walk(
    cam: Tensor,
    boundary: Tensor,
    affinity: Tensor,
    image_size: tuple[int, int],
    *,
    radius: int = 5,
    beta: float = 10.0,
    steps: int = 256,
    stride: int = 4,
    mode: Mode = "chebyshev",
    tolerance: float = 1e-6,
) -> tuple[Tensor, Tensor, Tensor]:
    """Refine class maps with the path affinities of a boundary map.

    Args:
        cam: (B, K, h, w) non-negative, the image's classes only, on the boundary's grid; K may be 0.
        boundary: (B, h, w) probabilities in [0, 1].
        affinity: (B, n_offsets, h, w), the path affinities of `boundary` in stencil layout. The released code
            pads the boundary by `radius` cells to the left, right and bottom before its one-sided border rule
            and then drops the padded cells; this equals the `full` border on the unpadded grid.
        image_size: (H, W), at most stride * (h, w).
        radius: radius of the affinities.
        beta: see `random_walk`.
        steps: see `random_walk`.
        stride: grid stride.
        mode: see `random_walk`.
        tolerance: see `random_walk`.

    Returns:
        The walked scores (B, K, h, w); the same upsampled to (B, K, H, W) and divided by each image's maximum over
        all classes and pixels, whose argmax against a constant background is the label; and these maxima (B,).

    Raises:
        ValueError: if the affinities do not fit the class maps.

    Source: Ahn, Cho & Kwak, CVPR 2019, section 3.4, eq. 5; released IRN code: `released`.
    """
    walked = random_walk(
        cam * (1 - boundary[:, None]),
        affinity,
        radius=radius,
        beta=beta,
        steps=steps,
        mode=mode,
        tolerance=tolerance,
    )
    large = upsample(walked, stride, image_size)
    # An image whose maps are all zero stays zero.
    tiny = torch.finfo(large.dtype).tiny
    highest = large.flatten(1).amax(1).clamp_min(tiny) if large.numel() else large.new_ones(len(large))
    return walked, large / highest[:, None, None, None], highest


def upsample(scores: Tensor, stride: int, size: tuple[int, int] | torch.Size) -> Tensor:
    """Scores (B, K, h, w) upsampled bilinearly by the grid stride and cropped to `size`, (B, K, H, W)."""
    height, width = size
    if scores.numel() == 0:
        return scores.new_zeros(*scores.shape[:2], height, width)
    large = F.interpolate(scores, scale_factor=float(stride), mode="bilinear", align_corners=False)
    return large[..., :height, :width]
