"""The report is one safe, self-contained page with the same bytes every time, with and without masks."""

import json
import re
import shutil
from collections.abc import Sequence
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from models.labels import IGNORE
from pipeline import choose_background
from pipeline.data.manifest import PREPARED, Manifest, load_manifest, save_ground_truth
from pipeline.data.masks import write_mask
from pipeline.evaluate import EvaluateConfig, evaluate, evaluate_epochs, evaluate_rules
from pipeline.maps.store import CamEntry, shard_path, write_shard
from pipeline.report import __main__ as report
from pipeline.run.errors import UserError
from pipeline.run.files import write_json
from pipeline.run.told import told
from pipeline.scoring import charts
from pipeline.scoring.artefacts import ARTEFACTS
from pipeline.scoring.charts import save_history
from pipeline.scoring.records import read_scores, write_scores
from tests.support import project
from tests.support.project import PHOTOGRAPHS, configure, write_masks, write_photographs
from tests.support.stages import run_light

HEIGHT, WIDTH = 12, 18
NASTY = "<b>x</b>"
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


def prepare(classes: Sequence[str], masks: Sequence[int], tune: Sequence[int] = ()) -> None:
    """Five train and two val photographs, the last of train without a tag; masks and tune marks for those numbered."""
    tags = [classes[number % 2 :: 2] for number in (0, 1, 2, 3)] + [(), classes[0::2], classes[1::2]]
    manifest = write_photographs(Path(), tags, [(HEIGHT, WIDTH)], classes=classes, val=2, ids="p{}&")
    rng = np.random.default_rng(0)
    masked = Manifest(tuple(manifest.records[number] for number in masks), manifest.classes)
    apart = [manifest.records[number].id for number in tune]
    write_masks(Path(), masked, lambda *_: rng.integers(0, len(classes) + 1, (HEIGHT, WIDTH), dtype=np.uint8), apart)
    write_json(PREPARED / "notes.json", [f"a note on {NASTY}"])


def train_and_predict() -> None:
    """What the stages between prepare_data and evaluate leave behind."""
    rng, manifest, entries = np.random.default_rng(1), load_manifest(), []
    for record in manifest.records:
        if record.split == "train":
            ids = manifest.class_ids(record)
            maps = tuple(torch.from_numpy(rng.normal(size=(len(ids), *size))) for size in ((3, 4), (6, 9)))
            entries.append(CamEntry(record.id, record.size, tuple(ids), maps, (record.size,) * len(maps)))
        folder = Path("data/masks" if record.split == "train" else "data/predictions")
        labels = rng.choice([0, *range(1, len(manifest.classes) + 1), IGNORE], (HEIGHT, WIDTH)).astype(np.uint8)
        write_mask(folder / f"{record.id}.png", labels if record.split == "train" else labels % IGNORE)
    for name in ("seeds", "refined"):
        write_shard(shard_path(Path("data") / name, 0), entries, {})
    for name in ("classifier", "localizer_training", "segmenter_training"):
        save_history(Path("metrics/plots") / name, [{"epoch": 1, "lr": 0.1, "loss": 0.7, "term": 0.2}])
    write_scores(Path("metrics"), "classifier", {"images": 2, "classes_scored": 1, "map": 0.625})


def make(
    classes: Sequence[str] = ("cat", NASTY),
    masks: Sequence[int] = range(7),
    gallery: int = 5,
    bg_thresh: object = 0.3,
    tune: Sequence[int] = (),
    **knobs: Any,
) -> str:
    """Run everything on tiny photographs; the page."""
    prepare(classes, masks, tune)
    configure(bg_thresh=bg_thresh, report__gallery=gallery, data__name="folder", data__root=PHOTOGRAPHS, **knobs)
    train_and_predict()
    Path("data/rules").mkdir(exist_ok=True)
    run_light(choose_background)
    for name in ARTEFACTS:
        plots = Path("metrics/plots") / name
        part = load_manifest().split("val" if name == "segmenter" else "train")
        scores = evaluate(name, part, told(f"evaluate_{name}", EvaluateConfig), Path(PHOTOGRAPHS), plots)
        write_scores(Path("metrics"), name, scores)
    score_rules_and_epochs()
    return reported()


