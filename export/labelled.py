"""Real pictures, and labels where there are some: for calibration and for accuracy."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError
from export.pictures import SUFFIXES
from server.card import Task

# More change nothing: with 32 the error was the same.
CALIBRATION_PICTURES = 100
# With fewer left, one picture would count for too much.
_FEWEST_OTHERS = 50


@dataclass(frozen=True, slots=True)
class Truth:
    """One object in a picture: cxcywh as fractions of the upright picture's width and height."""

    class_id: int
    center_x: float
    center_y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Labelled:
    """A picture and what is known to be on it: a class id, or all objects for a detector."""

    path: Path
    truth: int | tuple[Truth, ...]


@dataclass(frozen=True, slots=True)
class Pictures:
    """The real pictures of an export.

    name: of their folder. calibration: those that ranges are taken from. accuracy: those
    that answers are counted on; empty without labels. total: how many there are.
    """

    name: str
    total: int
    calibration: tuple[Path, ...]
    accuracy: tuple[Labelled, ...]

    @property
    def held_out(self) -> bool:
        """Whether accuracy is counted on other pictures than those of the calibration."""
        return not {labelled.path for labelled in self.accuracy} & set(self.calibration)


def read_labelled(folder: Path, labels: Path | None, task: Task) -> Pictures:
    """Return the pictures in a folder and those below it, divided.

    Up to CALIBRATION_PICTURES, half at most, evenly chosen by path, are for calibration; the
    accuracy is counted on all others that have labels, or, where few are left, on all.

    labels: a CSV file with the columns `file` and `class_index`, or a folder of YOLO's text
    files; None: `labels.csv` in the folder, or the folder `labels` beside `images`, where
    there is one. Raises ExportError for what is not there, or labels of another task.
    """
    if not folder.is_dir():
        raise ExportError(f"--calibration {folder} is not a folder; give one of real pictures")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise ExportError(f"--calibration {folder} holds no JPEG, PNG or WebP picture")
    labelled = _labelled(folder, files, labels, task)
    calibration = _evenly(files, min(CALIBRATION_PICTURES, max(1, len(files) // 2)))
    others = tuple(one for one in labelled if one.path not in set(calibration))
    return Pictures(
        name=folder.resolve().name,
        total=len(files),
        calibration=calibration,
        accuracy=others if len(others) >= _FEWEST_OTHERS else labelled,
    )


def _evenly(files: Sequence[Path], count: int) -> tuple[Path, ...]:
    return tuple(files[index * len(files) // count] for index in range(count))


def _labelled(
    folder: Path, files: Sequence[Path], labels: Path | None, task: Task
) -> tuple[Labelled, ...]:
    if labels is None:
        if task is Task.CLASSIFICATION:
            usual = folder / "labels.csv"
            return _classes(folder, files, usual) if usual.is_file() else ()
        return _objects(files, {path: _beside(path) for path in files})
    if labels.is_dir():
        if task is Task.CLASSIFICATION:
            raise ExportError(
                f"--labels {labels} is a folder, as YOLO's boxes have it; a classifier needs a "
                "CSV file with the columns file and class_index"
            )
        known = {path.stem: path for path in sorted(labels.rglob("*.txt"))}
        found = {path: known.get(path.stem, labels / f"{path.stem}.txt") for path in files}
        objects = _objects(files, found)
        if not objects:
            raise ExportError(f"--labels {labels} holds no FILE.txt for any picture of {folder}")
        return objects
    if task is Task.OBJECT_DETECTION or not labels.is_file():
        raise ExportError(
            f"--labels {labels} is no "
            + ("folder of YOLO's text files" if task is Task.OBJECT_DETECTION else "file")
            + "; (names of classes go to --class-names)"
        )
    return _classes(folder, files, labels)


def _classes(folder: Path, files: Sequence[Path], labels: Path) -> tuple[Labelled, ...]:
    """Return pictures with the class ids of a CSV file; its paths start at the folder."""
    try:
        with labels.open(newline="", encoding="utf-8") as file:
            rows = {folder / row["file"]: int(row["class_index"]) for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{labels} can't be read: {error}") from None
    except (KeyError, TypeError, ValueError):
        raise ExportError(
            f"{labels} needs the columns file and class_index, such as `cat.jpg,281`"
        ) from None
    found = tuple(Labelled(path, rows[path]) for path in files if path in rows)
    if not found:
        raise ExportError(f"{labels} names no picture of {folder}")
    return found


def _beside(picture: Path) -> Path:
    """Return where YOLO looks for a picture's objects: …/images/a.jpg, …/labels/a.txt."""
    parts = list(picture.resolve().with_suffix(".txt").parts)
    last = next((i for i in reversed(range(len(parts) - 1)) if parts[i] == "images"), None)
    if last is not None:
        parts[last] = "labels"
    return Path(*parts)


def _objects(files: Sequence[Path], labels: dict[Path, Path]) -> tuple[Labelled, ...]:
    """Return pictures with their objects; one without a file has none, if others have one."""
    if not any(path.is_file() for path in labels.values()):
        return ()
    return tuple(Labelled(path, _read_objects(labels[path])) for path in files)


def _read_objects(path: Path) -> tuple[Truth, ...]:
    if not path.is_file():
        return ()
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line]
        return tuple(Truth(int(row[0]), *map(float, row[1:5])) for row in rows)
    except (OSError, ValueError, TypeError, IndexError):
        raise ExportError(
            f"{path} is not in YOLO's format: each line is `class cx cy width height`, "
            "the last four as fractions of the picture"
        ) from None
