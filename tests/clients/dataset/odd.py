"""Folders of pictures and labels as many tools write them, some with a fault: each is read twice.

`python -m tests.clients.dataset.odd SEED FOLDERS` writes JSON: how many were read right, refused
right, and what was not. What is right is known beforehand: the generator begins with the objects.
"""

import csv
import io
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from visavis.dataset import Labelled, Truth, find_pictures, read_boxes, read_classes
from visavis.errors import InvalidData

_NAMES: Final = (
    "a",
    "IMG_0001",
    "with blank",
    "größe",
    "猫",
    "a.b",
    "000000000139",
    "labels",
    "images",
)
_SUFFIXES: Final = (".jpg", ".JPG", ".jpeg", ".png", ".webp")
_FOLDERS: Final = ("", "train", "val/night", "images", "images/train", "with blank")
# What lies about in people's folders and is no picture of theirs.
_JUNK: Final = (
    "._a.jpg",
    ".Trash/old.jpg",
    "@eaDir/a.jpg/thumb.jpg",
    "Thumbs.db",
    ".DS_Store",
    "__MACOSX/images/a.png",
    "notes.md",
    "$RECYCLE.BIN/x.jpg",
)
_ENDS: Final = ("\n", "\r\n")

# One object: class, and the corners of its box as fractions.
Box = tuple[int, float, float, float, float]
Fault = tuple[str, Callable[[str], str]]

# By what is wrong: a row of labels with that. All are refused by file and line.
_ROW_FAULTS: Final[Sequence[Fault]] = (
    ("NaN", lambda row: _with(row, 1, "nan")),
    ("infinite", lambda row: _with(row, 2, "inf")),
    ("pixels", lambda row: _with(row, 1, "319.5")),
    ("just outside", lambda row: _with(row, 2, "1.02")),
    ("negative", lambda row: _with(row, 1, "-0.4")),
    ("negative class", lambda row: _with(row, 0, "-1")),
    ("half a class", lambda row: _with(row, 0, "2.5")),
    ("a name for a class", lambda row: _with(row, 0, "cat")),
    ("one column more", lambda row: " ".join([*row.split()[:5], "0.9"])),
    ("one column less", lambda row: " ".join(row.split()[:4])),
    ("commas", lambda row: ",".join(row.split())),
    ("no number", lambda row: _with(row, 3, "0.1.2")),
    ("hexadecimal", lambda row: _with(row, 3, "0x1")),
    ("no width", lambda row: " ".join((row.split()[0], "0.5", "0.5", "0", "0.1"))),
    ("negative height", lambda row: " ".join((row.split()[0], "0.5", "0.5", "0.1", "-0.1"))),
    ("a line for an area", lambda row: " ".join((row.split()[0], *(["0.5", "0.1"] * 3)))),
)
_CSV_FAULTS: Final[Sequence[Fault]] = (
    ("no class", lambda given: ""),
    ("a name for a class", lambda given: "cat"),
    ("a negative class", lambda given: "-3"),
    ("half a class", lambda given: "1.5"),
    ("NaN", lambda given: "nan"),
    ("two classes", lambda given: f"{given} 7"),
)


def boxes_of(chance: random.Random, folder: Path) -> str | None:
    """Make one folder of pictures and YOLO labels, read it, and return what was wrong, if anything.

    What is refused right raises InvalidData.
    """
    pictures, labels_below = _pictures(chance, folder)
    truth = {
        path: [_box(chance) for _ in range(chance.choice((0, 1, 1, 2, 5)))] for path in pictures
    }
    if not any(truth.values()):
        truth[chance.choice(pictures)] = [_box(chance)]
    faulty = chance.choice([p for p in pictures if truth[p]]) if chance.random() < 0.5 else None
    what = expected_at = ""
    for picture, boxes in truth.items():
        if not boxes and chance.random() < 0.5:
            continue  # no file is as good as an empty one
        text = _label_file(picture, folder, labels_below)
        rows = [_row(chance, box) for box in boxes]
        plain = [f"{box[0]} {' '.join(f'{n:.6f}' for n in _cxcywh(box))}" for box in boxes]
        before = _blank_lines(chance, len(rows))
        if picture == faulty:
            at = chance.randrange(len(rows))
            if chance.random() < 0.1:
                rows.append(rows[at])
                before.append(0)
                at, what = len(rows) - 1, "a row twice"
            else:
                what, spoil = chance.choice(_ROW_FAULTS)
                rows[at] = spoil(plain[at])
            expected_at = f"{text}, line {sum(before[: at + 1]) + at + 1}: "
        _write(chance, text, rows, before)
    given = folder / "labels" if labels_below else None
    images = _images(folder, labels_below)
    found = _read(lambda: read_boxes(images, find_pictures(images), given), what, expected_at)
    if isinstance(found, str):
        return found
    if set(found) != set(truth):
        return f"other pictures: {sorted(set(found) ^ set(truth))}"
    for picture, boxes in truth.items():
        objects = found[picture]
        assert isinstance(objects, tuple)
        if len(objects) != len(boxes) or not all(map(_same, objects, boxes)):
            return f"{picture}: {objects} instead of {boxes}"
    return None


