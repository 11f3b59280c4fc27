"""Conformer: a convolutional and a transformer branch that exchange features after every block.

Source: Peng et al., ICCV 2021 (`published`); parameter names, epsilons and initial values of the released code
(`released`), so that its ImageNet checkpoints load as they are. There is no position embedding: any size will do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional

from models.networks.attention import Observer
from models.networks.loading import check_and_load

Head = Literal["pooled", "cam"]

BLOCK_EPSILON = 1e-6  # of all norms inside blocks; the stem's and the last norm keep PyTorch's 1e-5
LEARNT_ANEW = ("conv_cls_head.*", "trans_cls_head.*")  # by which a checkpoint may differ: other classes, another form


@dataclass(frozen=True)
class ConformerSize:
    """Widths and depth of a Conformer.

    Attributes:
        base: channels of the stem.
        ratio: channels of the first convolutional stage over the stem's; they double twice after that.
        dim: width of the tokens.
        heads: attention heads.
        depth: transformer blocks; a multiple of 3.
    """

    base: int
    ratio: int
    dim: int
    heads: int
    depth: int

    @property
    def channels(self) -> int:
        """Channels of the last convolutional map."""
        return 4 * self.base * self.ratio


CONFORMERS: dict[str, ConformerSize] = {
    "conformer_tiny": ConformerSize(base=16, ratio=1, dim=32, heads=2, depth=6),  # ours, for tests
    "conformer_ti": ConformerSize(base=64, ratio=1, dim=384, heads=6, depth=12),
    "conformer_s": ConformerSize(base=64, ratio=4, dim=384, heads=6, depth=12),
    "conformer_b": ConformerSize(base=64, ratio=6, dim=576, heads=9, depth=12),
}


class Features(NamedTuple):
    """What the two branches end with: maps (B, C, h, w), and tokens (B, 1 + N, dim), normalised, class token first."""

    maps: Tensor
    tokens: Tensor


class ConvBlock(nn.Module):
    """Residual bottleneck of 1x1, 3x3 and 1x1 convolution, whose middle can be read and added to."""

    def __init__(self, inside: int, outside: int, stride: int = 1, project: bool = False) -> None:
        """`project`: whether the shortcut is a convolution."""
        super().__init__()
        middle = outside // 4
        self.conv1 = nn.Conv2d(inside, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle, eps=BLOCK_EPSILON)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle, eps=BLOCK_EPSILON)
        self.conv3 = nn.Conv2d(middle, outside, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outside, eps=BLOCK_EPSILON)
        self.project = project
        if project:
            self.residual_conv = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.residual_bn = nn.BatchNorm2d(outside, eps=BLOCK_EPSILON)

    def forward(self, maps: Tensor, addition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps (B, inside, h, w) to maps (B, outside, ~h / stride, ~w / stride) and the middle (a quarter of them).

        `addition` (B, outside / 4, h, w) is added to what the 3x3 convolution reads.
        """
        middle = functional.relu(self.bn1(self.conv1(maps)))
        if addition is not None:
            middle = middle + addition
        middle = functional.relu(self.bn2(self.conv2(middle)))
        shortcut = self.residual_bn(self.residual_conv(maps)) if self.project else maps
        return functional.relu(self.bn3(self.conv3(middle)) + shortcut), middle


