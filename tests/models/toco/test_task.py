"""The rule toco: views, twenty steps on awkward photographs, exact continuation, optimisers, what follows."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from models.localizers import LOCALIZERS
from models.maps import min_max, resize
from models.networks.vit import ToCoNetwork
from models.refine.par import PAR
from models.toco import task as toco_training
from models.toco.contrast import ContrastHeads
from models.toco.crops import mirror_views
from models.toco.task import OneStageTraining, build_model, train_toco
from pipeline import extract_cams, refine_cams, train_classifier, train_localizer, train_segmenter
from pipeline.config.params import STAGES, Augmentation, TrainLocalizerConfig, resolve, stage_config, stage_configs
from pipeline.configure import check_weights
from pipeline.data.dataset import Photographs, resized_view
from pipeline.data.manifest import Manifest, Record, load_manifest, save_manifest
from pipeline.data.masks import read_mask
from pipeline.data.three_views import ThreeViews, random_part, random_window
from pipeline.maps.store import CamEntry, fused_maps, read_store
from pipeline.run.errors import UserError
from pipeline.run.files import read_json, sha256, write_json
from pipeline.training.weights import load_network
from tests.pipeline.config.test_params import shipped
from tests.support.interruption import continued_equals_whole
from tests.support.tiny_training import write_runtime

CLASSES = ("a", "b")
PLAIN = ((0.0,) * 3, (1.0,) * 3)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six photographs for training: one without a class, one of one colour; two for validation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(toco_training, "ContrastHeads", partial(ContrastHeads, outputs=32, hidden=24))
    write_runtime(tmp_path, root="photographs")
    Path("photographs").mkdir()
    rng, records = np.random.default_rng(0), []
    for number in range(8):
        coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((56, 40))
        if number == 4:
            picture = Image.new("RGB", (56, 40), (90, 90, 90))
        picture.save(f"photographs/{number}.png")
        tags = () if number == 2 else (CLASSES[number % 2],)
        records.append(Record(str(number), "train" if number < 6 else "val", f"{number}.png", 56, 40, tags))
    save_manifest(Path("data/prepared"), Manifest(tuple(records), CLASSES))
    return tmp_path


def configure(method: str = "dual_branch", **knobs: Any) -> TrainLocalizerConfig:
    """The shipped configuration, tiny; double underscores enter groups."""
    small = {
        "localizer__optimisation__epochs": 2,
        "localizer__optimisation__batch": 2,
        "localizer__augmentation__long_side": [48, 72],
        "localizer__augmentation__crop": 64,
        "localizer__backbone": "lite0_vit",
        "localizer__weights": "none",
        "localizer__toco__decoder_width": 8,
        "localizer__toco__branch__weights": "none",
        "cams__long_side": 64,
        "cams__scales": [1.0, 0.5],
        "segmenter__test_long_side": 64,
        "segmenter__test_scales": [1.0],
    }
    params = resolve(shipped(method=method, **(small | knobs)))
    for stage, config in stage_configs(params).items():
        STAGES[stage].model_validate(config)
        write_json(Path(f"data/config/{stage}.json"), config)
    return stage_config("train_localizer", TrainLocalizerConfig)


def weights() -> dict[str, Tensor]:
    return load_network(Path("data/localizer"), LOCALIZERS, "train_localizer").state_dict()


# -------------------------------------------------------------------------------------------------------------- views


def views(crop: int = 64, jitter: float = 0.4) -> ThreeViews:
    settings = Augmentation(long_side=[48, 72], colour_jitter=jitter, crop=crop)
    return ThreeViews(load_manifest().split("train"), settings, PLAIN)


def test_views_repeat_with_the_generator_and_differ_from_each_other(project: Path) -> None:
    first, again, other = (views().example(0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for name in ("image", "local", "second", "boxes"):
        assert torch.equal(first[name], again[name])
    assert not torch.equal(first["image"], other["image"])
    assert not torch.equal(first["image"], first["local"])
    assert {first[name].shape for name in ("image", "local", "second")} == {(3, 64, 64)}
    assert first["boxes"].dtype == torch.int64


def test_local_views_show_the_same_window_before_colours_change(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreeViews, "recoloured", lambda self, image, how, rng: image)
    batch = [views().example(index, np.random.default_rng(index)) for index in range(6)]
    first, local = (torch.stack([one[name] for one in batch]) for name in ("image", "local"))
    boxes = torch.stack([one["boxes"] for one in batch])
    turned, beside, turned_boxes = mirror_views(first, local, boxes, torch.Generator().manual_seed(1))
    assert torch.equal(turned, beside) and not torch.equal(turned, first)
    for image, (top, bottom, left, right) in zip(turned, turned_boxes.tolist(), strict=True):
        outside = torch.ones(64, 64, dtype=torch.bool)
        outside[top:bottom, left:right] = False
        assert not image[:, outside].any(), "black outside the photograph"


def test_windows_and_parts() -> None:
    image = np.random.default_rng(0).integers(1, 256, (30, 80, 3), dtype=np.uint8)
    for seed in range(9):
        rng = np.random.default_rng(seed)
        window, (top, bottom, left, right) = random_window(image, 40, rng)
        assert (bottom - top, right - left) == (30, 40) and (window[top:bottom, left:right] > 0).all()
        part = random_part(image, rng)
        assert 0.38 <= part.shape[0] * part.shape[1] / 2400 <= 1


def test_recolouring_keeps_a_grey_picture_grey(project: Path) -> None:
    one = views(jitter=0.0).example(4, np.random.default_rng(3))
    assert torch.equal(one["second"][0], one["second"][1])


# ----------------------------------------------------------------------------------------------------------- training


def awkward(example: Any) -> Any:
    """Of every six photographs one without any object, one that is all padding, and one without tags."""

    def changed(self: ThreeViews, index: int, rng: np.random.Generator) -> dict[str, Any]:
        found: dict[str, Any] = example(self, index, rng)
        if index == 0:
            found |= {name: torch.zeros_like(found[name]) for name in ("image", "local", "second")}
        elif index == 1:
            found["boxes"] = torch.zeros_like(found["boxes"])
        elif index == 3:
            found["tags"] = torch.zeros_like(found["tags"])
        return found

    return changed


@pytest.mark.parametrize("batch", [1, 2])
def test_twenty_steps_on_awkward_photographs(project: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(ThreeViews, "example", awkward(ThreeViews.example))
    epochs = 4 if batch == 1 else 7
    config = configure(localizer__optimisation__epochs=epochs, localizer__optimisation__batch=batch)
    history = train_toco(config, project / "work")
    assert len(history) * 6 // batch >= 20
    assert all(np.isfinite(value) for row in history for value in row.values())
    assert history[-1]["masks"] > 0
    state = torch.load(project / "work/checkpoint.pt", weights_only=True)["network"]
    assert all(bool(value.isfinite().all()) for value in state.values() if value.is_floating_point())


def test_losses_fall_where_colours_tell_the_classes(project: Path) -> None:
    for number in range(6):
        colour = (128, 128, 128) if number == 2 else ((230, 30, 30), (30, 30, 230))[number % 2]
        Image.new("RGB", (56, 40), colour).save(f"photographs/{number}.png")
    rates: dict[str, Any] = {
        "localizer__toco__branch__rates__head_lr_factor": 1.0,
        "localizer__augmentation__colour_jitter": 0.0,
    }
    history = train_toco(configure(localizer__optimisation__epochs=12, **rates), project / "work")
    for name in ("tags", "aux_tags", "branch_tags"):
        assert history[-1][name] < history[0][name], name


def test_killed_training_continues_to_the_same_bytes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(localizer__optimisation__epochs=3, localizer__toco__mask_start=0.5)
    saved = continued_equals_whole(
        monkeypatch, [Path("data/localizer/weights.safetensors")], lambda names: len(names) == 2
    )
    assert len(saved) == 3, "no epoch is trained twice"


def test_each_branch_has_an_optimiser_of_its_own(project: Path) -> None:
    config = configure(localizer__optimisation__lr=0.0005, localizer__toco__branch__rates__lr=0.005)
    train_toco(config, project / "work")
    main, branch = torch.load(project / "work/checkpoint.pt", weights_only=True)["optimisers"]
    assert [group["base_lr"] for group in main["param_groups"]] == [0.0005, pytest.approx(0.005)]
    assert [group["base_lr"] for group in branch["param_groups"]] == [0.005, 0.05]
    assert "betas" in main["param_groups"][0] and "momentum" in branch["param_groups"][0]
    assert config.toco is not None
    model = build_model(config, config.toco, 2)
    learning = sum(parameter.requires_grad for parameter in model.parameters())
    assert learning == sum(len(group["params"]) for one in (main, branch) for group in one["param_groups"])
    assert not any(name.startswith("branch") for name in weights_of(project / "work/result"))


def weights_of(folder: Path) -> dict[str, Tensor]:
    return load_network(folder, LOCALIZERS, "").state_dict()


def test_thresholds_and_weights_follow_the_share_done() -> None:
    knobs = resolve(shipped(method="dual_branch", profile="paper")).localizer.toco
    training_state, tags = OneStageTraining(knobs, epochs=10, classes=20), torch.zeros(2, 20)
    assert training_state.weights()["masks"] == 0 and training_state.thresholds(tags).pairs == 0.7
    assert sum(value > 0 for value in training_state.weights().values()) == 7
    training_state.after_step(epoch=4, step=99, steps=100)
    assert training_state.done == 0.5
    assert training_state.weights()["masks"] == 0.1
    assert training_state.thresholds(tags) == (0.25, *(pytest.approx(0.625),) * 3)
    only = knobs.model_copy(update={"high_moves": ["masks"]})
    other = OneStageTraining(only, 10, 20)
    other.load_state_dict(training_state.state_dict())
    assert other.thresholds(tags) == (0.25, 0.7, 0.7, pytest.approx(0.625))


def test_last_thresholds_of_each_class(project: Path) -> None:
    knobs = resolve(shipped(method="dual_branch")).localizer.toco.model_copy(update={"high_of_classes": [0.7, 0.55]})
    state = OneStageTraining(knobs, 10, 2)
    state.load_state_dict({"done": 1.0})
    torch.testing.assert_close(state.thresholds(torch.eye(2)).masks, torch.tensor([0.7, 0.55]))
    with pytest.raises(UserError, match="3 thresholds for 2 classes"):
        OneStageTraining(knobs.model_copy(update={"high_of_classes": [0.7] * 3}), 10, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"localizer__toco__compat": ["absolute_pairs", "extra_term", "pixel_boxes", "flip_bug"]},
        {"localizer__toco__branch__combine": "parallel"},
        {"localizer__toco__branch__gaussian": "pdf"},
        {"localizer__toco__branch__consistency_norm": 2},
        {"localizer__toco__branch__leader": "transformer"},
        {"localizer__toco__branch__network": "none"},
        {"localizer__toco__high_moves": []},
        {"localizer__toco__label_source": "aux"},
        {"localizer__toco__ctc_weight": 0.0},
        {"localizer__toco__ptc_weight": 0.0},
        {"localizer__toco__crop": 16},
    ],
    ids=lambda changes: next(iter(changes)).split("__")[-1],
)
def test_knobs_change_the_result(project: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    usual = train_toco(configure(localizer__toco__mask_start=0.0), project / "usual")
    other = train_toco(configure(localizer__toco__mask_start=0.0, **changes), project / "other")
    same = [row["loss"] for row in usual] == [row["loss"] for row in other]
    assert not same


def test_branches_that_do_not_go_together(project: Path) -> None:
    with pytest.raises(UserError, match="do not go together"):
        train_toco(configure(localizer__toco__branch__network="resnet50"), project / "work")


# ------------------------------------------------------------------------------------------------------ configuration


def test_presets_of_the_tables_differ_where_the_tables_do() -> None:
    found = {}
    names = ("plain", "threshold", "channel", "spatial", "gates", "threshold_channel", "threshold_spatial")
    for name in (*names, "l2", "end_065", "end_060", "end_050", "parallel"):
        knobs = resolve(shipped(method=f"dual_branch_{name}", profile="paper")).localizer.toco
        branch = knobs.branch
        assert branch.network == "resnet50"
        found[name] = (knobs.high[1], branch.channel, branch.spatial, branch.combine, branch.consistency_norm)
    assert found == {
        "plain": (0.7, False, False, "serial", 1),
        "threshold": (0.55, False, False, "serial", 1),
        "channel": (0.7, True, False, "serial", 1),
        "spatial": (0.7, False, True, "serial", 1),
        "gates": (0.7, True, True, "serial", 1),
        "threshold_channel": (0.55, True, False, "serial", 1),
        "threshold_spatial": (0.55, False, True, "serial", 1),
        "l2": (0.55, True, True, "serial", 2),
        "end_065": (0.65, True, True, "serial", 1),
        "end_060": (0.6, True, True, "serial", 1),
        "end_050": (0.5, True, True, "serial", 1),
        "parallel": (0.55, True, True, "parallel", 1),
    }
    best, alone = (resolve(shipped(method=method, profile="paper")).localizer for method in ("dual_branch", "toco"))
    assert (best.toco.high, best.toco.branch.network) == ([0.7, 0.55], "resnet50")
    assert (alone.toco.high, alone.toco.branch.network) == ([0.7, 0.7], None)
    assert alone.optimisation.lr == best.optimisation.lr == 6e-5


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"localizer__rule": "none"}, "needs localizer.rule = toco"),
        ({"method": "cam", "segmenter__network": "localizer"}, "segmenter.network = localizer needs localizer.rule"),
        ({"method": "cam", "cams__rules": ["none", "aux"]}, "cams.rules = aux needs localizer.rule"),
        ({"cams__rules": ["transcam"]}, "read attention"),
        ({"localizer__backbone": "resnet50"}, "goes with localizer.backbone = vit_base"),
        ({"method": "amn", "localizer__backbone": "vit_base"}, "got amn and vit_base"),
        ({"localizer__toco__crop": 128}, "leaves no room"),
        ({"localizer__toco__crop": 130}, "leaves no room"),
        ({"localizer__toco__crop": 126, "localizer__toco__crops": 5}, "leaves no room for localizer.toco.crops = 5"),
        ({"localizer__toco__low": 0.8}, "low is at most every high threshold"),
        ({"localizer__toco__compat": ["flips"]}, "localizer.toco.compat"),
        ({"localizer__toco__branch__gaussian": "bell"}, "localizer.toco.branch.gaussian"),
    ],
)
def test_wrong_knobs_are_named(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        resolve(shipped(**({"method": "toco"} | change)))


def test_weights_that_cannot_be_had_stop_before_any_work() -> None:
    lost = {"localizer__weights": "lost.pth", "localizer__toco__branch__weights": "gone.pth"}
    with pytest.raises(UserError, match=r"localizer.weights = lost.pth(.|\n)*localizer.toco.branch.weights = gone.pth"):
        check_weights(resolve(shipped(method="dual_branch", **lost)))
    check_weights(resolve(shipped(method="dual_branch", profile="paper")))


# ------------------------------------------------------------------------------------------------- stages that follow


def test_the_whole_chain(project: Path) -> None:
    configure(refine__long_side=48)
    train_classifier.main()
    assert read_json(Path("metrics/details/classifier.json"), "")["classes_scored"] == 0
    train_localizer.main()
    assert read_json(Path("data/localizer/network.json"), "")["network"] == "toco"
    assert not any(name.startswith(("branch", "contrast")) for name in weights())
    extract_cams.main()
    final, aux = (list(read_store(Path(f"data/rules/{rule}"))) for rule in ("none", "aux"))
    assert all(entry.fusion == "toco" for entry in (*final, *aux))
    assert not torch.equal(final[0].maps[0], aux[0].maps[0])
    refine_cams.main()
    for seed, refined in zip(final, read_store(Path("data/refined")), strict=True):
        maps, background = fused_maps(refined, refined.size)
        assert refined.id == seed.id and refined.class_ids == seed.class_ids and background is None
        assert maps.shape[0] == len(seed.class_ids) and maps.min(initial=0) >= 0 and maps.max(initial=0) <= 1
    train_segmenter.main()
    assert sha256(Path("data/segmenter/weights.safetensors")) == sha256(Path("data/localizer/weights.safetensors"))
    predicted = sorted(path.name for path in Path("data/segmenter/predictions").glob("*.png"))
    assert predicted == ["6.png", "7.png"]
    assert read_mask(Path("data/segmenter/predictions/6.png"), (40, 56)).max() <= 2


def test_stored_maps_are_fused_as_in_training(project: Path) -> None:
    """But for the order of resizing and of taking the larger of both mirror images' values."""
    configure("toco", cams__square=True, cams__rules=["none"])
    train_localizer.main()
    extract_cams.main()
    network = load_network(Path("data/localizer"), LOCALIZERS, "").eval()
    assert isinstance(network, ToCoNetwork)
    manifest = load_manifest().split("train")
    entries = zip(read_store(Path("data/seeds")), manifest.records, strict=True)
    for entry, record in ((entry, record) for entry, record in entries if entry.class_ids):
        total = torch.zeros(1, 1, 64, 64)
        for side in (64, 32):
            view = resized_view(Photographs(manifest).read(record), (side, side), (network.mean, network.std))
            with torch.no_grad():
                both = network.stacked_cams(torch.stack([view, view.flip(2)]))[:, [entry.class_ids[0] - 1]]
            total += resize(torch.maximum(both[:1], both[1:].flip(3)).relu(), (64, 64))
        ours, _ = fused_maps(entry, (64, 64))
        np.testing.assert_allclose(ours, min_max(total)[0].numpy(), atol=5e-3)


