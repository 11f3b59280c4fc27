"""The report is one safe, self-contained page with the same bytes every time, with and without masks."""

import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.labels import IGNORE
from pipeline.config.params import ARTEFACTS, EvaluateConfig, resolve, runtime, stage_config, stage_configs
from pipeline.data.manifest import PREPARED, Manifest, Record, load_manifest, save_ground_truth, save_manifest
from pipeline.data.masks import voc_palette, write_mask
from pipeline.evaluate import evaluate, evaluate_epochs, evaluate_rules
from pipeline.maps.store import CamEntry, shard_path, write_shard
from pipeline.report import __main__ as report
from pipeline.report import pictures
from pipeline.run.errors import UserError
from pipeline.run.files import write_json
from pipeline.scoring import charts
from pipeline.scoring.charts import save_history
from pipeline.scoring.records import read_scores, write_scores
from tests.support import ROOT

HEIGHT, WIDTH = 12, 18
NASTY = "<b>x</b>"
PARAMS = ROOT / "params.yaml"
PAGE = Path("metrics/report/index.html")
VOID = {"meta", "img", "br", "link"}


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A page with everything on it, and the folder that it was made in."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(folder, monkeypatch)
        return make(), folder


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(charts, "save_figure", lambda path, figure: None)  # charts of other stages: not read here


def configure(gallery: int, bg_thresh: object) -> None:
    raw = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    raw |= {"bg_thresh": bg_thresh, "report": {"gallery": gallery}}
    raw["data"] |= {"name": "folder", "root": "photos"}
    params = resolve(raw)
    for name, content in {**stage_configs(params), "runtime": runtime(params).model_dump()}.items():
        write_json(Path(f"data/config/{name}.json"), content)


def prepare(classes: Sequence[str], masks: Sequence[str]) -> None:
    """Five train and two val photographs; the last one of train has no tag; masks for those named."""
    rng = np.random.default_rng(0)
    Path("photos").mkdir()
    records = []
    for name in ("t0", "t1&", "t2", "t3", "t4", "v0", "v1"):
        Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(f"photos/{name}.png")
        tags = () if name == "t4" else tuple(classes[int(name[1]) % 2 :: 2])
        records.append(Record(name, "train" if name[0] == "t" else "val", f"{name}.png", WIDTH, HEIGHT, tags))
    for name in masks:
        write_mask(Path(f"photos/{name}-mask.png"), rng.integers(0, len(classes) + 1, (HEIGHT, WIDTH), dtype=np.uint8))
    save_manifest(PREPARED, Manifest(tuple(records), tuple(classes)))
    save_ground_truth(PREPARED, {name: f"{name}-mask.png" for name in masks}, None)
    write_json(PREPARED / "notes.json", [f"a note on {NASTY}"])


def train_and_predict() -> None:
    """What the stages between prepare_data and evaluate leave behind."""
    rng, manifest, entries = np.random.default_rng(1), load_manifest(), []
    for record in manifest.records:
        if record.split == "train":
            ids = manifest.class_ids(record)
            maps = tuple(torch.from_numpy(rng.normal(size=(len(ids), *size))) for size in ((3, 4), (6, 9)))
            entries.append(CamEntry(record.id, record.size, tuple(ids), maps, (record.size,) * len(maps)))
        folder = Path("data/masks" if record.split == "train" else "data/segmenter/predictions")
        labels = rng.choice([0, *range(1, len(manifest.classes) + 1), IGNORE], (HEIGHT, WIDTH)).astype(np.uint8)
        write_mask(folder / f"{record.id}.png", labels if record.split == "train" else labels % IGNORE)
    for name in ("seeds", "refined"):
        write_shard(shard_path(Path("data") / name, 0), entries, {})
    for name in ("classifier", "localizer_training", "segmenter_training"):
        save_history(Path("metrics/plots") / name, [{"epoch": 1, "lr": 0.1, "loss": 0.7, "term": 0.2}])
    write_scores(Path("metrics"), "classifier", {"images": 2, "classes_scored": 1, "map": 0.625})


def make(
    classes: Sequence[str] = ("cat", NASTY),
    masks: Sequence[str] = ("t0", "t1&", "t2", "t3", "t4", "v0", "v1"),
    gallery: int = 5,
    bg_thresh: object = 0.3,
) -> str:
    """Run everything on tiny photographs; the page."""
    configure(gallery, bg_thresh)
    prepare(classes, masks)
    train_and_predict()
    for name in ARTEFACTS:
        plots = Path("metrics/plots") / name
        part = load_manifest().split("val" if name == "segmenter" else "train")
        config = stage_config(f"evaluate_{name}", EvaluateConfig)
        write_scores(Path("metrics"), name, evaluate(name, part, config, plots))
    Path("data/rules").mkdir(exist_ok=True)
    evaluate_rules(stage_config("evaluate_rules", EvaluateConfig))
    evaluate_epochs(stage_config("evaluate_localizer", EvaluateConfig))
    report.main()
    page = PAGE.read_text(encoding="utf-8")
    Wellformed().feed(page)
    return page