class Attention(nn.Module):
    """Multi-head self-attention; names and arithmetic of timm's."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, number: int = 0, observers: Sequence[Observer] = ()) -> Tensor:
        """Tokens (B, T, dim) to tokens; observers are called with the block's number, scaled queries and keys."""
        parts = self.qkv(tokens).unflatten(2, (3, self.heads, -1))
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind()  # each (B, heads, T, dim / heads)
        queries = queries * queries.shape[-1] ** -0.5
        for observe in observers:
            observe(number, queries, keys)
        attended = functional.scaled_dot_product_attention(queries, keys, values, scale=1.0)
        return self.proj(attended.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, dim) to tokens."""
        return self.fc2(functional.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """Pre-norm transformer block; names and arithmetic of timm's `vision_transformer.Block`."""

    def __init__(self, dim: int, heads: int, number: int = 0, drop_path: float = 0.0) -> None:
        """`number`: what observers are told; `drop_path`: how often training leaves out a branch of an image."""
        super().__init__()
        self.number = number
        self.norm1 = nn.LayerNorm(dim, eps=BLOCK_EPSILON)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=BLOCK_EPSILON)
        self.mlp = Mlp(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, observers: Sequence[Observer] = ()) -> Tensor:
        """Tokens (B, T, dim) to tokens."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), self.number, observers))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class MapToTokens(nn.Module):
    """From the convolutional branch to the transformer: projection, pooling, norm, GELU."""

    def __init__(self, channels: int, dim: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv_project = nn.Conv2d(channels, dim, 1)
        self.ln = nn.LayerNorm(dim, eps=BLOCK_EPSILON)

    def forward(self, maps: Tensor, class_token: Tensor) -> Tensor:
        """Maps (B, channels, h * stride, w * stride) to tokens (B, 1 + h * w, dim) behind the class token given."""
        # The released code projects before it pools. The two commute, and this way round is stride^2 times cheaper.
        pooled = self.conv_project(functional.avg_pool2d(maps, self.stride))
        patches = functional.gelu(self.ln(pooled.flatten(2).mT))
        return torch.cat([class_token, patches], dim=1)


class TokensToMap(nn.Module):
    """From the transformer to the convolutional branch: projection, norm, ReLU, repetition of cells."""

    def __init__(self, dim: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv_project = nn.Conv2d(dim, channels, 1)
        self.bn = nn.BatchNorm2d(channels, eps=BLOCK_EPSILON)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens (B, 1 + h * w, dim) of a grid (h, w) to maps (B, channels, h * stride, w * stride)."""
        maps = tokens[:, 1:].mT.unflatten(2, grid)
        maps = functional.relu(self.bn(self.conv_project(maps)))
        return functional.interpolate(maps, scale_factor=self.stride, mode="nearest")


