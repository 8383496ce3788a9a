"""Objects on pictures from COCO's JSON: https://cocodataset.org/#format-data."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from visavis.dataset.file_reading import parse_json, read_text
from visavis.dataset.labels import Labelled, Truth
from visavis.dataset.names import ClassNames, posix
from visavis.errors import InvalidData

# COCO's own training set has 470 MB.
_MOST_BYTES: Final = 512 << 20
_MOST_CHARACTERS: Final = 80


def read_coco(
    file: Path, folder: Path, pictures: Sequence[Path], names: Sequence[str]
) -> tuple[Labelled, ...]:
    """Return those of the pictures that a COCO file lists, with their objects.

    Pictures are found by `file_name`, below the folder or by the name alone; categories by name
    among the model's labels, whatever their ids. Objects of other categories are left out: a model
    cannot find what it does not know. Raises InvalidData, by entry, for what is wrong.
    """
    data = _read(file)
    images = {_id(one, file, "images", n): one for n, one in enumerate(_list(data, "images", file))}
    classes = _classes(_list(data, "categories", file), names, file)
    objects: defaultdict[int, list[Truth]] = defaultdict(list)
    for number, one in enumerate(_list(data, "annotations", file)):
        where = f"{file}, annotations[{number}]"
        image_id, category_id = one.get("image_id"), one.get("category_id")
        if not isinstance(image_id, int) or image_id not in images:
            raise InvalidData(f"{where}: image_id {_shown(image_id)} is not in `images`")
        if not isinstance(category_id, int) or category_id not in classes:
            raise InvalidData(f"{where}: category_id {_shown(category_id)} is not in `categories`")
        image, class_id = images[image_id], classes[category_id]
        if class_id is not None:
            crowd = bool(one.get("iscrowd", 0))
            objects[image["id"]].append(_truth(one.get("bbox"), image, class_id, crowd, where))
    by_path = {posix(str(one.get("file_name", ""))): key for key, one in images.items()}
    by_name = {Path(name).name: key for name, key in by_path.items()}
    found = []
    for path in pictures:
        key = by_path.get(posix(path.relative_to(folder)), by_name.get(posix(path.name)))
        if key is not None:
            found.append(Labelled(path, tuple(objects[key])))
    if not found:
        raise InvalidData(f"{file} lists no picture of {folder}; `file_name` must be its path")
    return tuple(found)


def _read(file: Path) -> Mapping[str, Any]:
    data = parse_json(read_text(file, _MOST_BYTES), str(file))
    if not isinstance(data, dict):
        raise InvalidData(f"{file} is not a COCO file: it must be an object with `images`")
    return data


def _list(data: Mapping[str, Any], key: str, file: Path) -> list[dict[str, Any]]:
    value = data.get(key)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InvalidData(f"{file}: `{key}` must be a list of objects, as COCO's files have it")
    return value


def _id(entry: Mapping[str, Any], file: Path, key: str, number: int) -> int:
    if not isinstance(entry.get("id"), int):
        raise InvalidData(f"{file}, {key}[{number}]: `id` must be a whole number")
    return int(entry["id"])


def _classes(
    categories: list[dict[str, Any]], names: Sequence[str], file: Path
) -> dict[int, int | None]:
    known = ClassNames(names)
    classes = {
        _id(one, file, "categories", number): known.find(str(one.get("name", "")))
        for number, one in enumerate(categories)
    }
    if categories and not any(class_id is not None for class_id in classes.values()):
        first = ", ".join(_shown(one.get("name")) for one in categories[:3])
        raise InvalidData(f"{file}: the model knows none of its categories, such as {first}")
    return classes


def _truth(box: Any, image: Mapping[str, Any], class_id: int, crowd: bool, where: str) -> Truth:
    try:
        x, y, width, height = map(float, box)
        across, down = float(image["width"]), float(image["height"])
        fractions = (x + width / 2) / across, (y + height / 2) / down
        if not (all(map(math.isfinite, (*fractions, width, height))) and min(across, down) > 0):
            raise ValueError
    except (TypeError, ValueError, KeyError, ZeroDivisionError, OverflowError):
        raise InvalidData(
            f"{where}: bbox {_shown(box)} must be [x, y, width, height] in pixels of an image with "
            "`width` and `height`"
        ) from None
    if not (width > 0 and height > 0):
        raise InvalidData(f"{where}: bbox {_shown(box)} has no area")
    return Truth(class_id, *fractions, width / across, height / down, crowd)


def _shown(value: Any) -> str:
    """Return a value from the file as an error shows it."""
    text = repr(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
