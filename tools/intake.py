"""What the conservative step of AD-CAM does to attention, told by masks: from which labels a token takes.

`python -m tools.intake FOLDER... --rules adcam:gamma=0 adcam:gamma=2 adcam` takes working copies in which
train_localizer has run on a network with attention, one for each training, and trains nothing. For each rule it prints
the share of their intake that tokens of classes take from other tokens of their own label, and how many others they
attend to. Masks are read to tell this, and choose nothing: no run can use these numbers. `--page docs/results.md
--place "intake: photographs"` puts the table there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from models.labels import IGNORE
from models.localizer import AttentionClassifier
from models.propagation.apply import Observed
from models.propagation.rules.adcam import RULE, Knobs, attended, conservative
from pipeline.config.cams import CamsKnobs
from pipeline.data.dataset import resized_view
from pipeline.data.ground_truth import GroundTruth
from pipeline.data.images import view_size
from pipeline.data.manifest import load_manifest
from pipeline.data.photographs import Photographs
from pipeline.extract_cams import LOCALIZER, ExtractCamsConfig
from pipeline.run.errors import UserError
from pipeline.run.files import write_text
from pipeline.run.stage import run_stage
from pipeline.run.told import Runtime, told
from pipeline.training.weights import load_network
from tools.compare import spread, with_table

RULES = ("adcam:gamma=0", "adcam:gamma=2", "adcam:gamma=8", "adcam:gamma=auto")
PHOTOGRAPHS = 100


def main() -> None:
    """Print the table, or put it into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="working copies, one for each training")
    parser.add_argument("--rules", nargs="+", default=RULES, help="entries of cams.rules (%(default)s)")
    parser.add_argument("--photographs", type=int, default=PHOTOGRAPHS, help="at most (%(default)s)")
    parser.add_argument("--page", type=Path, help="file whose table is rewritten")
    parser.add_argument("--place", default="intake: photographs", help="of the table in that page (%(default)s)")
    arguments = parser.parse_args()
    trainings = []
    for folder in arguments.folders:
        with chdir(folder):
            trainings.append(intakes(arguments.rules, arguments.photographs))
    lines = intake_table(trainings)
    if arguments.page is None:
        print(lines)
    else:
        write_text(arguments.page, with_table(arguments.page.read_text("utf-8"), arguments.place, lines))


def intake_table(trainings: Sequence[dict[str, tuple[float, float]]]) -> str:
    """One row for each rule: mean and spread over trainings of the share, in percent, and of the count."""
    lines = ["| rule | trainings | own label, % | others attended to |", "| --- | ---: | ---: | ---: |"]
    for rule in trainings[0]:
        shares, counts = zip(*(training[rule] for training in trainings), strict=True)
        cells = (spread([100 * share for share in shares], 1), spread(counts, 1))
        lines.append(f"| {rule} | {len(trainings)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def intakes(rules: Sequence[str], most: int) -> dict[str, tuple[float, float]]:
    """For each rule the share of intake from the own label, and the tokens attended to: means over photographs.

    Args:
        rules: entries of `cams.rules`, all of adcam.
        most: photographs of the training split that are looked at, the first ones that have a mask.

    Raises:
        UserError: the network has no attention, a rule is another one, or no photograph has a mask with a class.
    """
    network = load_network(LOCALIZER, "train_localizer").eval()
    if not isinstance(network, AttentionClassifier):
        raise UserError("the network has no attention; run transcam or adcam in this folder")
    config, root = told("extract_cams", ExtractCamsConfig), told("runtime", Runtime).folder
    knobs = {text: rule_knobs(config, text) for text in rules}
    manifest = load_manifest().split("train")
    truth, photographs = GroundTruth(manifest, root), Photographs(manifest, root)
    found: dict[str, list[tuple[float, float]]] = {text: [] for text in rules}
    for record in tqdm(truth.known(manifest)[:most], desc="intake", disable=None):
        size = view_size(record.size, 1.0, config.long_side, config.square)
        view = resized_view(photographs.read(record), size, (network.backbone.mean, network.backbone.std))
        attention, grid = patch_attention(network, view)
        labels = cv2.resize(truth.read(record), (grid[1], grid[0]), interpolation=cv2.INTER_NEAREST)
        tokens = torch.from_numpy(labels.ravel().astype(np.int64))
        if ((tokens > 0) & (tokens != IGNORE)).any():
            for text, values in knobs.items():
                weights = conservative(attention, values)
                found[text].append((own_share(weights, tokens), float(attended(weights))))
    if not any(found.values()):
        raise UserError("no training photograph has a mask that shows a class")
    return {text: tuple(np.mean(rows, axis=0).tolist()) for text, rows in found.items()}


def rule_knobs(config: CamsKnobs, text: str) -> Knobs:
    """The knobs of an entry of `cams.rules`; UserError where it is not adcam."""
    knobs = config.model_copy(update={"rules": [text]}).rule(text)[1]
    if not isinstance(knobs, RULE.knobs):
        raise UserError(f"--rules: {text} is no entry of adcam")
    return knobs


@torch.inference_mode()
def patch_attention(network: AttentionClassifier, view: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Attention (N, N) between the patches of a normalised view (3, H, W), mean over blocks and heads, and its grid."""
    blocks = range(network.depth)
    observed = Observed([(RULE.needs, blocks)], network.tokens)
    maps = network.parts(view[None], observed.observers).maps
    return observed.observation(0, blocks).read("patches").clone(), (maps.shape[2], maps.shape[3])


def own_share(weights: Tensor, labels: Tensor) -> float:
    """The share of their intake that tokens of classes take from other tokens of their own label.

    Args:
        weights: (N, N) non-negative, row = the token that takes; its diagonal does not count.
        labels: (N,); tokens of 255 neither take nor give.
    """
    known = labels != IGNORE
    others = weights.clone().fill_diagonal_(0)[:, known]
    rows = others[(labels > 0) & known]
    own = rows * (labels[(labels > 0) & known][:, None] == labels[known])
    return float((own.sum(1) / rows.sum(1).clamp_min(torch.finfo(rows.dtype).tiny)).mean())


if __name__ == "__main__":
    run_stage(main)
