"""Reads class labels from a CSV file. An invalid row is reported by file and line."""

import csv
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from visavis.dataset.file_reading import read_text
from visavis.dataset.labels import MOST_LIST_BYTES, Labelled, parse_class_id
from visavis.errors import InvalidData

_DELIMITERS: Final = ",;\t"
# A first line that tells Excel the delimiter.
_EXCEL_HINTS: Final = frozenset(f"sep={delimiter}" for delimiter in _DELIMITERS)


def read_classes(folder: Path, pictures: Iterable[Path], labels: Path) -> tuple[Labelled, ...]:
    """Return the pictures that have a class id in a CSV file.

    labels: a file with the columns `file`, a path relative to the folder or to the file's own, and
    `class_index`, separated by commas, semicolons or tabs. Raises InvalidData for an invalid row,
    for a picture with two rows, and if the file names none of the pictures.
    """
    composed = [(path, _composed(path)) for path in pictures]
    own_paths = {own for _, own in composed}
    bases = tuple(dict.fromkeys((folder, labels.parent)))
    class_ids: dict[Path, tuple[int, int]] = {}
    for line, name, class_id in _csv_rows(labels):
        path = _composed(Path(name.replace("\\", "/")))
        # Rows of other pictures are not kept: there may be millions.
        if not any(_composed(base / path) in own_paths for base in bases):
            continue
        if path in class_ids:
            raise InvalidData(
                f"{labels}, line {line}: {name} already has a class in line {class_ids[path][1]}; "
                "keep one of the two lines"
            )
        class_ids[path] = class_id, line
    for base in bases:
        known = {_composed(base / path): class_id for path, (class_id, _) in class_ids.items()}
        if found := tuple(Labelled(path, known[own]) for path, own in composed if own in known):
            return found
    raise InvalidData(
        f"{labels} names no picture in {folder}; its paths must be relative to that folder"
    )


def _csv_rows(labels: Path) -> Iterator[tuple[int, str, int]]:
    """Yield the line number, file and class id of each row."""
    lines = read_text(labels, MOST_LIST_BYTES).splitlines()
    before = 1 if lines and lines[0].lower() in _EXCEL_HINTS else 0
    before += next((k for k, line in enumerate(lines[before:]) if line.strip()), 0)
    first = next(iter(lines[before:]), "")
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.DictReader(lines[before:], delimiter=delimiter, skipinitialspace=True)
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
    if missing := {"file", "class_index"} - set(reader.fieldnames):
        raise InvalidData(
            f"{labels} has no column {' and no column '.join(sorted(missing))}; its first line "
            f"must be `file,class_index` but is {first[:80]!r}"
        )
    try:
        for row in reader:
            line = reader.line_num + before
            where = f"{labels}, line {line}"
            if not any(row.values()):
                continue  # Excel writes empty rows as delimiters only.
            name, class_index = (row["file"] or "").strip(), row["class_index"] or ""
            if not name or None in row:
                raise InvalidData(
                    f"{where}: must be a file and its class, such as `cat.jpg{delimiter}281`, "
                    "with as many columns as the first line"
                )
            yield line, name, parse_class_id(class_index, where, "class_index")
    except csv.Error as error:
        raise InvalidData(
            f"{labels}, line {reader.line_num + before}: invalid CSV: {error}"
        ) from None


def _composed(path: Path) -> Path:
    """Return a path in Unicode's composed form; macOS stores accents as separate characters."""
    return Path(unicodedata.normalize("NFC", str(path)))