def classes_of(chance: random.Random, folder: Path) -> str | None:
    """Make one folder of pictures and a CSV file of classes; else as boxes_of."""
    pictures, _ = _pictures(chance, folder)
    named = chance.sample(pictures, chance.randint(1, len(pictures)))
    truth = {path: chance.randrange(1000) for path in named}
    columns = ["file", "class_index", *(["note"] if chance.random() < 0.3 else [])]
    chance.shuffle(columns)
    delimiter = chance.choice((",", ",", ";", "\t"))
    header = [chance.choice((str, str.upper, str.title))(column) for column in columns]
    lines = [f"sep={delimiter}"] if delimiter != "\t" and chance.random() < 0.2 else []
    table = io.StringIO()
    writer = csv.writer(
        table,
        delimiter=delimiter,
        lineterminator="\n",
        quoting=chance.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
    )
    writer.writerow(header)
    faulty = chance.randrange(len(named)) if chance.random() < 0.5 else None
    for number, path in enumerate(named):
        name = path.relative_to(folder).as_posix()
        name = name.replace("/", "\\") if chance.random() < 0.2 else name
        given = chance.choice((str, str, lambda n: f"{n}.0", lambda n: f" {n}"))(truth[path])
        if number == faulty:
            what, spoil = chance.choice(_CSV_FAULTS)
            given = spoil(given.strip())
        cells = {"file": name, "class_index": given, "note": chance.choice(("", "a note"))}
        writer.writerow([cells[column] for column in columns])
    lines += table.getvalue().splitlines()
    labels = folder / "labels.csv"
    _save(chance, labels, lines)
    what = expected_at = ""
    if faulty is not None:
        expected_at = f"{labels}, line {len(lines) - len(named) + faulty + 1}: "
    found = _read(lambda: read_classes(folder, find_pictures(folder), labels), what, expected_at)
    return None if found == truth else f"{found} instead of {truth}"


def _read(
    read: Callable[[], Sequence[Labelled]], what: str, expected_at: str
) -> dict[Path, int | tuple[Truth, ...]] | str:
    """Return what is read, by picture, or what is wrong with that; what: the fault, if any.

    expected_at: what an error begins with if it is right; then it is raised.
    """
    try:
        found = {each.path: each.truth for each in read()}
    except InvalidData as error:
        if expected_at and str(error).startswith(expected_at):
            raise
        return f"refused, and {f'not by {expected_at!r}' if expected_at else 'is right'}: {error}"
    return f"read, with {what} in {expected_at}" if expected_at else found


def tried(seed: int, folders: int) -> tuple[Counter[str], list[str]]:
    """Return how many of each kind were read or refused right, and what was wrong of the rest."""
    counts, wrong = Counter[str](), []
    for number in range(folders):
        chance = random.Random(f"{seed}/{number}")
        kind = chance.choice((boxes_of, classes_of))
        with tempfile.TemporaryDirectory() as folder:
            try:
                problem = kind(chance, Path(folder).resolve())
            except InvalidData:
                counts["refused"] += 1
            except Exception as error:  # noqa: BLE001  a find too
                wrong.append(f"{seed}/{number} {kind.__name__}: {type(error).__name__}: {error}")
            else:
                counts["read"] += problem is None
                if problem:
                    wrong.append(f"{seed}/{number} {kind.__name__}: {problem}")
    return counts, wrong


