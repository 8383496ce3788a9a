"""Real pictures and their labels, for calibration and for the accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visavis.dataset import (
    Labelled,
    find_pictures,
    read_boxes,
    read_classes,
    without_pictures,
)
from visavis.errors import InvalidData

from visavis_export.errors import ExportError
from visavis_server.card import Task

# More do not reduce the error, which was the same with 32.
CALIBRATION_PICTURES = 100
# With fewer pictures, each would weigh too much in the accuracy.
_FEWEST_OTHERS = 50


@dataclass(frozen=True, slots=True)
class Pictures:
    """The real pictures of an export.

    name: their folder's name. total: the number of pictures in it. calibration: the pictures that
    ranges are measured on. accuracy: the pictures that the accuracy is measured on; empty without
    labels.
    """

    name: str
    total: int
    calibration: tuple[Path, ...]
    accuracy: tuple[Labelled, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """All pictures in use, each once."""
        return tuple(sorted({*self.calibration, *(one.path for one in self.accuracy)}))

    @property
    def held_out(self) -> bool:
        """True if no picture is used for both calibration and accuracy."""
        return not {labelled.path for labelled in self.accuracy} & set(self.calibration)


def read_labelled(folder: Path, labels: Path | None, task: Task) -> Pictures:
    """Return the pictures in a folder and its subfolders, split by use.

    Up to CALIBRATION_PICTURES, at most half, evenly spaced by path, are for calibration. The
    accuracy is measured on all other labelled pictures, or, if few are left, on all labelled ones.

    labels: a CSV file with the columns `file` and `class_index`, or a folder of YOLO text files;
    None: `labels.csv` in the folder, or the folder `labels` beside `images`, if present. Raises
    ExportError for missing files, labels of another task, and, with file and line, invalid labels.
    """
    if not folder.is_dir():
        raise ExportError(f"--calibration {folder} is not a folder; give a folder of real pictures")
    try:
        files = find_pictures(folder)
        if not files:
            raise ExportError(f"--calibration {folder} {without_pictures(folder)}")
        labelled = _labelled(folder, files, labels, task)
    except InvalidData as error:
        raise ExportError(str(error)) from None
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
    if task is Task.CLASSIFICATION:
        usual = folder / "labels.csv"
        if labels is None:
            return read_classes(folder, files, usual) if usual.is_file() else ()
        if labels.is_dir():
            raise ExportError(
                f"--labels {labels} is a folder, as for a detector; a classifier needs a CSV file "
                "with the columns file and class_index"
            )
        if not labels.is_file():
            raise ExportError(
                f"--labels {labels} does not exist; give a CSV file (for class names, use "
                "--class-names)"
            )
        return read_classes(folder, files, labels)
    if labels is not None and not labels.is_dir():
        raise ExportError(
            f"--labels {labels} is not a folder; give a folder of YOLO text files (for class "
            "names, use --class-names)"
        )
    return read_boxes(folder, files, labels)
