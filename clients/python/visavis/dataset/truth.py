"""The truth of a folder of pictures, in whichever form it is there."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from visavis.cards import Task
from visavis.dataset.boxes import read_boxes
from visavis.dataset.class_folders import read_class_folders
from visavis.dataset.classes import read_classes
from visavis.dataset.coco_json import read_coco
from visavis.dataset.labels import Labelled
from visavis.dataset.names import posix
from visavis.dataset.pascal_voc import read_voc
from visavis.dataset.pictures import find_files
from visavis.errors import InvalidData

# Each is compared with each of a hundred boxes.
_MOST_OBJECTS: Final = 10_000
FORMS: Final = (
    "a CSV file with the columns file and class_index, a folder per class, a folder of YOLO's "
    "text files, a COCO JSON file, or a folder of Pascal VOC's XML files"
)
"""The forms of labels, for errors."""


def read_truth(
    folder: Path,
    pictures: Sequence[Path],
    labels: Path | None,
    task: Task,
    names: Sequence[str],
    left_out: Counter[str],
) -> tuple[Labelled, ...]:
    """Return the pictures whose truth is known for a task, and what it is.

    labels: a CSV file, a folder per class, a folder of text or XML files, a COCO file; None:
    `labels.csv` in the folder, or else in the folders of the pictures, or YOLO's `labels` beside
    `images`. names: the models' labels, by class id. left_out: counts the objects of other classes,
    by name. Nothing is returned where the labels are those of the other task. Raises InvalidData,
    by file and line, for labels that are wrong.
    """
    found = (
        _classes(folder, pictures, labels, names)
        if task is Task.CLASSIFICATION
        else _boxes(folder, pictures, labels, names, left_out)
    )
    for one in found:
        if isinstance(one.truth, tuple) and len(one.truth) > _MOST_OBJECTS:
            raise InvalidData(
                f"{one.path} has {len(one.truth)} labelled objects; a picture may have "
                f"{_MOST_OBJECTS}"
            )
        ids = [one.truth] if isinstance(one.truth, int) else [each.class_id for each in one.truth]
        if ids and max(ids) >= len(names):
            raise InvalidData(
                f"{one.path} is labelled with the class {max(ids)}, but the model has the classes "
                f"0 to {len(names) - 1}: the labels are of another model"
            )
    return found


def give_class_ids(folder: Path, pictures: Sequence[Path], labels: Path | None) -> bool:
    """Return True for labels with class ids, which mean something only for a label set.

    Folders per class, COCO's files and Pascal VOC's have names.
    """
    if labels is None or labels.is_file():
        return labels is None or labels.suffix.lower() != ".json"
    suffixes = _suffixes(labels, folder, pictures)
    return ".txt" in suffixes and ".xml" not in suffixes


def _classes(
    folder: Path, pictures: Sequence[Path], labels: Path | None, names: Sequence[str]
) -> tuple[Labelled, ...]:
    if labels is None:
        return tuple(
            one
            for usual in _usual(folder, pictures)
            for one in read_classes(usual.parent, pictures, usual)
        )
    if labels.is_file():
        if labels.suffix.lower() == ".json":
            return ()
        return read_classes(folder, pictures, labels)
    if not labels.is_dir():
        raise InvalidData(f"--labels {labels} does not exist; give {FORMS}")
    if _suffixes(labels, folder, pictures) & {".txt", ".xml"}:
        return ()
    if labels.resolve() != folder.resolve():
        raise InvalidData(
            f"--labels {labels} holds neither text nor XML files; for a folder per class, give the "
            f"folder of the pictures itself, {folder}"
        )
    return read_class_folders(folder, pictures, names)


def _usual(folder: Path, pictures: Sequence[Path]) -> list[Path]:
    """Return `labels.csv` in the folder, or else those in the folders of the pictures."""
    own = folder / "labels.csv"
    if own.is_file():
        return [own]
    beside = {picture.parent / "labels.csv" for picture in pictures}
    return sorted(path for path in beside if path.is_file())


def _boxes(
    folder: Path,
    pictures: Sequence[Path],
    labels: Path | None,
    names: Sequence[str],
    left_out: Counter[str],
) -> tuple[Labelled, ...]:
    if labels is None:
        return read_boxes(folder, pictures)
    if labels.is_file():
        if labels.suffix.lower() != ".json":
            return ()
        return read_coco(labels, folder, pictures, names, left_out)
    if not labels.is_dir():
        raise InvalidData(f"--labels {labels} does not exist; give {FORMS}")
    suffixes = _suffixes(labels, folder, pictures)
    if ".xml" in suffixes:
        return read_voc(labels, folder, pictures, names, left_out)
    return read_boxes(folder, pictures, labels) if ".txt" in suffixes else ()


def _suffixes(labels: Path, folder: Path, pictures: Sequence[Path]) -> set[str]:
    """Return the suffixes of the files in a folder of labels.

    Among the pictures themselves only files with the name of a picture count: a README is no label.
    """
    files: Iterable[Path] = find_files(labels)
    if labels.resolve() == folder.resolve():
        stems = {posix(picture.stem) for picture in pictures}
        files = (file for file in files if posix(file.stem) in stems)
    return {file.suffix.lower() for file in files}