def _pictures(chance: random.Random, folder: Path) -> tuple[list[Path], bool]:
    """Make pictures, some of them links, and junk beside them; whether labels have a folder."""
    labels_below = chance.random() < 0.5
    images = _images(folder, labels_below)
    images.mkdir(exist_ok=True)
    made: list[Path] = []
    stems = set[tuple[str, str]]()
    for _ in range(chance.randint(1, 6)):
        below, name = chance.choice(_FOLDERS), chance.choice(_NAMES)
        if (below, name) in stems:
            continue
        stems.add((below, name))
        path = images / below / (name + chance.choice(_SUFFIXES))
        path.parent.mkdir(parents=True, exist_ok=True)
        if chance.random() < 0.2:
            # Where there are no labels: beside a target they would count as the picture's.
            target = folder / ".elsewhere" / f"{len(made)}.jpg"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(b"picture")
            path.symlink_to(target)
        else:
            path.write_bytes(b"picture")
        made.append(path)
    for junk in chance.sample(_JUNK, chance.randint(0, 4)):
        path = images / junk
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"junk")
    return made, labels_below


def _images(folder: Path, labels_below: bool) -> Path:
    return folder / "pictures" if labels_below else folder


def _label_file(picture: Path, folder: Path, labels_below: bool) -> Path:
    """Return where a picture's labels lie: in a folder of their own, or where YOLO looks."""
    if labels_below:
        relative = picture.relative_to(_images(folder, labels_below))
        return folder / "labels" / relative.with_suffix(".txt")
    parts = list(picture.with_suffix(".txt").parts)
    for at in reversed(range(len(parts) - 1)):
        if parts[at] == "images":
            parts[at] = "labels"
            break
    return Path(*parts)


def _box(chance: random.Random) -> Box:
    left, top = chance.uniform(0, 0.8), chance.uniform(0, 0.8)
    right, bottom = chance.uniform(left + 0.01, 1), chance.uniform(top + 0.01, 1)
    return chance.randrange(80), *(round(n, 6) for n in (left, top, right, bottom))


def _cxcywh(box: Box) -> tuple[float, float, float, float]:
    _, left, top, right, bottom = box
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _row(chance: random.Random, box: Box) -> str:
    """Return an object as one of many tools would write it."""
    class_id, left, top, right, bottom = box
    numbers: Sequence[float]
    if chance.random() < 0.3:
        corners = [left, top, right, top, right, bottom, left, bottom]
        inside = [(left + right) / 2, (top + bottom) / 2] * chance.choice((0, 1, 4))
        numbers = corners + inside
    else:
        numbers = _cxcywh(box)
    written = [chance.choice(("{:.6f}", "{!r}", "{:.7e}")).format(number) for number in numbers]
    first = chance.choice(("{}", "{}", "{}.0", "{:.6f}")).format(class_id)
    columns = [first, *written]
    if chance.random() < 0.1:
        return ";".join(column.replace(".", ",") for column in columns)
    between = chance.choice((" ", " ", "\t", "  "))
    return chance.choice(("", "", " ")) + between.join(columns) + chance.choice(("", "", " "))


def _blank_lines(chance: random.Random, rows: int) -> list[int]:
    """Return how many empty lines come before each row."""
    return [chance.choice((0, 0, 0, 1)) for _ in range(rows)]


def _write(chance: random.Random, text: Path, rows: Sequence[str], before: Sequence[int]) -> None:
    lines = [line for row, blank in zip(rows, before, strict=True) for line in (*[""] * blank, row)]
    text.parent.mkdir(parents=True, exist_ok=True)
    _save(chance, text, lines)


def _save(chance: random.Random, path: Path, lines: Sequence[str]) -> None:
    end = chance.choice(_ENDS)
    content = end.join(lines) + chance.choice(("", end, end + end))
    path.write_bytes(content.encode(chance.choice(("utf-8", "utf-8-sig"))))


def _with(row: str, column: int, text: str) -> str:
    columns = row.split()
    columns[column] = text
    return " ".join(columns)


def _same(found: Truth, box: Box) -> bool:
    given = (found.center_x, found.center_y, found.width, found.height)
    near = all(abs(a - b) < 1e-5 for a, b in zip(given, _cxcywh(box), strict=True))
    return found.class_id == box[0] and near


if __name__ == "__main__":
    counted, problems = tried(int(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps({"counts": counted, "wrong": problems}, ensure_ascii=False))
