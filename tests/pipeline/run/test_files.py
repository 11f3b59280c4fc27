"""Files that no reader sees half of, and paths that stay below their root."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from pipeline.run.errors import UserError, listed
from pipeline.run.files import inside, new_folder, read_json, write_atomic, write_json
from tests.support.processes import forked


def test_json_has_the_same_bytes_for_the_same_content(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": "ü"})
    write_json(tmp_path / "b.json", {"a": "ü", "b": 1})
    assert (
        (tmp_path / "a.json").read_bytes()
        == (tmp_path / "b.json").read_bytes()
        == b'{\n  "a": "\xc3\xbc",\n  "b": 1\n}\n'
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json", "configure") == {"a": "ü", "b": 1}


def test_failed_writing_leaves_the_former_file(tmp_path: Path) -> None:
    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError

    (tmp_path / "file").write_text("former")
    with pytest.raises(RuntimeError):
        write_atomic(tmp_path / "file", fail)
    assert (tmp_path / "file").read_text() == "former" and len(list(tmp_path.iterdir())) == 1


def test_failed_block_leaves_the_former_folder(tmp_path: Path) -> None:
    with new_folder(tmp_path / "folder") as folder:
        (folder / "first").touch()
    with pytest.raises(RuntimeError), new_folder(tmp_path / "folder") as folder:
        (folder / "second").touch()
        raise RuntimeError
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "first"]
    with new_folder(tmp_path / "folder") as folder:
        (folder / "third").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "third"]


def test_what_a_killed_process_left_of_a_folder_is_removed(tmp_path: Path) -> None:
    def die() -> None:
        with new_folder(tmp_path / "folder") as folder:
            (folder / "half").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    assert forked(die).status == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 1
    with new_folder(tmp_path / "other"):
        assert len(list(tmp_path.iterdir())) == 2, "what is left of other folders stays"
    with new_folder(tmp_path / "folder") as folder:
        (folder / "whole").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "other", "whole"]


def test_what_a_living_process_makes_of_a_folder_stays(tmp_path: Path) -> None:
    with new_folder(tmp_path / "folder") as first:
        (first / "first").touch()
        ended = forked(lambda: enter_and_leave(tmp_path / "folder"))
        assert ended.status == 0 and (first / "first").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "first"]


def test_a_folder_is_made_where_folders_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EBADF, "as NFS does")

    monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / ".folder.x.unfinished").mkdir()
    enter_and_leave(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".folder.x.unfinished", "folder"], "perhaps in use"


def enter_and_leave(path: Path) -> None:
    with new_folder(path) as folder:
        (folder / "second").touch()


@pytest.mark.parametrize("text", ["{", "\xff"])
def test_missing_and_damaged_json_name_the_stage(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="dvc repro extract_cams"):
        read_json(tmp_path / "a.json", "extract_cams")
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"is damaged .* `dvc repro --force extract_cams`"):
        read_json(tmp_path / "a.json", "extract_cams")


@pytest.mark.parametrize("path", ["../x", "/etc/hostname", "a/../../x", "link", "\0"])
def test_paths_stay_below_their_root(tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    assert inside(tmp_path, "a/b") == tmp_path / "a/b"
    with pytest.raises(UserError):
        inside(tmp_path, path)


@pytest.mark.parametrize("config", ["", "[cache]\n    dir = ../elsewhere\n"])
def test_links_that_dvc_made_may_lead_into_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomic(Path(".dvc/config"), lambda path: path.write_text(config))
    cached = (tmp_path / ("elsewhere" if config else ".dvc/cache")) / "files/md5/ab/cd"
    write_atomic(cached, lambda path: path.write_text("x"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").symlink_to(cached)
    (tmp_path / "photos/b.png").symlink_to(tmp_path / ".dvc/config")
    assert inside(Path("photos"), "a.png").read_text() == "x"
    for name in ("b.png", f"../{cached.relative_to(tmp_path)}"):
        with pytest.raises(UserError, match="leads out of photos"):
            inside(Path("photos"), name)


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b"]) == "  - a\n  - b"
    assert listed(["a", "b", "c"], limit=1) == "  - a\n  ... and 2 more"


@pytest.mark.parametrize("content", [{}, [], None, {"masks": 1}])
def test_json_without_what_it_must_have_is_damaged(tmp_path: Path, content: object) -> None:
    write_json(tmp_path / "a.json", content)
    with pytest.raises(
        UserError, match=r"a\.json is damaged \((masks|tune) is missing\); run `dvc repro --force prepare_data`"
    ):
        read_json(tmp_path / "a.json", "prepare_data", ("masks", "tune"))
