"""The archive for the evaluation server of VOC: its names, its bytes, and what cannot be submitted."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.manifest import PREPARED, Manifest, Record, save_manifest
from pipeline.data.masks import write_mask
from pipeline.data.sources.voc2012 import CLASSES
from pipeline.run.errors import UserError
from tools import voc_archive

IDS = ("2008_000006", "2008_000011")
TEST = Manifest(tuple(Record(name, "test", f"JPEGImages/{name}.jpg", 6, 4, ()) for name in IDS), CLASSES)


@pytest.fixture(autouse=True)
def predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prediction for each test photograph."""
    monkeypatch.chdir(tmp_path)
    save_manifest(PREPARED, Manifest((), CLASSES), TEST.records)
    for number, name in enumerate(IDS):
        write_mask(voc_archive.TEST_OUTPUT / f"{name}.png", np.full((4, 6), 20 * number, np.uint8))
    return tmp_path / voc_archive.TEST_OUTPUT


def write(name: str = "results.tgz", test: Manifest = TEST) -> bytes:
    voc_archive.write_archive(Path(name), test, voc_archive.TEST_OUTPUT)
    return Path(name).read_bytes()


def test_the_archive_is_what_the_server_asks_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], predictions: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["voc_archive", "results.tgz"])
    voc_archive.main()
    assert "results.tgz: 2 predictions, loaded back and checked" in capsys.readouterr().out
    with tarfile.open("results.tgz") as tar:
        assert tar.getnames() == [f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png" for name in IDS]
        for name, member in zip(IDS, tar, strict=True):
            file = tar.extractfile(member)
            assert file is not None and file.read() == (predictions / f"{name}.png").read_bytes()
    assert Path("results.tgz").read_bytes() == write("again.tgz")


def refused(test: Manifest = TEST) -> str:
    with pytest.raises(UserError) as caught:
        write(test=test)
    assert not Path("results.tgz").exists()
    return str(caught.value)


def test_what_cannot_be_submitted_leaves_no_archive(predictions: Path) -> None:
    assert "set data.voc2012.test to true" in refused(Manifest((), CLASSES))
    assert "set data.classes to all" in refused(Manifest(TEST.records, CLASSES[:3]))
    path = predictions / f"{IDS[1]}.png"
    write_mask(path, np.full((4, 6), 255, np.uint8))
    assert f"{IDS[1]}.png: label 255, but VOC's labels are 0 to 20" in refused()
    write_mask(path, np.zeros((6, 4), np.uint8))
    assert "mask of 4x6 for a photograph of 6x4" in refused()
    path.write_bytes(path.read_bytes()[:-30])
    assert f"{IDS[1]}.png" in refused()
    path.unlink()
    assert f"{IDS[1]}.png: prediction cannot be read" in refused()
    assert not list(Path().glob(".results*"))


def test_another_archive_is_found_out() -> None:
    write()
    other = Manifest((*TEST.records, Record("2008_000012", "test", "a.jpg", 6, 4, ())), CLASSES)
    with pytest.raises(UserError, match="holds other files than the 3 test photographs"):
        voc_archive.check_archive(Path("results.tgz"), other)
