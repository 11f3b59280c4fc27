"""Vision transformers: agreement with timm, the tapped block, and positions of any grid."""

import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from models.networks.loading import check_and_load
from models.networks.vit import VIT_HEADS, VitEncoder, vit_base
from models.registry import VIT_TAG


def test_checkpoint_names_are_those_of_timm() -> None:
    with torch.device("meta"):
        published, ours = timm.create_model(VIT_TAG, pretrained=False).state_dict(), vit_base()
    missing = check_and_load(ours, published, VIT_HEADS)
    assert missing == []
    described = timm.get_pretrained_cfg(VIT_TAG)
    assert described is not None
    assert str(described.url).endswith("jx_vit_base_p16_224-80ecf9dd.pth")


def small_vit() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(32, 8, embed_dim=24, depth=4, num_heads=3, num_classes=0)


@torch.no_grad()
def test_encoding_equals_timm_at_its_own_size() -> None:
    vit = small_vit().eval()
    images = torch.randn(2, 3, 32, 32)
    tokens = vit.forward_features(images)
    encoding = VitEncoder(vit)(images)
    torch.testing.assert_close(encoding.token, tokens[:, 0])
    torch.testing.assert_close(encoding.final.flatten(2).mT, tokens[:, 1:])
    early = vit.patch_embed(images)
    assert vit.cls_token is not None
    assert vit.pos_embed is not None
    early = torch.cat([vit.cls_token.expand(2, -1, -1), early], dim=1) + vit.pos_embed
    early = vit.blocks[1](vit.blocks[0](early))
    torch.testing.assert_close(encoding.aux.flatten(2).mT, early[:, 1:])


def test_the_tenth_of_twelve_blocks_is_tapped() -> None:
    with torch.device("meta"):
        assert vit_base().aux_block == 9


def test_position_table_is_resized_without_smoothing() -> None:
    encoder = VitEncoder(small_vit())
    table = encoder.pos_embed.detach()
    assert encoder._positions(4, 4) is encoder.pos_embed
    resized = encoder._positions(2, 6).detach()
    assert resized.shape == (1, 13, 24)
    torch.testing.assert_close(resized[:, :1], table[:, :1])
    cells = table[:, 1:].mT.unflatten(2, (4, 4))
    # Halfway between two rows the cubic kernel weighs -3/32, 19/32, 19/32, -3/32.
    middle = torch.einsum("bcyx,y->bcx", cells, torch.tensor([-3.0, 19, 19, -3]) / 32)
    threes = encoder._positions(3, 4).detach()[:, 1:].mT.unflatten(2, (3, 4))
    torch.testing.assert_close(threes[:, :, 1], middle)
