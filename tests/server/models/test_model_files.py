"""What a look at a repository finds, and what it says of files that it doesn't find."""

import errno
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis_server.errors import ModelFileError
from visavis_server.models.model_files import Look, ModelFile, look_at

from .. import graphs


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
    assert "has been replaced by a folder without models" in kept(before, "colors", 2)


def test_a_replaced_folder_with_models_removes_the_missing_ones(root: Path) -> None:
    before = look_at(root)
    (root / "colors").rename(root.parent / "elsewhere")
    graphs.put(root, "colors", 3, b"")
    assert kept(before, "colors", 2) == ""


@pytest.mark.parametrize("at", ["colors", "colors/2", "colors/2/model.onnx"])
@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_an_unreadable_path_removes_nothing(
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
    assert "a broken link" in kept(before, "other", 1)


NAME_RULE = "a model's name starts with a letter or digit and has at most 128 of A-Z a-z 0-9"


@pytest.mark.parametrize(
    ("path", "named", "why"),
    [
        ("zero/01/model.onnx", "zero/01", "a version has no leading zeros; rename it to 1"),
        ("zero/00/model.onnx", "zero/00", "versions start at 1; rename it"),
        (
            "late/1718000000000/model.onnx",
            "late/1718000000000",
            "the largest version is 2147483647; rename it",
        ),
        ("v/v1/model.onnx", "v/v1", "is named 1, 2 or another whole number; rename it"),
        ("v/٣/model.onnx", "v/٣", "is named 1, 2 or another whole number; rename it"),
        ("two words/1/model.onnx", "two words", NAME_RULE),
        ("modèle/1/model.onnx", "modèle", NAME_RULE),
        ("-flag/1/model.onnx", "-flag", NAME_RULE),
        ("n" * 129 + "/1/model.onnx", "n" * 129, NAME_RULE),
        ("flat/model.onnx", "flat/model.onnx", "served from flat/1/model.onnx only; move it there"),
        ("yolov5n.onnx", "yolov5n.onnx", "served from yolov5n/1/model.onnx only; move it there"),
        ("my model.ONNX", "my model.ONNX", "served from <name>/1/model.onnx only; move it there"),
        ("yolo/1/best.onnx", "yolo/1", "it holds no model.onnx; it holds best.onnx"),
        ("caps/1/MODEL.ONNX", "caps/1", "it holds no model.onnx; it holds MODEL.ONNX"),
        (
            "colors/1/best.onnx",
            "colors/1/best.onnx",
            "only model.onnx of a version's folder is served; give it",
        ),
        ("deep/1/onnx/model.onnx", "deep/1", "it holds no model.onnx"),
        ("file/1", "file/1", "it is not a folder; the model file belongs at 1/model.onnx"),
        ("readme/notes.txt", "readme", "it holds no version; the model file belongs at readme/1/"),
    ],
)
def test_a_misplaced_model_is_reported_with_the_reason(
    root: Path, path: str, named: str, why: str
) -> None:
    before = look_at(root)
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).touch()
    look = look_at(root)
    assert look.files == before.files
    (said,) = look.not_served()
    assert said.startswith(f"{root / named}: ") and why in said


NAMES = ("cats", "two words", "1", "01", "x.onnx", ".git")
VERSIONS = ("1", "01", "v1", "1718000000", "model.onnx", "x.ONNX", ".x")
FILES = ("model.onnx", "best.onnx", "MODEL.ONNX", "notes.txt", ".model.onnx")
PATHS = st.tuples(st.sampled_from(NAMES), st.sampled_from(VERSIONS), st.sampled_from(FILES))


@given(st.lists(st.builds(lambda path, depth: path[:depth], PATHS, st.integers(1, 3)), max_size=8))
def test_no_model_is_passed_over_in_silence(paths: list[tuple[str, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for path in (root.joinpath(*parts) for parts in paths):
            if not (path.exists() or any(above.is_file() for above in path.parents)):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        look = look_at(root)
        served = {file.path for file in look.files}
        named = {Path(said.partition(": ")[0]) for said in look.not_served()}
        for path in root.rglob("*"):
            hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
            if path.suffix.lower() == ".onnx" and path.is_file() and not hidden:
                assert (path in served) != bool(named & {path, *path.parents})
        assert all(path.exists() for path in named)


@pytest.mark.parametrize("at", ["dangling", "dangling model", "x/1", "x/01", "x/1/model.onnx"])
def test_a_link_that_leads_nowhere_is_named(root: Path, at: str) -> None:
    (root / at).parent.mkdir(parents=True, exist_ok=True)
    (root / at).symlink_to("nowhere")
    assert look_at(root).not_served() == [f"{root / at}: can't be read: a broken link"]


@pytest.mark.parametrize("at", ["empty", "empty/1"])
def test_an_empty_folder_is_named(root: Path, at: str) -> None:
    (root / at).mkdir(parents=True)
    (said,) = look_at(root).not_served()
    assert said.startswith(f"{root / at}: it holds no ")


def test_other_files_are_ignored(root: Path) -> None:
    for path in (
        "README.md",
        "visavis.toml",
        ".git/config",
        ".DS_Store",
        "._colors",
        "lost+found/#1",
        "@eaDir/colors/x",
        "colors/config.pbtxt",
        "colors/.cache/x",
        "colors/1/labels.txt",
        "colors/3/model.onnx.part",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    assert look_at(root).not_served() == []


def test_seconds_since_1970_are_a_version(root: Path) -> None:
    graphs.put(root, "colors", 1718000000, b"")
    graphs.put(root, "colors", 2147483647, b"")
    versions = [file.version for file in look_at(root).files if file.name == "colors"]
    assert versions == [1, 2, 1718000000, 2147483647]


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO])
def test_a_repository_that_cannot_be_read_is_an_error(
    root: Path, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable(monkeypatch, root, error)
    with pytest.raises(ModelFileError, match=rf"{root} can't be read \(broken\)"):
        look_at(root)