def test_par_on_stored_maps_equals_par_beside_a_constant_background(project: Path) -> None:
    pixels = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    maps = torch.rand(1, 2, 24, 24, generator=torch.Generator().manual_seed(1))
    beside = PAR().refine(pixels, torch.cat([torch.full((1, 1, 24, 24), 0.5), maps], dim=1))
    alone = PAR().refine(pixels, maps) / 1.01**10
    assert torch.equal((beside[:, 1:] > beside[:, :1]), (alone > 0.5))


def test_a_localizer_without_decoder_does_not_segment(project: Path) -> None:
    configure()
    write_json(Path("data/localizer/network.json"), {"network": "cam_classifier"})
    Path("data/localizer/weights.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="the localizer is cam_classifier"):
        train_segmenter.main()


def test_rule_is_registered() -> None:
    assert train_localizer.RULES["toco"] is toco_training.train_toco


def test_refinement_of_photographs_without_classes() -> None:
    entry = CamEntry("empty", (24, 20), (), (torch.zeros(0, 3, 3),), ((24, 24),))
    config = resolve(shipped(method="toco")).refine
    (refined,) = refine_cams.par_entries(torch.rand(1, 3, 24, 20), [entry], config)
    assert refined.class_ids == () and refined.maps[0].shape == (0, 24, 20)
