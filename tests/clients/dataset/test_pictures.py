"""Which files of people's folders are pictures."""

from itertools import pairwise
from pathlib import Path

import pytest
from visavis.dataset import chosen_pictures, find_pictures
from visavis.errors import InvalidData


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_pictures_of_all_folders_are_found_in_order(tmp_path: Path) -> None:
    expected = [touch(tmp_path / name) for name in ("a.JPG", "b/c.jpeg", "b/d/e.png", "f.webp")]
    touch(tmp_path / "labels.csv")
    assert find_pictures(tmp_path) == expected


def test_files_of_file_managers_are_skipped(tmp_path: Path) -> None:
    wanted = touch(tmp_path / "p1.jpg")
    for name in (
        "._p1.jpg",
        ".Trash/p2.jpg",
        "@eaDir/p1.jpg/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/p1.jpg",
        "$RECYCLE.BIN/p3.jpg",
        ".thumbnails/p1.png",
        "Thumbs.db",
    ):
        touch(tmp_path / name)
    assert find_pictures(tmp_path) == [wanted]


def test_files_are_kept_and_folders_are_replaced_by_their_pictures(tmp_path: Path) -> None:
    inside = touch(tmp_path / "more" / "b.jpg")
    odd, missing = touch(tmp_path / "odd.txt"), tmp_path / "missing.jpg"
    assert chosen_pictures([odd, tmp_path / "more", missing]) == [odd, inside, missing]


def test_a_folder_of_other_formats_is_rejected_with_their_counts(tmp_path: Path) -> None:
    for name in ("1.HEIC", "2.heic", "a.tif", "notes.txt"):
        touch(tmp_path / name)
    with pytest.raises(InvalidData, match=r"WebP picture, but 2 \.heic, 1 \.tif; convert them"):
        chosen_pictures([tmp_path])


def test_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "closed" / "a.jpg")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InvalidData, match=r"can't read the folder .*closed: Permission denied"):
        find_pictures(tmp_path / "closed")


def test_a_folder_named_like_a_picture_is_searched(tmp_path: Path) -> None:
    inside = touch(tmp_path / "street.jpg" / "a.png")
    assert find_pictures(tmp_path) == [inside]


def test_links_are_followed_and_cycles_end(tmp_path: Path) -> None:
    touch(tmp_path / "store" / "1.jpg")
    given = tmp_path / "given"
    given.mkdir()
    (given / "folder").symlink_to(tmp_path / "store")
    (given / "again").symlink_to(tmp_path / "store")
    (given / "file.jpg").symlink_to(tmp_path / "store" / "1.jpg")
    (given / "dangling.jpg").symlink_to(tmp_path / "nothing.jpg")
    (tmp_path / "store" / "up").symlink_to(given)
    found = [path.relative_to(given).as_posix() for path in find_pictures(given)]
    assert [path for path in found if "up" not in path] == [
        "again/1.jpg",
        "file.jpg",
        "folder/1.jpg",
    ]
    assert len(found) < 20


def test_links_that_multiply_come_to_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two links in each of 30 folders: 2^30 ways to the last one."""
    monkeypatch.setattr("visavis.dataset.pictures._MOST_FOLDERS", 500)
    folders = [tmp_path / f"{number:02}" for number in range(31)]
    for folder in folders:
        folder.mkdir()
    for folder, below in pairwise(folders):
        for name in ("a", "b"):
            (folder / name).symlink_to(below)
    touch(folders[-1] / "1.jpg")
    with pytest.raises(InvalidData, match=r"more than 500 folders, .*fewer links"):
        find_pictures(folders[0])


def test_a_folder_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    folder = Path(tmp_path, *["d"] * 500)
    folder.mkdir(parents=True)
    with pytest.raises(InvalidData, match="more than 100 levels deep"):
        find_pictures(tmp_path)
