"""The rule esol: two trainings with exact continuation, knobs, maps of three stages from one pass, the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from models.esol.network import STAGES, EsolNetwork, Stage
from models.esol.task import train_esol
from models.localizers import LOCALIZERS
from models.networks.backbones import BACKBONES
from pipeline import extract_cams, train_localizer
from pipeline.config.params import STAGES as CONFIGURED
from pipeline.config.params import EvaluateConfig, TrainLocalizerConfig, resolve, stage_config, stage_configs
from pipeline.data.dataset import Photographs, resized_view
from pipeline.data.manifest import PREPARED, Manifest, Record, load_manifest, save_ground_truth, save_manifest
from pipeline.data.masks import write_mask
from pipeline.evaluate import evaluate
from pipeline.maps.store import read_store
from pipeline.run.errors import UserError
from pipeline.run.files import read_json, write_json
from pipeline.training.weights import load_network, save_network
from tests.models.esol.test_network import Tiny
from tests.pipeline.config.test_params import shipped
from tests.support.interruption import continued_equals_whole
from tests.support.tiny_training import write_runtime

CLASSES = ("a", "b")
WEIGHTS, PLOTS = Path("data/localizer/weights.safetensors"), Path("metrics/plots/localizer_training")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six photographs, one without a class, and an untrained classifier on the tiny backbone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(BACKBONES, "tiny", Tiny)
    write_runtime(tmp_path, root="photographs")
    rng, records = np.random.default_rng(0), []
    Path("photographs").mkdir()
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(f"photographs/{number}.png")
        tags = () if number == 0 else (CLASSES[number % 2],)
        records.append(Record(str(number), "train", f"{number}.png", 56, 40, tags))
    save_manifest(PREPARED, Manifest(tuple(records), CLASSES))
    torch.manual_seed(0)
    description = {"network": "cam_classifier", "backbone": "tiny", "classes": 2}
    save_network(Path("data/classifier"), LOCALIZERS["cam_classifier"]("tiny", 2), description)
    return tmp_path


def configure(**knobs: Any) -> TrainLocalizerConfig:
    """The shipped configuration, small, with a rate at which three steps show; double underscores enter groups."""
    small = {
        "localizer__optimisation__epochs": 2,
        "localizer__optimisation__batch": 2,
        "localizer__optimisation__lr": 0.5,
        "localizer__augmentation__long_side": [48, 64],
        "localizer__augmentation__crop": 64,
        "cams__long_side": 56,
        "cams__scales": [1.0],
    }
    for stage, config in stage_configs(resolve(shipped(method="esol", **(small | knobs)))).items():
        CONFIGURED[stage].model_validate(config)
        write_json(Path(f"data/config/{stage}.json"), config)
    return stage_config("train_localizer", TrainLocalizerConfig)


def trained() -> EsolNetwork:
    network = load_network(Path("data/localizer"), LOCALIZERS, "train_localizer").eval()
    assert isinstance(network, EsolNetwork)
    return network


# ----------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("kernel", ["dirac", "trained"])
def test_both_samplers_learn_and_the_classifier_stays(project: Path, kernel: str) -> None:
    configure(localizer__esol__kernel=kernel)
    train_localizer.main()
    classifier = load_network(Path("data/classifier"), LOCALIZERS, "").state_dict()
    network = trained()
    assert all(torch.equal(network.base.state_dict()[name], value) for name, value in classifier.items())
    assert network.expansion.branch.weight.any() and network.shrinkage.branch.weight.any()
    assert (network.expansion.weight is None) == (kernel == "dirac")
    about = read_json(Path("data/localizer/network.json"), "")
    assert about["form"] == {"kernel": kernel, "reach": 0.5, "clip": "quantile", "clip_level": 0.8}


def test_history_has_the_terms_of_both_stages(project: Path) -> None:
    history = train_esol(configure(), project / "work")
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert all("inverse" in row and "tags" not in row and row["inverse"] <= 0 for row in history[:2])
    assert all({"tags", "area"} <= set(row) and "inverse" not in row for row in history[2:])
    first, second = (torch.load(project / f"work/{stage}/checkpoint.pt", weights_only=True) for stage in STAGES)
    assert not any(second["network"][name].ne(value).any() for name, value in first["network"].items() if "exp" in name)


@pytest.mark.parametrize("stage", STAGES)
def test_killed_training_continues_to_the_same_bytes(
    project: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    configure()
    outputs = [WEIGHTS, PLOTS / "history.csv", PLOTS / "sampling.png"]
    until = [*STAGES[: STAGES.index(stage)] * 2, stage]
    saved = continued_equals_whole(monkeypatch, outputs, lambda names: names == until)
    assert saved == ["expansion"] * 2 + ["shrinkage"] * 2, "no epoch is trained twice"


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": "trained"},
        {"reach": 0.1},
        {"clip": "none"},
        {"clip_level": 0.5},
        {"inverse_weight": 0.5},
        {"inverse_over": "all"},
        {"ceiling": 0.1},
        {"area": "sigmoid"},
        {"area_weight": 0.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_knobs_change_the_result(project: Path, change: dict[str, Any]) -> None:
    usual = train_esol(configure(), project / "usual")
    other = train_esol(configure(**{f"localizer__esol__{k}": v for k, v in change.items()}), project / "other")
    assert [row["loss"] for row in usual] != [row["loss"] for row in other]


def test_other_classifiers_are_refused(project: Path) -> None:
    description = {"network": "transcam", "size": "conformer_tiny", "classes": 2}
    save_network(Path("data/classifier"), LOCALIZERS["transcam"]("conformer_tiny", 2), description)
    configure()
    with pytest.raises(UserError, match="choose method cam's classifier"):
        train_localizer.main()


# ---------------------------------------------------------------------------------------------------- maps and picture


def test_maps_of_three_stages_come_from_one_pass(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(cams__batch=8)
    train_localizer.main()
    passes: list[int] = []
    forward = Tiny.forward

    def counted(self: Tiny, images: Tensor) -> list[Tensor]:
        passes.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Tiny, "forward", counted)
    extract_cams.main()
    assert passes == [12], "six photographs and their mirror images, once for all stages"
    network, manifest = trained(), load_manifest()
    stores = ("data/rules/baseline", "data/rules/expansion", "data/rules/none")
    for record, *entries in zip(manifest.records, *(read_store(Path(store)) for store in stores), strict=True):
        view = resized_view(Photographs(manifest).read(record), record.size, (network.backbone.mean, (0.5,) * 3))
        with torch.no_grad():
            expected = network.stage_maps(torch.stack([view, view.flip(2)]))
        for entry, maps in zip(entries, expected, strict=True):
            mean = (maps[0] + maps[1].flip(2)) / 2
            ids = [label - 1 for label in entry.class_ids]
            torch.testing.assert_close(entry.maps[0], mean[ids], atol=2e-3, rtol=2e-3)
    for earlier in ("baseline", "expansion"):
        (one,), (other,) = (list(Path(f"data/{kind}/{earlier}").iterdir()) for kind in ("rules", "seeds"))
        assert one.read_bytes() == other.read_bytes()
    assert not Path("data/seeds/none").exists()
    assert [entry.id for entry in read_store(Path("data/seeds"))] == [record.id for record in manifest.records]


def test_seeds_are_scored_after_every_stage(project: Path) -> None:
    configure()
    train_localizer.main()
    extract_cams.main()
    for number in range(6):
        labels = np.zeros((40, 56), dtype=np.uint8)
        labels[10:30, 10:40] = 1 + number % 2
        write_mask(Path(f"photographs/{number}-mask.png"), labels)
    save_ground_truth(PREPARED, {str(number): f"{number}-mask.png" for number in range(6)}, None)
    config = stage_config("evaluate_seeds", EvaluateConfig)
    found = evaluate("seeds", load_manifest(), config, project / "charts")
    assert list(found["earlier"]) == ["baseline", "expansion"]
    scores = [found, *found["earlier"].values()]
    for name in ("miou", "precision", "recall"):
        assert len({score[name] for score in scores}) == 3, f"{name} differs from stage to stage"
    assert all("oracle" in score for score in scores)


def test_expansion_alone_may_go_on(project: Path) -> None:
    configure(cams__rules=["expansion", "none"])
    train_localizer.main()
    extract_cams.main()
    first, rules = next(read_store(Path("data/seeds"))), next(read_store(Path("data/rules/expansion")))
    assert torch.equal(first.maps[0], rules.maps[0])
    assert not any(path.is_dir() for path in Path("data/seeds").iterdir())


def test_picture_shows_positions_before_and_after_expansion(project: Path) -> None:
    configure(localizer__esol__kernel="trained")
    train_localizer.main()
    table = pd.read_csv(PLOTS / "sampling.csv")
    assert set(table["tap"]) == set(range(9))
    centre = table[table["tap"] == 4]
    assert (centre["row"] % 4 == 2).all() and (centre["column"] % 4 == 2).all(), "centres of cells of stride 4"
    moved = (table[["row_after", "column_after"]].to_numpy() - table[["row", "column"]].to_numpy()) / 4
    assert 0 < np.abs(moved).max() <= 0.5 + 1e-3
    picture = Image.open(PLOTS / "sampling.png")
    assert picture.format == "PNG" and np.asarray(picture).std() > 10


# ------------------------------------------------------------------------------------------------------ configuration


def test_presets_load() -> None:
    compact, paper = (resolve(shipped(method="esol", profile=profile)) for profile in ("compact", "paper"))
    assert (compact.localizer.esol.reach, paper.localizer.esol.reach) == (0.5, 2.0)
    assert (compact.classifier.network, paper.classifier.network) == ("efficientnet_lite0", "resnet50")
    assert compact.cams.rules == ["none", "expansion", "baseline"] and compact.refine.rule == "irn_walk"
    other = resolve(shipped(method="esol_affinitynet"))
    assert other.refine.rule == "psa_walk" and other.localizer == compact.localizer
    cam, esol = (stage_configs(resolve(shipped(method=method))) for method in ("cam", "esol"))
    assert cam["train_classifier"] == esol["train_classifier"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"cams__rules": ["none", "aux"]}, "cams.rules = aux needs localizer.rule = toco"),
        ({"method": "cam", "cams__rules": ["none", "baseline"]}, "cams.rules = baseline needs localizer.rule = esol"),
        ({"classifier__network": "efficientnet_lite0_hybrid"}, "esol needs a convolutional classifier"),
        ({"localizer__esol__clip_level": 1.5}, "takes a clip_level of at most 1"),
        ({"localizer__esol__reach": 0}, "localizer.esol.reach = 0"),
        ({"localizer__esol__ceiling": 0.0}, "localizer.esol.ceiling"),
        ({"localizer__esol__area_weight": -1}, "localizer.esol.area_weight"),
        ({"localizer__esol__clip": "median"}, "localizer.esol.clip"),
    ],
)
def test_wrong_knobs_are_named(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        resolve(shipped(**({"method": "esol"} | change)))


def test_a_constant_bound_may_exceed_one() -> None:
    assert resolve(shipped(method="esol", localizer__esol__clip="const", localizer__esol__clip_level=6.0))