def score_rules_and_epochs() -> None:
    evaluate_rules(told("evaluate_rules", EvaluateConfig), Path(PHOTOGRAPHS))
    evaluate_epochs(told("evaluate_localizer", EvaluateConfig), Path(PHOTOGRAPHS))


def reported() -> str:
    """The page of what lies in the current folder."""
    run_light(report)
    page = PAGE.read_text(encoding="utf-8")
    Wellformed().feed(page)
    return page


@pytest.fixture
def again(whole: tuple[str, Path], tmp_path: Path) -> Path:
    """The current folder holds all that the page with everything was made of, and that page."""
    return Path(shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True))


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


def test_page_needs_nothing_but_itself(whole: tuple[str, Path]) -> None:
    page, _ = whole
    assert "Pixel labels were used" not in page and "<figcaption>pseudo mask" in page
    assert "http://" not in page and "https://" not in page
    assert "url(" not in page and "@import" not in page
    assert "default-src 'none'" in page
    assert page.count("<img") == page.count('src="data:image/')


def test_text_from_the_data_is_escaped(whole: tuple[str, Path]) -> None:
    page, _ = whole
    assert NASTY not in page and "&lt;b&gt;x&lt;/b&gt;" in page
    assert "a note on &lt;b&gt;x&lt;/b&gt;" in page
    assert "p1&amp;" in page and "p1&<" not in page


@pytest.mark.usefixtures("again")
def test_second_run_gives_the_same_bytes() -> None:
    folder = PAGE.parent
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    run_light(report)
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


def test_outlines_sizes_calibration_and_masks_by_threshold_are_shown(whole: tuple[str, Path]) -> None:
    page, folder = whole
    masks = read_scores(folder / "metrics", "masks", "")
    (words, group) = (text(page), masks["by_size"]["large"])
    assert f"{masks['boundary_miou']:.3f}" in words
    assert f"{group['foreground_miou']:.3f} ({group['pairs']})" in words
    assert "below 5%" in words and "above 20%" in words
    assert "Calibration of the maps" in words and "each threshold through the CRF" in words
    assert "tuned on other photographs" not in words, "no photograph is one to choose on"
    assert "found it without" not in words and "merit" not in words, "a number was given"


def test_tuned_numbers_stand_beside_the_oracle() -> None:
    words = text(make(tune=(1, 2)))
    chosen = read_scores(Path("metrics"), "seeds", "")["tune"]
    assert "tuned on other photographs" in words and "those reported chose nothing" in words
    assert f"{chosen['at_tuned']:.3f} {chosen['threshold']:g} " in words


def test_threshold_that_a_rule_found_is_said_and_its_merit_shown() -> None:
    make(bg_thresh="colours")
    Image.new("RGB", (4, 3)).save("metrics/plots/background/merit.png")
    page = reported()
    words, used = text(page), read_scores(Path("metrics"), "seeds", "")["protocol"]["bg_thresh_used"]
    assert f"The rule colours found it without a look at any mask: {used:.3f} for seeds, " in words
    assert f"colours: {used:.3f}" in words, "in the table"
    assert "the highest merit wins" in words and "data:image/png;base64," in page


def test_full_supervision_is_said_at_the_top() -> None:
    page = make(method="supervised", data__folder__masks=".")
    words = text(page)
    assert "Pixel labels were used. The segmenter learned from the ground-truth masks" in words
    assert "Training saw image tags alone" not in words and "full supervision" in words
    assert "<figcaption>true mask" in page and "<figcaption>pseudo mask" not in page
    assert "each threshold through the CRF" not in words, "no mask is made by a threshold"


