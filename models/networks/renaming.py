"""Names of weights in the files of other programs, and the names that the networks here have.

Each function takes names to tensors and gives them renamed; what it does not know stays as it is, so that
`models.networks.loading` can say what does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

State = Mapping[str, Tensor]


def renamed(state: State) -> dict[str, Tensor]:
    """A state dict under the names of the networks here, whichever program wrote it."""
    return openmmlab(data_parallel(mxnet_resnet38(state)))


def data_parallel(state: State) -> dict[str, Tensor]:
    """Without the prefix `module.` that DataParallel gives all names."""
    return _without("module.", state) if all(name.startswith("module.") for name in state) else dict(state)


def _without(prefix: str, state: State) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items()}


# ----------------------------------------------------------------------------------------------------------- OpenMMLab

OPENMMLAB = (
    (re.compile(r"(trans_1|trans_block)\.ln([12])\."), r"\1.norm\2."),
    (re.compile(r"(trans_1|trans_block)\.ffn\.layers\.0\.0\."), r"\1.mlp.fc1."),
    (re.compile(r"(trans_1|trans_block)\.ffn\.layers\.1\."), r"\1.mlp.fc2."),
)


def openmmlab(state: State) -> dict[str, Tensor]:
    """Names of OpenMMLab's classifiers: without `backbone.` and `head.`, and Conformer's blocks by the official names.

    Source: mmpretrain (`models/backbones/conformer.py`): its transformer block is the library's own. The rest of a
    Conformer has the official names there.
    """
    if not any(name.startswith("backbone.") for name in state):
        return dict(state)
    plain = _without("head.", _without("backbone.", state))
    return {_substituted(name): value for name, value in plain.items()}


def _substituted(name: str) -> str:
    for pattern, replacement in OPENMMLAB:
        name = pattern.sub(replacement, name)
    return name


# --------------------------------------------------------------------------------------------------- MXNet's ResNet-38

MXNET = re.compile(
    r"(?:arg|aux):(?:"
    r"(?P<stem>conv1a)_weight"
    r"|(?P<kind>res|bn)(?P<level>[2-7])(?:a|b(?P<block>\d))_(?P<branch>branch\w+?)_(?P<what>weight|gamma|beta|moving_mean|moving_var)"
    r"|bn7_(?P<last>gamma|beta|moving_mean|moving_var)"
    r")"
)
BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_var": "running_var"}


def mxnet_resnet38(state: State) -> dict[str, Tensor]:
    """Names of the ImageNet weights of ResNet-38 that its authors gave out for MXNet; the classifier is left out.

    `res2b1_branch2a_weight` is a convolution of level 2, block 1; `bn2a_branch2b1_gamma` a normalisation of its first
    block.

    Source: ademxapp (Wu, Shen & van den Hengel, 2016), whose names the released code of PSA turns into those used here.
    """
    return {_of_mxnet(name): value for name, value in state.items() if not name.startswith("arg:linear1000_")}


def _of_mxnet(name: str) -> str:
    found = MXNET.fullmatch(name)
    if found is None:
        return name
    if found["stem"]:
        return "conv1a.weight"
    if found["last"]:
        return f"bn7.{BATCH_NORM[found['last']]}"
    block = f"b{found['level']}" + (f"_{found['block']}" if found["block"] else "")
    layer = "conv" if found["kind"] == "res" else "bn"
    return f"{block}.{layer}_{found['branch']}.{BATCH_NORM.get(found['what'], 'weight')}"