def text(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page))


class Wellformed(HTMLParser):
    """Every tag is closed in order, and no element or address can load or run anything."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "poster", "data", "action"):
                assert value is not None and value.startswith(("data:image/", "#")), f"{name}={value}"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        assert self.open or tag == "html"


# -------------------------------------------------------------------------------------------------------------- page


def test_page_needs_nothing_but_itself(whole: tuple[str, Path]) -> None:
    page, _ = whole
    assert "http://" not in page and "https://" not in page
    assert "url(" not in page and "@import" not in page
    assert "default-src 'none'" in page
    assert page.count("<img") == page.count('src="data:image/')


def test_text_from_the_data_is_escaped(whole: tuple[str, Path]) -> None:
    page, _ = whole
    assert NASTY not in page and "&lt;b&gt;x&lt;/b&gt;" in page
    assert "a note on &lt;b&gt;x&lt;/b&gt;" in page
    assert "t1&amp;" in page and "t1&<" not in page


def test_second_run_gives_the_same_bytes() -> None:
    make(gallery=1)
    folder = PAGE.parent
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    report.main()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert set(first) == {"index.html", "miou.png", "miou.csv"}


def test_numbers_are_those_of_the_metrics(whole: tuple[str, Path]) -> None:
    page, folder = whole
    seeds = json.loads((folder / "metrics/seeds.json").read_text(encoding="utf-8"))
    for value in (seeds["miou"], seeds["recall"], seeds["oracle"], 0.625):
        assert f"{value:.3f}" in page
    table = pd.read_csv(folder / "metrics/report/miou.csv")
    assert table["artefact"].tolist() == list(ARTEFACTS)
    assert table["split"].tolist() == ["train", "train", "train", "val"]
    assert table["miou"][0] == pytest.approx(seeds["miou"], rel=1e-5)
    assert table["oracle_miou"].isna().tolist() == [False, False, True, True]
    assert "oracle: chosen with masks" in text(page)


def test_several_rules_and_epochs_get_tables_of_their_own(whole: tuple[str, Path]) -> None:
    page, _ = whole
    assert "Propagation rules" not in page and "after every epoch" not in page, "where there is one, no table"
    make(gallery=1)
    for target in ("data/rules/none", "data/rules/adcam:gamma=0", "data/localizer/epochs/online-01"):
        shutil.copytree("data/seeds", target)
    evaluate_rules(stage_config("evaluate_rules", EvaluateConfig))
    evaluate_epochs(stage_config("evaluate_localizer", EvaluateConfig))
    report.main()
    again = PAGE.read_text(encoding="utf-8")
    Wellformed().feed(again)
    assert "adcam:gamma=0" in text(again) and again.count("Propagation rules") == 1
    assert "online: labels without a threshold" in text(again)
    found = json.loads(Path("metrics/details/rules.json").read_text(encoding="utf-8"))["rules"]
    seeds = read_scores(Path("metrics"), "seeds", "")
    assert found["none"]["miou"] == found["adcam:gamma=0"]["miou"] == seeds["miou"]
    assert sorted(pd.read_csv("metrics/plots/rules/rules.csv")["rule"]) == ["adcam:gamma=0", "none"]
    epochs = json.loads(Path("metrics/details/localizer.json").read_text(encoding="utf-8"))["epochs"]
    assert epochs["online"]["labels_miou"] == [seeds["no_threshold"]["miou"]]


def test_terms_of_some_epochs_and_a_picture_of_samplers_go_onto_the_page() -> None:
    make(gallery=0)
    plots = Path("metrics/plots/localizer_training")
    first = {"epoch": 1, "lr": 0.1, "loss": -0.7, "inverse": -0.7}
    save_history(plots, [first, {"epoch": 2, "lr": 0.1, "loss": 0.5, "tags": 0.3}])
    assert (plots / "history.csv").read_text().splitlines()[1:] == ["1,0.1,-0.7,-0.7,", "2,0.1,0.5,,0.3"]
    assert "before and after expansion" not in PAGE.read_text(encoding="utf-8")
    Image.new("RGB", (4, 3)).save(plots / "sampling.png")
    report.main()
    page = PAGE.read_text(encoding="utf-8")
    Wellformed().feed(page)
    assert "data:image/png;base64," in page and "before and after expansion" in page


@given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan"))))
def test_limits_hold_all_values_and_zero(values: list[float]) -> None:
    low, high = pictures._with_zero(values)
    assert low <= 0 <= high and low < high
    assert all(low <= value <= high for value in values if value == value)


def test_without_masks_it_says_so_and_shows_coverage() -> None:
    page = make(masks=())
    words = text(page)
    assert "No masks were given" in words and "A dash under mIoU: no masks were given" in words
    assert '<td class="main">–</td>' in page
    assert (
        "<figcaption>ground truth" not in page
        and "no ground truth" not in words
        and "the share whose mask shows it" in words
    )
    assert "pixel labels chose nothing" in words and "Full points" not in words
    assert pd.read_csv("metrics/report/miou.csv")["miou"].isna().all()


def test_masks_of_one_split_only_and_no_tag_score() -> None:
    make(masks=("t0", "t2"))
    write_scores(Path("metrics"), "classifier", {"images": 2, "classes_scored": 0})
    report.main()
    words = text(PAGE.read_text(encoding="utf-8"))
    assert "has no mean average precision" in words
    assert "2 of 5 training and 0 of 2 validation photographs have one" in words
    assert "A dash under mIoU: no masks were given for that split" in words and "Full points" in words
    assert words.count("no ground truth") == 3 + 2


def test_gallery_of_none_draws_nothing() -> None:
    page = make(gallery=0)
    assert "report.gallery is 0" in page and "image/jpeg" not in page


def test_photograph_without_a_class_has_no_map(whole: tuple[str, Path]) -> None:
    page, _ = whole
    assert "no tag, so no map" in page and "no tag</span>" in page


@pytest.mark.parametrize("rule", ["none", "otsu"])
def test_thresholds_that_are_no_number(rule: str) -> None:
    assert f"background threshold {rule}" in text(make(bg_thresh=rule, gallery=1))


@pytest.mark.parametrize("count", [1, 30])
def test_any_number_of_classes(count: int) -> None:
    names = [f"class {number}" for number in range(count)]
    page = make(classes=names, gallery=2)
    assert all(f"<h3>{name}</h3>" in page for name in names)
    assert f"{count} class" in text(page)


@pytest.mark.parametrize(
    ("missing", "stage"),
    [
        ("masks.json", "evaluate@masks"),
        ("details/masks.json", "evaluate@masks"),
        ("details/rules.json", "evaluate@rules"),
        ("details/classifier.json", "train_classifier"),
    ],
)
def test_missing_input_names_the_stage_to_run(missing: str, stage: str) -> None:
    make(gallery=0)
    before = PAGE.read_bytes()
    (Path("metrics") / missing).unlink()
    with pytest.raises(UserError, match=stage):
        report.main()
    assert PAGE.read_bytes() == before


# ----------------------------------------------------------------------------------------------------------- gallery


def manifest_of(tags: Sequence[set[int]], classes: int) -> Manifest:
    names = [str(number) for number in range(classes)]
    records = [
        Record(str(place), "train", "", 1, 1, tuple(map(str, sorted(found)))) for place, found in enumerate(tags)
    ]
    return Manifest(tuple(records), tuple(names))


@given(st.lists(st.sets(st.integers(0, 4)), max_size=12), st.integers(0, 15))
def test_choice_is_distinct_in_order_and_covers_the_classes(tags: list[set[int]], count: int) -> None:
    picked = [int(record.id) for record in report.chosen(manifest_of(tags, 5), count)]
    assert picked == sorted(set(picked)) and len(picked) == min(count, len(tags))
    if count >= 5:
        assert set().union(*(tags[place] for place in picked)) == set().union(*tags)


def test_choice_is_spread() -> None:
    picked = [int(record.id) for record in report.chosen(manifest_of([{0}] * 101, 1), 5)]
    assert picked == [0, 25, 50, 75, 100]


# ---------------------------------------------------------------------------------------------------------- pictures


def test_overlay_fades_background_colours_classes_and_hatches_ignored() -> None:
    grey = np.full((20, 30, 3), 100, dtype=np.uint8)
    labels = np.zeros((20, 30), dtype=np.uint8)
    labels[:, 10:20], labels[:, 20:] = 1, IGNORE
    picture = pictures.label_overlay(grey, labels)
    assert (picture[:, :9] == 154).all()
    assert (picture[:, 11:19] == np.round(0.35 * 100 + 0.65 * voc_palette()[1].astype(float))).all()
    assert len(np.unique(picture[:, 21:].reshape(-1, 3), axis=0)) == 2
    assert (picture[:, [9, 19]] == 255).all()


def test_thumbnails_are_never_enlarged() -> None:
    assert pictures.thumbnail_size((1000, 2000)) == (120, 240)
    assert pictures.thumbnail_size((30, 40)) == (30, 40)
    assert pictures.thumbnail_size((1, 5000)) == (1, 240)
