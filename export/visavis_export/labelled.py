"""Real pictures, and labels where there are some: for calibration and for accuracy."""

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

# More change nothing: with 32 the error was the same.
CALIBRATION_PICTURES = 100
# With fewer left, one picture would count for too much.
_FEWEST_OTHERS = 50


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
    def paths(self) -> tuple[Path, ...]:
        """All that are looked at, each once."""
        return tuple(sorted({*self.calibration, *(one.path for one in self.accuracy)}))

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
    there is one. Raises ExportError for what is not there, labels of another task, and, by file
    and line, for labels that are wrong.
    """
    if not folder.is_dir():
        raise ExportError(f"--calibration {folder} is not a folder; give one of real pictures")
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
                f"--labels {labels} is a folder, as YOLO's boxes have it; a classifier needs a "
                "CSV file with the columns file and class_index"
            )
        if not labels.is_file():
            raise ExportError(
                f"--labels {labels} is no file; (names of classes go to --class-names)"
            )
        return read_classes(folder, files, labels)
    if labels is not None and not labels.is_dir():
        raise ExportError(
            f"--labels {labels} is no folder of YOLO's text files; (names of classes go to "
            "--class-names)"
        )
    return read_boxes(folder, files, labels)
