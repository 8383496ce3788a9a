"""Objects on pictures from COCO's JSON: https://cocodataset.org/#format-data."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from visavis.dataset.file_reading import parse_json, read_text
from visavis.dataset.labels import Labelled, Truth, box_in_pixels, owned
from visavis.dataset.names import ClassNames, posix
from visavis.errors import InvalidData

# COCO's own training set has 470 MB.
_MOST_BYTES: Final = 512 << 20
_MOST_CHARACTERS: Final = 80


def read_coco(
    file: Path,
    folder: Path,
    pictures: Sequence[Path],
    names: Sequence[str],
    left_out: Counter[str],
) -> tuple[Labelled, ...]:
    """Return those of the pictures that a COCO file lists, with their objects.

    Pictures are found by `file_name`, below the folder or by the name alone; categories by name
    among the model's labels, whatever their ids. Objects of other categories are counted in
    left_out: a model cannot find what it does not know. Raises InvalidData, by entry, for what is
    wrong.
    """
    data = _read(file)
    images = _images(_list(data, "images", file), file)
    classes = _classes(_list(data, "categories", file), names, file)
    objects: defaultdict[int, list[Truth]] = defaultdict(list)
    unknown: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for number, one in enumerate(_list(data, "annotations", file)):
        where = f"{file}, annotations[{number}]"
        image_id, category_id = one.get("image_id"), one.get("category_id")
        if not isinstance(image_id, int) or image_id not in images:
            raise InvalidData(f"{where}: image_id {_shown(image_id)} is not in `images`")
        if not isinstance(category_id, int) or category_id not in classes:
            raise InvalidData(f"{where}: category_id {_shown(category_id)} is not in `categories`")
        image, (name, class_id) = images[image_id], classes[category_id]
        truth = _truth(one, image, class_id or 0, where)
        if class_id is None:
            unknown[image_id][name] += 1
        else:
            objects[image_id].append(truth)
    keys = {_file_name(one): key for key, one in images.items()}
    paths = {path: posix(path.relative_to(folder)) for path in pictures}
    found = owned(paths, keys, lambda name: f"{file}'s {name}")
    if not found:
        raise InvalidData(f"{file} lists no picture of {folder}; `file_name` must be its path")
    for name in set(found.values()):
        left_out.update(unknown[keys[name]])
    return tuple(
        Labelled(path, tuple(objects[keys[name]]), _size(images[keys[name]]))
        for path, name in found.items()
    )


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


def _images(entries: list[dict[str, Any]], file: Path) -> dict[int, dict[str, Any]]:
    """Return the images by id. Raises InvalidData for an id or a `file_name` that two have."""
    images: dict[int, dict[str, Any]] = {}
    names: dict[str, int] = {}
    for number, one in enumerate(entries):
        key, name = _id(one, file, "images", number), _file_name(one)
        if key in images or name in names:
            same = f"id {key}" if key in images else f"file_name {name!r}"
            raise InvalidData(f"{file}, images[{number}]: another image has the same {same}")
        images[key], names[name] = one, number
    return images


def _file_name(image: Mapping[str, Any]) -> str:
    return posix(str(image.get("file_name", "")).replace("\\", "/"))


def _classes(
    categories: list[dict[str, Any]], names: Sequence[str], file: Path
) -> dict[int, tuple[str, int | None]]:
    """Return the name of each category and the model's class id, by the category's id."""
    known = ClassNames(names)
    classes: dict[int, tuple[str, int | None]] = {}
    for number, one in enumerate(categories):
        key = _id(one, file, "categories", number)
        if key in classes:
            raise InvalidData(f"{file}, categories[{number}]: another category has the id {key}")
        name = str(one.get("name", ""))
        classes[key] = name, known.find(name)
    if categories and all(class_id is None for _, class_id in classes.values()):
        first = ", ".join(_shown(one.get("name")) for one in categories[:3])
        raise InvalidData(f"{file}: the model knows none of its categories, such as {first}")
    return classes


def _size(image: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return an image's width and height; None if they are no sides."""
    try:
        size = float(image["width"]), float(image["height"])
    except (TypeError, ValueError, KeyError, OverflowError):
        return None
    return size if all(0 < side < math.inf for side in size) else None


def _truth(entry: Mapping[str, Any], image: Mapping[str, Any], class_id: int, where: str) -> Truth:
    box, size = entry.get("bbox"), _size(image)
    try:
        left, top, width, height = map(float, box)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        left = top = width = height = 0.0
        size = None
    if size is None:
        raise InvalidData(
            f"{where}: bbox {_shown(box)} must be [x, y, width, height] in pixels of an image with "
            "`width` and `height`"
        )
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise InvalidData(f"{where}: iscrowd is {_shown(crowd)}; it must be 0 or 1")
    shown = f"{where}: bbox {_shown(box)}"
    return box_in_pixels(class_id, (left, top, width, height), size, bool(crowd), shown)


def _shown(value: Any) -> str:
    """Return a value from the file as an error shows it."""
    text = repr(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
