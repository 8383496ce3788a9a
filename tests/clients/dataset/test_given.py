"""Folders, patterns, lists and files of pictures."""

from pathlib import Path

import pytest
from visavis.dataset.given import are_many, given_pictures
from visavis.errors import InvalidData


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a/1.jpg", "a/2.png", "a/deep/3.jpg", "b/4.jpg", "b/notes.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return tmp_path


def names(given: list[str]) -> tuple[Path, list[str]]:
    folder, pictures = given_pictures(given)
    return folder, [path.relative_to(folder).as_posix() for path in pictures]


def test_a_folder_stands_for_its_pictures(photos: Path) -> None:
    folder, found = names([str(photos)])
    assert (folder, found) == (photos, ["a/1.jpg", "a/2.png", "a/deep/3.jpg", "b/4.jpg"])


def test_a_pattern_stands_for_the_pictures_that_match(photos: Path) -> None:
    assert names([f"{photos}/a/**/*.jpg"]) == (photos / "a", ["1.jpg", "deep/3.jpg"])
    assert names([f"{photos}/?/[14].*"]) == (photos, ["a/1.jpg", "b/4.jpg"])
    with pytest.raises(InvalidData, match=r"no JPEG, PNG or WebP picture matches '.*txt'"):
        given_pictures([f"{photos}/b/*.txt"])


def test_a_list_names_pictures_relative_to_itself(photos: Path) -> None:
    listed = photos / "b" / "listed.txt"
    listed.write_text(f"\ufeff../a/1.jpg\n\n./4.jpg\n{photos}/a/2.png\n", encoding="utf-8")
    folder, pictures = given_pictures([str(listed)])
    assert [path.resolve().relative_to(photos).as_posix() for path in pictures] == [
        "a/1.jpg",
        "b/4.jpg",
        "a/2.png",
    ]
    assert folder == photos


def test_a_wrong_line_of_a_list_is_refused_by_its_number(photos: Path) -> None:
    listed = photos / "listed.txt"
    listed.write_text("a/1.jpg\na/none.jpg\n")
    with pytest.raises(InvalidData, match=r"listed.txt, line 2: a/none.jpg is not a file"):
        given_pictures([str(listed)])
    listed.write_text("\n")
    with pytest.raises(InvalidData, match="lists no picture"):
        given_pictures([str(listed)])


def test_a_picture_that_is_given_twice_counts_once(photos: Path) -> None:
    given = [f"{photos}/a/1.jpg", f"{photos}/a", f"{photos}/*/*.jpg"]
    assert names(given) == (photos, ["a/1.jpg", "a/2.png", "a/deep/3.jpg", "b/4.jpg"])


def test_a_name_that_stands_for_nothing_is_refused(photos: Path) -> None:
    with pytest.raises(InvalidData, match=r"none\.jpg does not exist"):
        given_pictures([f"{photos}/a/1.jpg", f"{photos}/none.jpg"])
    (photos / "empty").mkdir()
    with pytest.raises(InvalidData, match="has no JPEG, PNG or WebP picture"):
        given_pictures([f"{photos}/empty", f"{photos}/a"])


def test_a_file_whose_name_has_brackets_is_that_file(photos: Path) -> None:
    (photos / "a" / "[x].jpg").write_bytes(b"")
    assert names([f"{photos}/a/[x].jpg"]) == (photos / "a", ["[x].jpg"])
    assert not are_many(f"{photos}/a/[x].jpg")


def test_folders_patterns_and_lists_are_many(photos: Path) -> None:
    many = [str(photos), f"{photos}/*.jpg", f"{photos}/b/notes.txt"]
    assert all(map(are_many, many))
    assert not any(map(are_many, ["-", f"{photos}/a/1.jpg", f"{photos}/none.jpg"]))
