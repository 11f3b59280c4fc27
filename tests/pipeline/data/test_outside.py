"""Folders of other tools' files: their hash, the files of a photograph, what is said of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.config.load import resolve
from pipeline.configure import check_folders
from pipeline.data.outside import ARRAYS, PNG, folder_hash, listing_hash, outside_file, outside_files, stated
from pipeline.run.errors import UserError
from tests.support.knobs import shipped

CHANGES = {
    "another name": lambda folder: (folder / "a.png").rename(folder / "b.png"),
    "another content": lambda folder: (folder / "a.png").write_bytes(b"other"),
    "one more": lambda folder: (folder / "c.npz").write_bytes(b""),
    "one less": lambda folder: (folder / "b.npy").unlink(),
    "another numbering": lambda folder: (folder / "classes.txt").write_text("cat"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"picture")
    (tmp_path / "b.npy").write_bytes(b"array")
    return tmp_path


@pytest.mark.parametrize("change", CHANGES)
def test_the_hash_is_of_names_and_contents_of_all_that_is_read(folder: Path, change: str) -> None:
    files = outside_files(str(folder))
    (folder / "notes.md").write_text("not read")
    files.check_unchanged("masks.folder")
    CHANGES[change](folder)
    assert folder_hash(folder) != files.sha256
    with pytest.raises(UserError, match=rf"masks\.folder = {folder}: the files have changed since `configure`"):
        files.check_unchanged("masks.folder")


def test_a_photograph_has_the_first_file_that_is_there(folder: Path) -> None:
    assert outside_file(folder, "b", ARRAYS) == folder / "b.npy" and outside_file(folder, "b", PNG) is None
    with pytest.raises(UserError, match="leads out of"):
        outside_file(folder, "../b", ARRAYS)


def test_details_name_the_folder_and_no_place_of_the_machine(folder: Path) -> None:
    files = outside_files(f"{folder}/")
    assert stated(files) == f"{folder.name}, {files.sha256[:12]}"


@pytest.mark.parametrize(
    ("knob", "given", "files"),
    [
        ("data.saliency", {"data__saliency": "here"}, "<id>.png"),
        ("cams.folder", {"cams__source": "import", "cams__folder": "here"}, "<id>.npy or <id>.npz"),
        ("masks.folder", {"masks__source": "import", "masks__folder": "here"}, "<id>.png"),
        ("masks.segments", {"masks__segments": "here"}, "<id>.png"),
    ],
)
def test_a_folder_without_files_stops_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knob: str, given: dict[str, str], files: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"{knob} = here: no such folder, or no such file in it; .* {files}"):
        check_folders(resolve(shipped(**given)))
    Path("here").mkdir()
    (Path("here") / f"a{files.partition('<id>')[2][:4]}").write_bytes(b"")
    check_folders(resolve(shipped(**given)))


def test_the_listing_changes_with_names_sizes_and_times_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "photographs"
    (root / "deep").mkdir(parents=True)
    path = root / "deep/a.jpg"
    path.write_bytes(b"one")
    first = listing_hash([root])
    assert listing_hash([root]) == first
    os.utime(path, ns=(1, 1))
    second = listing_hash([root])
    path.write_bytes(b"four")
    os.utime(path, ns=(1, 1))
    third = listing_hash([root])
    path.rename(root / "deep/b.jpg")
    assert len({first, second, third, listing_hash([root])}) == 4
    before = listing_hash([root])
    (root / "work").mkdir()
    monkeypatch.chdir(root / "work")
    Path("params.yaml").write_text("method: cam")
    assert listing_hash([root]) == before, "the project itself may lie there"
    (root / "nowhere").symlink_to(root / "lost")
    assert listing_hash([root]) == before, "a link to nothing"
