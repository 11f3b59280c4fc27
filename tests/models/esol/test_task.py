"""The trainings of ESOL: what learns, exact continuation, knobs, maps of three samplers from one pass, the picture."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from models.esol.network import SAMPLERS, EsolNetwork, SamplerName
from models.registry import BACKBONES
from pipeline import extract_cams, train_localizer
from pipeline.data.dataset import resized_view
from pipeline.data.manifest import Record, load_manifest
from pipeline.data.photographs import Photographs
from pipeline.evaluate import EvaluateConfig, evaluate
from pipeline.maps.store import read_store
from pipeline.run.errors import UserError
from pipeline.run.files import read_json
from pipeline.run.told import told
from tests.support import project as shared
from tests.support.project import PHOTOGRAPHS, SIZE, Pixels, write_masks, write_network, write_photographs
from tests.support.stages import run
from tests.support.tiny_networks import TINY, Tiny
from tests.support.trainings import CLASSIFIER, LOCALIZER, WEIGHTS, Trainings, continued_equals_whole, here

PLOTS = Path("metrics/plots/localizer_training")
TAGS = ((), ("b",), ("a",), ("b",), ("a",), ("b",))
SMALL: dict[str, Any] = {
    "localizer__optimisation__epochs": 2,
    "localizer__optimisation__batch": 2,
    "localizer__optimisation__lr": 0.5,  # at which three steps show
    "localizer__augmentation__long_side": [48, 64],
    "localizer__augmentation__crop": 64,
    "cams__long_side": 56,
    "cams__scales": [1.0],
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Six photographs, one without a class, and an untrained classifier on the tiny backbone."""
    folder = tmp_path_factory.mktemp("esol")
    write_photographs(folder, TAGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", TINY)
        write_network(folder / CLASSIFIER, {"network": "cam_classifier", "backbone": "tiny", "classes": 2})
        yield folder


@pytest.fixture(scope="module")
def trainings(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings(prepared, tmp_path_factory.mktemp("trained"), configure)


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the photographs and the classifier, as the current folder."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def trained(trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what a training with the usual knobs leaves, as the current folder."""
    shutil.copytree(trainings().folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(*stages: str, **knobs: Any) -> None:
    """What train_localizer, or other stages, are told: the shipped configuration, small."""
    shared.configure(stages=stages or ["train_localizer"], method="esol", **(SMALL | knobs))


# ----------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("kernel", ["dirac", "trained"])
def test_both_samplers_learn_and_the_classifier_stays(trainings: Trainings, kernel: str) -> None:
    trained = trainings(localizer__esol__kernel=kernel)
    network, classifier = trained.network(), trained.weights(CLASSIFIER)
    assert isinstance(network, EsolNetwork)
    assert all(torch.equal(network.base.state_dict()[name], value) for name, value in classifier.items())
    assert network.expansion.branch.weight.any() and network.shrinkage.branch.weight.any()
    assert (network.expansion.weight is None) == (kernel == "dirac")
    about = read_json(trained.folder / LOCALIZER / "network.json", "")
    assert about["form"] == {"kernel": kernel, "reach": 0.5, "clip": "quantile", "clip_level": 0.9}


def test_history_has_the_terms_of_both_samplers(trainings: Trainings) -> None:
    trained = trainings()
    first, second = (trained.history(name) for name in SAMPLERS)
    table = pd.read_csv(trained.folder / PLOTS / "history.csv")
    assert table["epoch"].tolist() == [1, 2, 3, 4]
    assert len(first) == len(second) == 2
    assert all("inverse" in row and "tags" not in row and row["inverse"] <= 0 for row in first)
    assert all({"tags", "area"} <= set(row) and "inverse" not in row for row in second)
    before, after = (trained.checkpoint(name)["network"] for name in SAMPLERS)
    assert not any(after[name].ne(value).any() for name, value in before.items() if "exp" in name)


def test_saliency_changes_shrinkage_alone(trainings: Trainings, tmp_path: Path) -> None:
    for number in range(len(TAGS)):
        Image.new("L", (SIZE[1], SIZE[0]), 255).save(tmp_path / f"{number}.png")
    without, trained = trainings(), trainings(data__saliency=str(tmp_path))
    assert trained.history("expansion") == without.history("expansion")
    before, after = (some.history("shrinkage") for some in (without, trained))
    assert all(row["area"] > 0 for row in before)
    assert after[0]["area"] < before[0]["area"], "only what lies outside the photograph is not salient"
    assert not torch.equal(trained.weights()["shrinkage.branch.weight"], without.weights()["shrinkage.branch.weight"])


@pytest.mark.parametrize("which", SAMPLERS)
def test_killed_training_continues_to_the_same_bytes(
    project: Path, monkeypatch: pytest.MonkeyPatch, which: SamplerName
) -> None:
    configure()
    outputs = [LOCALIZER / WEIGHTS, PLOTS / "history.csv", PLOTS / "sampling.png"]
    until = [*SAMPLERS[: SAMPLERS.index(which)] * 2, which]
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
def test_knobs_change_the_result(trainings: Trainings, change: dict[str, Any]) -> None:
    other = trainings(**{f"localizer__esol__{knob}": value for knob, value in change.items()})
    assert trainings().losses(*SAMPLERS) != other.losses(*SAMPLERS)


def test_other_classifiers_are_refused(project: Path) -> None:
    write_network(CLASSIFIER, {"network": "transcam", "size": "conformer_tiny", "classes": 2})
    configure()
    with pytest.raises(UserError, match="ESOL needs a convolutional classifier, not transcam"):
        run(train_localizer)


# ---------------------------------------------------------------------------------------------------- maps and picture


def test_maps_of_three_samplers_come_from_one_pass(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure("extract_cams", cams__batch=8)
    passes: list[int] = []
    forward = Tiny.forward

    def counted(self: Tiny, images: Tensor) -> list[Tensor]:
        passes.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Tiny, "forward", counted)
    run(extract_cams)
    assert passes == [12], "six photographs and their mirror images, once for all samplers"
    network, manifest = here().network(), load_manifest()
    stores = ("data/rules/baseline", "data/rules/expansion", "data/rules/none")
    photographs = Photographs(manifest, Path(PHOTOGRAPHS))
    for record, *entries in zip(manifest.records, *(read_store(Path(store)) for store in stores), strict=True):
        view = resized_view(photographs.read(record), record.size, (network.backbone.mean, (0.5,) * 3))
        with torch.no_grad():
            expected = network.all_maps(torch.stack([view, view.flip(2)]))
        for entry, maps in zip(entries, expected, strict=True):
            mean = (maps[0] + maps[1].flip(2)) / 2
            ids = [label - 1 for label in entry.class_ids]
            torch.testing.assert_close(entry.maps[0], mean[ids], atol=2e-3, rtol=2e-3)
    for earlier in ("baseline", "expansion"):
        (one,), (other,) = (list(Path(f"data/{kind}/{earlier}").iterdir()) for kind in ("rules", "seeds"))
        assert one.read_bytes() == other.read_bytes()
    assert not Path("data/seeds/none").exists()
    assert [entry.id for entry in read_store(Path("data/seeds"))] == [record.id for record in manifest.records]


def test_seeds_are_scored_after_every_sampler(trained: Path) -> None:
    configure("extract_cams", "evaluate_seeds", bg_thresh=0.5)
    run(extract_cams)
    write_masks(trained, load_manifest(), rectangle)
    config = told("evaluate_seeds", EvaluateConfig)
    found = evaluate("seeds", load_manifest(), config, Path(PHOTOGRAPHS), trained / "charts")
    assert list(found["earlier"]) == ["baseline", "expansion"]
    scores = [found, *found["earlier"].values()]
    for name in ("miou", "precision", "recall"):
        assert len({score[name] for score in scores}) == 3, f"{name} differs from sampler to sampler"
    assert all("oracle" in score for score in scores)


def rectangle(number: int, record: Record) -> Pixels:
    """A mask with a rectangle of class a or b."""
    labels = np.zeros(record.size, dtype=np.uint8)
    labels[10:30, 10:40] = 1 + number % 2
    return labels


def test_expansion_alone_may_go_on(trained: Path) -> None:
    configure("extract_cams", cams__rules=["expansion", "none"])
    run(extract_cams)
    first, rules = next(read_store(Path("data/seeds"))), next(read_store(Path("data/rules/expansion")))
    assert torch.equal(first.maps[0], rules.maps[0])
    assert not any(path.is_dir() for path in Path("data/seeds").iterdir())


def test_picture_shows_positions_before_and_after_expansion(trainings: Trainings) -> None:
    plots = trainings(localizer__esol__kernel="trained").folder / PLOTS
    table = pd.read_csv(plots / "sampling.csv")
    assert set(table["tap"]) == set(range(9))
    centre = table[table["tap"] == 4]
    assert (centre["row"] % 4 == 2).all() and (centre["column"] % 4 == 2).all(), "centres of cells of stride 4"
    moved = (table[["row_after", "column_after"]].to_numpy() - table[["row", "column"]].to_numpy()) / 4
    assert 0 < np.abs(moved).max() <= 0.5 + 1e-3
    picture = Image.open(plots / "sampling.png")
    assert picture.format == "PNG" and np.asarray(picture).std() > 10
