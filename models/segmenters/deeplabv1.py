"""DeepLab-v1 (LargeFOV) on the wide ResNet-38: the segmenter of PSA's family.

Source: Chen et al., ICLR 2015 (`published`); heads as in the released code named below.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from models.networks.resnet38 import ResNet38
from models.segmenters.segmenter import Segmenter


class DeepLabV1ResNet38(Segmenter):
    """The trunk, two convolutions with batch norm and dropout, and a classifier of pixels; logits at stride 8.

    The trunk keeps the frozen parts that it has everywhere: its first level and all batch norm.

    Source: YudeWang/semantic-segmentation-codebase, which TransCAM uses (`released`): spec bao_transcam_amn 3.5.
    """

    mean = ResNet38.mean
    std = ResNet38.std

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.backbone: ResNet38 = ResNet38()
        self.conv_fov = nn.Conv2d(4096, 512, 3, padding=12, dilation=12, bias=False)
        self.bn_fov = nn.BatchNorm2d(512)
        self.conv_fov2 = nn.Conv2d(512, 512, 1, bias=False)
        self.bn_fov2 = nn.BatchNorm2d(512)
        self.cls_conv = nn.Conv2d(512, labels, 1)
        for convolution in (self.conv_fov, self.conv_fov2, self.cls_conv):
            nn.init.kaiming_normal_(convolution.weight)

    @property
    def head(self) -> nn.Module:  # type: ignore[override]
        """All but the trunk; a list made on the fly, so that entries keep their released names."""
        return nn.ModuleList([self.conv_fov, self.bn_fov, self.conv_fov2, self.bn_fov2, self.cls_conv])

    def logits(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, labels, ceil(H / 8), ceil(W / 8))."""
        features = functional.relu(self.bn_fov(self.conv_fov(self.backbone(images)[-1])))
        features = functional.relu(self.bn_fov2(self.conv_fov2(features)))
        return self.cls_conv(functional.dropout(features, 0.5, self.training))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, labels, H, W), resized between corners."""
        return functional.interpolate(self.logits(images), images.shape[2:], mode="bilinear", align_corners=True)


class TwoConvolutionsResNet38(Segmenter):
    """The trunk and two convolutions of dilation 12, with bias and without batch norm or dropout.

    Source: Ahn & Kwak, CVPR 2018 (two atrous convolutions of rate 12: `published`); width 512, bias and Xavier's
    initial values of MCTformer's code, which BAO names for its segmentation (`released`): spec bao_transcam_amn 6.6.
    """

    mean = ResNet38.mean
    std = ResNet38.std

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.backbone: ResNet38 = ResNet38()
        convolutions = [
            nn.Conv2d(inside, outside, 3, padding=12, dilation=12) for inside, outside in ((4096, 512), (512, labels))
        ]
        for convolution in convolutions:
            nn.init.xavier_uniform_(convolution.weight)
        self.head: nn.Sequential = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1])

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, labels, H, W)."""
        logits = self.head(self.backbone(images)[-1])
        return functional.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)
