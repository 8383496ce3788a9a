"""What a look at a repository finds, and what it says of files that it doesn't find."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from server.errors import ModelFileError
from server.model_files import Look, ModelFile, look_at

from . import graphs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, version in (("colors", 1), ("colors", 2), ("other", 1)):
        graphs.put(tmp_path / "models", name, version, b"")
    return tmp_path / "models"


def kept(before: Look, name: str, version: int) -> str:
    """Look again, and say why a file that isn't found stays; nothing if it was removed."""
    file = next(f for f in before.files if (f.name, f.version) == (name, version))
    look = look_at(before.root)
    assert file not in look.files
    return look.kept_by(file, before.homes())


def unreadable(monkeypatch: pytest.MonkeyPatch, path: Path, error: int) -> None:
    """Let a path fail to be read, as a disk or a server of files does; root has no other way."""

    def failing(method: Callable[..., object]) -> Callable[..., object]:
        def call(self: Path, *args: object, **options: object) -> object:
            if self == path or path in self.parents:
                raise OSError(error, "broken")
            return method(self, *args, **options)

        return call

    for name in ("stat", "iterdir"):
        monkeypatch.setattr(Path, name, failing(getattr(Path, name)))


def test_a_file_without_its_name_in_a_folder_that_can_be_read_was_removed(root: Path) -> None:
    before = look_at(root)
    (root / "colors" / "2" / "model.onnx").unlink()
    assert kept(before, "colors", 2) == ""


@pytest.mark.parametrize("gone", ["colors/2", "colors"])
def test_a_folder_without_its_name_above_it_was_removed(root: Path, gone: str) -> None:
    before = look_at(root)
    (root / gone).rename(root.parent / "elsewhere")
    assert kept(before, "colors", 2) == ""


def test_the_last_files_may_be_removed_too(root: Path) -> None:
    before = look_at(root)
    for name in ("colors", "other"):
        (root / name).rename(root.parent / name)
    assert kept(before, "colors", 2) == kept(before, "other", 1) == ""


@pytest.mark.parametrize("at", [".", "colors", "colors/2"])
def test_an_empty_folder_in_the_place_of_another_removes_nothing(root: Path, at: str) -> None:
    """As the folder that a file system was mounted on shows when it is gone."""
    before = look_at(root)
    (root / at).rename(root.parent / "elsewhere")
    (root / at).mkdir()
    assert "is another folder than before, and holds no models" in kept(before, "colors", 2)


def test_a_folder_with_models_in_the_place_of_another_removes_what_it_lacks(root: Path) -> None:
    before = look_at(root)
    (root / "colors").rename(root.parent / "elsewhere")
    graphs.put(root, "colors", 3, b"")
    assert kept(before, "colors", 2) == ""


@pytest.mark.parametrize("at", ["colors", "colors/2", "colors/2/model.onnx"])
@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_what_cannot_be_read_removes_nothing(
    root: Path, at: str, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = look_at(root)
    unreadable(monkeypatch, root / at, error)
    assert kept(before, "colors", 2).endswith("can't be read (broken)")
    assert [str(file) for file in look_at(root).files if file.name == "other"] == ["other/1"]


def test_a_link_whose_target_is_gone_removes_nothing(root: Path) -> None:
    (root / "other").rename(root.parent / "elsewhere")
    (root / "other").symlink_to(root.parent / "elsewhere")
    before = look_at(root)
    assert ModelFile("other", 1, root / "other" / "1" / "model.onnx") in before.files
    (root.parent / "elsewhere").rename(root.parent / "gone")
    assert "a link that leads nowhere" in kept(before, "other", 1)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO])
def test_a_repository_that_cannot_be_read_is_an_error(
    root: Path, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable(monkeypatch, root, error)
    with pytest.raises(ModelFileError, match=rf"{root} can't be read \(broken\)"):
        look_at(root)