@pytest.mark.usefixtures("again")
def test_several_rules_and_epochs_get_tables_of_their_own(whole: tuple[str, Path]) -> None:
    page, _ = whole
    assert "Propagation rules" not in page and "after every epoch" not in page, "where there is one, no table"
    for target in ("data/rules/none", "data/rules/adcam:gamma=0", "data/localizer/epochs/online-01"):
        shutil.copytree("data/seeds", target)
    score_rules_and_epochs()
    page = reported()
    assert "adcam:gamma=0" in text(page) and page.count("Propagation rules") == 1
    assert "online: labels without a threshold" in text(page)
    found = json.loads(Path("metrics/details/rules.json").read_text(encoding="utf-8"))["rules"]
    seeds = read_scores(Path("metrics"), "seeds", "")
    assert found["none"]["miou"] == found["adcam:gamma=0"]["miou"] == seeds["miou"]
    assert sorted(pd.read_csv("metrics/plots/rules/rules.csv")["rule"]) == ["adcam:gamma=0", "none"]
    epochs = json.loads(Path("metrics/details/localizer.json").read_text(encoding="utf-8"))["epochs"]
    assert epochs["online"]["labels_miou"] == [seeds["no_threshold"]["miou"]]


@pytest.mark.usefixtures("again")
def test_terms_of_some_epochs_and_a_picture_of_samplers_go_onto_the_page() -> None:
    plots = Path("metrics/plots/localizer_training")
    first = {"epoch": 1, "lr": 0.1, "loss": -0.7, "inverse": -0.7}
    save_history(plots, [first, {"epoch": 2, "lr": 0.1, "loss": 0.5, "tags": 0.3}])
    assert (plots / "history.csv").read_text().splitlines()[1:] == ["1,0.1,-0.7,-0.7,", "2,0.1,0.5,,0.3"]
    assert "before and after expansion" not in PAGE.read_text(encoding="utf-8")
    Image.new("RGB", (4, 3)).save(plots / "sampling.png")
    page = reported()
    assert "data:image/png;base64," in page and "before and after expansion" in page


def test_without_masks_it_says_so_and_shows_coverage() -> None:
    page = make(masks=())
    words = text(page)
    assert "No mask of a photograph that numbers may be of was given" in words and "A dash under mIoU" in words
    assert '<td class="main">–</td>' in page
    assert (
        "<figcaption>ground truth" not in page
        and "no ground truth" not in words
        and "the share whose mask shows it" in words
    )
    assert "Full points" not in words
    assert pd.read_csv("metrics/report/miou.csv")["miou"].isna().all()


def test_masks_of_one_split_only_and_no_tag_score() -> None:
    make(masks=(0, 2))
    write_scores(Path("metrics"), "classifier", {"images": 2, "classes_scored": 0})
    words = text(reported())
    assert "has no mean average precision" in words
    assert "2 of 5 training and 0 of 2 validation photographs have one" in words
    assert "A dash under mIoU: no photograph of that split" in words and "Full points" in words
    assert words.count("no ground truth") == 3 + 2


def test_the_most_doubtful_masks_are_shown(whole: tuple[str, Path]) -> None:
    page, folder = whole
    first = (folder / "metrics/plots/masks/check_first.csv").read_text(encoding="utf-8").splitlines()[1].split(",")[0]
    part = page.partition("Masks to check first")[2].partition("Training photographs: from tags")[0]
    assert part.index(first.replace("&", "&amp;")) < 200 and part.count('class="photo"') == 2


def test_what_went_wrong_is_said_first() -> None:
    make()
    details = Path("metrics/details/masks.json")
    write_json(details, json.loads(details.read_text(encoding="utf-8")) | {"warnings": [f"all is {NASTY}"]})
    page = reported()
    assert page.index("What went wrong.") < page.index("About the data.")
    assert "<li>all is &lt;b&gt;x&lt;/b&gt;</li>" in page


def test_no_background_is_said_and_no_threshold_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "save_ground_truth", partial(save_ground_truth, background=False))
    page = make(data__background=False)
    assert "no background: every pixel belongs to a class" in page and "oracle: chosen" in page
    assert "Every pixel\nbelongs to a class, so there is no threshold" in page and "background</h3>" not in page


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
@pytest.mark.usefixtures("again")
def test_missing_input_names_the_stage_to_run(missing: str, stage: str) -> None:
    before = PAGE.read_bytes()
    (Path("metrics") / missing).unlink()
    with pytest.raises(UserError, match=stage):
        run_light(report)
    assert PAGE.read_bytes() == before