class ConvTransBlock(nn.Module):
    """A bottleneck and a transformer block that read each other, and a bottleneck that joins them."""

    def __init__(
        self, inside: int, outside: int, block: Block, dim: int, stride: int, token_stride: int, fusion: ConvBlock
    ) -> None:
        """`stride`: of the first bottleneck; `token_stride`: cells of its map that a token spans."""
        super().__init__()
        self.cnn_block = ConvBlock(inside, outside, stride, project=stride > 1)
        self.squeeze_block = MapToTokens(outside // 4, dim, token_stride)
        self.trans_block = block
        self.expand_block = TokensToMap(dim, outside // 4, token_stride)
        self.fusion_block = fusion

    def forward(
        self, maps: Tensor, tokens: Tensor, grid: tuple[int, int], observers: Sequence[Observer] = ()
    ) -> tuple[Tensor, Tensor]:
        """Maps (B, inside, ...) and tokens (B, 1 + h * w, dim) of a grid (h, w) to maps (B, outside, ...) and tokens.

        The class token comes back from `squeeze_block` and so is doubled in every block, as released.
        """
        maps, middle = self.cnn_block(maps)
        tokens = self.trans_block(tokens + self.squeeze_block(middle, tokens[:, :1]), observers)
        maps, _ = self.fusion_block(maps, self.expand_block(tokens, grid))
        return maps, tokens


class Conformer(nn.Module):
    """Both branches and their heads, `conv_cls_head` and `trans_cls_head`.

    Attributes:
        mean, std: normalisation of RGB in [0, 1] that the ImageNet weights expect.
        stride: pixels that a patch token spans, and with head "cam" a cell of the last map.
        tokens: class tokens before the patch tokens.
        depth: transformer blocks; observers see them as 0 to depth - 1.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    stride = 16
    tokens = 1

    def __init__(
        self,
        size: ConformerSize,
        outputs: int = 1000,
        head: Head = "pooled",
        drop_path: float = 0.1,
    ) -> None:
        """Initial values are random, as released.

        Args:
            size: widths and depth, one of `CONFORMERS`.
            outputs: of either head.
            head: "pooled" ends the convolutional branch at stride 32, in a linear layer on the pooled map (`released`
                for ImageNet); "cam" ends it at stride 16, in a 3x3 convolution with bias whose maps are pooled
                (released code of TransCAM).
            drop_path: rate of the last transformer block; it grows linearly from 0 in the first.
        """
        super().__init__()
        self.pooled, self.depth = head == "pooled", size.depth
        rates = [drop_path * number / (size.depth - 1) for number in range(size.depth)]
        width, token_stride = size.base * size.ratio, self.stride // 4
        self.conv1 = nn.Conv2d(3, size.base, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(size.base)
        self.conv_1 = ConvBlock(size.base, width, project=True)
        self.trans_patch_conv = nn.Conv2d(size.base, size.dim, token_stride, token_stride)
        self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, size.dim), std=0.02))
        self.trans_1 = Block(size.dim, size.heads, 0, rates[0])
        for number in range(1, size.depth):
            stride = 2 if number % (size.depth // 3) == 0 else 1  # a new stage
            inside, width, token_stride = width, width * stride, token_stride // stride
            last = number == size.depth - 1
            fusion = ConvBlock(width, width, stride=2 if last and self.pooled else 1, project=last)
            block = Block(size.dim, size.heads, number, rates[number])
            both = ConvTransBlock(inside, width, block, size.dim, stride, token_stride, fusion)
            self.add_module(f"conv_trans_{number + 1}", both)
        self.trans_norm = nn.LayerNorm(size.dim)
        self.trans_cls_head = nn.Linear(size.dim, outputs)
        self.conv_cls_head: nn.Module
        if self.pooled:
            self.conv_cls_head = nn.Linear(size.channels, outputs)
        else:
            self.conv_cls_head = nn.Conv2d(size.channels, outputs, 3, padding=1)
        self.apply(_initialise)

    def features(self, images: Tensor, observers: Sequence[Observer] = ()) -> Features:
        """Normalised images (B, 3, H, W) of any size to what the heads read.

        Images are padded right and below with zeros (the mean colour) to multiples of 16. Maps have the size
        (ceil(H / 16), ceil(W / 16)) with head "cam", half of that (rounded up) with head "pooled"; there are
        1 + ceil(H / 16) * ceil(W / 16) tokens. Observers (`models.networks.attention`) are called once for each block.
        """
        height, width = images.shape[2:]
        images = functional.pad(images, (0, -width % self.stride, 0, -height % self.stride))
        stem = functional.max_pool2d(functional.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        patches = self.trans_patch_conv(stem)
        class_token = self.cls_token.expand(len(images), -1, -1)
        tokens = self.trans_1(torch.cat([class_token, patches.flatten(2).mT], dim=1), observers)
        maps, _ = self.conv_1(stem)
        for number in range(2, self.depth + 1):
            both = self.get_submodule(f"conv_trans_{number}")
            maps, tokens = both(maps, tokens, patches.shape[2:], observers)
        return Features(maps, self.trans_norm(tokens))

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load a released ImageNet checkpoint; see `load_conformer`."""
        load_conformer(self, state)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, H, W) to logits (B, outputs) of the convolutional branch and of the class token.

        The released ImageNet code trains them with one loss each and predicts from their sum.
        """
        maps, tokens = self.features(images)
        if self.pooled:
            conv_logits = self.conv_cls_head(maps.mean(dim=(2, 3)))
        else:
            conv_logits = self.conv_cls_head(maps).mean(dim=(2, 3))
        return conv_logits, self.trans_cls_head(tokens[:, 0])


def _initialise(module: nn.Module) -> None:
    """Initial values of the released code; norms are 1 and 0 from the start."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def load_conformer(network: Conformer, state: Mapping[str, Tensor]) -> list[str]:
    """Load a released ImageNet checkpoint; only the two heads may differ, and then keep their initial values.

    Args:
        network: changed in place, only if the checkpoint fits.
        state: names and tensors, already unwrapped.

    Returns:
        Names of the network's entries that kept their initial values, sorted.

    Raises:
        ValueError: the checkpoint is one of patch size 32, or does not fit; missing, unexpected and wrongly shaped
            names are listed.
    """
    name = "trans_patch_conv.weight"
    if name in state and state[name].shape[-2:] == (8, 8):
        raise ValueError(f"this is a patch-32 checkpoint ({name} is 8x8); take the one of patch size 16 (4x4)")
    return check_and_load(network, state, LEARNT_ANEW)
