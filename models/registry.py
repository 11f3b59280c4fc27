"""Tables of all networks and methods, by the names that knobs and `network.json` give them.

A name stands for a module and what is in it, which `models.build` imports when it is asked for. So a stage loads the
chosen method alone, and light stages load no PyTorch. A new network or method is one line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

LITE0, LITE2 = "package:efficientnet_lite0", "package:efficientnet_lite2"
VIT_TAG = "vit_base_patch16_224.orig_in21k_ft_in1k"
"""ToCo's ViT in timm: ImageNet-21k weights fine-tuned on ImageNet-1k; timm's default is another one."""


class Network(NamedTuple):
    """A network or trunk.

    Attributes:
        at: its module and the callable there that builds it.
        imagenet: which library carries its ImageNet weights, and under which name (`timm:<tag>`,
            `torchvision:<weights>`, `package:<network>`, `smp:<encoder>`); None where no library does.
        alone: it learns from single photographs too, since no batch norm of it takes statistics of a batch.
    """

    at: str
    imagenet: str | None = None
    alone: bool = False


BACKBONES = {
    "efficientnet_lite0": Network("models.networks.lite:lite0", LITE0),
    "efficientnet_lite2": Network("models.networks.lite:lite2", LITE2),
    "resnet50": Network("models.networks.resnet50:ResNet50", "timm:resnet50.tv_in1k"),
    "resnet38": Network("models.networks.resnet38:ResNet38"),
}
"""Convolutional trunks."""

ENCODERS = {
    "vit_base": Network("models.networks.vit:vit_base", f"timm:{VIT_TAG}"),
    "lite0_vit": Network("models.networks.trunk_encoder:lite0_vit", LITE0),
    "lite2_vit": Network("models.networks.trunk_encoder:lite2_vit", LITE2),
    "lite0_early_vit": Network("models.networks.trunk_encoder:lite0_early_vit", LITE0),
    "vit_test": Network("models.networks.vit:vit_test"),
}
"""Encoders of tokens: vision transformers, and blocks on a convolutional trunk; `vit_test` is for tests."""

SEGMENTERS = {
    "deeplabv1_resnet38": Network("models.segmenters.deeplabv1:DeepLabV1ResNet38"),
    "two_convolutions_resnet38": Network("models.segmenters.deeplabv1:TwoConvolutionsResNet38", alone=True),
    "deeplabv2_resnet50": Network("models.segmenters.deeplabv2:deeplabv2_resnet50", alone=True),
    "deeplabv2_resnet101": Network("models.segmenters.deeplabv2:deeplabv2_resnet101", alone=True),
    "efficientnet_lite0_deeplabv3plus": Network("models.segmenters.lite_deeplabv3plus:lite0_deeplabv3plus", LITE0),
    "efficientnet_lite2_deeplabv3plus": Network("models.segmenters.lite_deeplabv3plus:lite2_deeplabv3plus", LITE2),
    "deeplabv3_resnet101": Network(
        "models.segmenters.deeplabv3:DeepLabV3ResNet101", "torchvision:ResNet101_Weights.IMAGENET1K_V1"
    ),
}
"""Segmentation networks; any `smp:<decoder>:<encoder>` is one too (see `segmenter_network`)."""

SMP = Network("models.segmenters.smp:SmpSegmenter")
"""Every decoder and encoder of segmentation_models_pytorch."""


def segmenter_network(name: str) -> Network | None:
    """The network of a choice of `segmenter.network`; None for one that is trained elsewhere (`localizer`)."""
    library, _, chosen = name.partition(":")
    if library == "smp":
        return SMP._replace(imagenet=f"smp:{chosen.partition(':')[2]}")
    return SEGMENTERS.get(name)


class Classifier(NamedTuple):
    """A choice of `classifier.network`.

    Attributes:
        network: its name in `NETWORKS`.
        arguments: what that builds it from, besides the classes.
        imagenet: as in `Network`.
        attention: it has a transformer branch whose attention rules can read.
        dropout: the argument that takes the knob `dropout`.
    """

    network: str
    arguments: Mapping[str, Any] = {}
    imagenet: str | None = None
    attention: bool = False
    dropout: str = "dropout"


def _conformer(size: str) -> Classifier:
    return Classifier("transcam", {"size": size}, attention=True, dropout="drop_path")


CLASSIFIERS = {
    **{name: Classifier("cam_classifier", {"backbone": name}, trunk.imagenet) for name, trunk in BACKBONES.items()},
    "efficientnet_lite0_hybrid": Classifier("hybrid", {"size": 0}, LITE0, attention=True),
    "efficientnet_lite2_hybrid": Classifier("hybrid", {"size": 2}, LITE2, attention=True),
    **{size: _conformer(size) for size in ("conformer_tiny", "conformer_ti", "conformer_s", "conformer_b")},
}


class Method(NamedTuple):
    """A second training, a choice of `localizer.network`.

    Attributes:
        task: its module, which has `tasks(start)` (see `models.task`).
        network: what it leaves, by its name in `NETWORKS`.
        at: the module and class of that network, where it is this method's own.
        groups: the groups of knobs below `localizer` that it reads.
        classifier: what it starts from: any classifier, one with or without attention; none trains all at once.
        earlier: names of the maps of earlier blocks or samplers that its network gives besides its own.
        saliency: it reads saliency maps where there are some.
    """

    task: str
    network: str
    groups: tuple[str, ...]
    classifier: Literal["any", "attention", "convolution", "none"] = "any"
    earlier: tuple[str, ...] = ()
    at: str | None = None
    saliency: bool = False

    @property
    def one_stage(self) -> bool:
        """It trains without a classifier, and its network segments."""
        return self.classifier == "none"


METHODS = {
    "amn": Method("models.amn.task", "amn", ("amn",), at="models.amn.network:AmnNetwork"),
    "bao": Method("models.bao.task", "bao", ("bao",), "attention", at="models.bao.network:BaoNetwork"),
    "toco": Method(
        "models.toco.task", "toco", ("toco",), "none", earlier=("aux",), at="models.toco.network:ToCoNetwork"
    ),
    "dual_branch": Method("models.dual_branch.task", "toco", ("toco", "dual_branch"), "none", earlier=("aux",)),
    "esol": Method(
        "models.esol.task",
        "esol",
        ("esol",),
        "convolution",
        earlier=("baseline", "expansion"),
        at="models.esol.network:EsolNetwork",
        saliency=True,
    ),
}
"""Second trainings; without one (`none`) the classifier is the localizer."""


AFFINITIES = ("affinitynet", "irn")
"""The choices of `affinity.network`, by their names in `NETWORKS`."""

NETWORKS = {
    "cam_classifier": "models.cam.classifier:CamClassifier",
    "hybrid": "models.transcam.hybrid:HybridClassifier",
    "transcam": "models.transcam.network:TransCam",
    "affinitynet": "models.affinity.affinitynet:FeatureAffinity",
    "irn": "models.affinity.irn:BoundaryAffinity",
    **{method.network: method.at for method in METHODS.values() if method.at},
    "smp": SMP.at,
    **{name: segmenter.at for name, segmenter in SEGMENTERS.items()},
}
"""What `network.json` may name."""
