"""Objects on pictures from Pascal VOC's XML files, one for each picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from visavis.dataset.file_reading import read_bytes
from visavis.dataset.labels import MOST_PICTURE_BYTES, Labelled, Truth
from visavis.dataset.names import ClassNames
from visavis.dataset.pictures import find_files
from visavis.errors import InvalidData


def read_voc(
    labels: Path, folder: Path, pictures: Sequence[Path], names: Sequence[str]
) -> tuple[Labelled, ...]:
    """Return the pictures with their objects; a picture without a file has none.

    labels: the folder of the XML files, `Annotations` as VOC calls it; each is found at its
    picture's path, or by its name. Objects of classes that the model does not know are left out.
    Raises InvalidData, by file, for what is wrong.
    """
    files = {path for path in find_files(labels) if path.suffix.lower() == ".xml"}
    by_name = {path.stem: path for path in files}
    known, found, used = ClassNames(names), [], 0
    for picture in pictures:
        same = labels / picture.relative_to(folder).with_suffix(".xml")
        file = same if same in files else by_name.get(picture.stem)
        used += file is not None
        found.append(Labelled(picture, _objects(file, known) if file else ()))
    if not used:
        raise InvalidData(f"{labels} holds no FILE.xml for any picture of {folder}")
    return tuple(found)


def _objects(file: Path, known: ClassNames) -> tuple[Truth, ...]:
    root = _parsed(file)
    across, down = (_number(root, f"size/{side}", file) for side in ("width", "height"))
    if not (across > 0 and down > 0):
        raise InvalidData(f"{file}: size must be the picture's width and height in pixels")
    truths = []
    for one in root.iter("object"):
        name = (one.findtext("name") or "").strip()
        left, top, right, bottom = (
            _number(one, f"bndbox/{edge}", file) for edge in ("xmin", "ymin", "xmax", "ymax")
        )
        # VOC counts pixels from 1, and both edges belong to the box.
        width, height = right - left + 1, bottom - top + 1
        if width <= 0 or height <= 0:
            raise InvalidData(f"{file}: the box of {name[:80]!r} has no area")
        class_id = known.find(name)
        if class_id is not None:
            center = ((left - 1 + width / 2) / across, (top - 1 + height / 2) / down)
            difficult = (one.findtext("difficult") or "0").strip() == "1"
            truths.append(Truth(class_id, *center, width / across, height / down, difficult))
    return tuple(truths)


def _parsed(file: Path) -> ElementTree.Element:
    """Parse without entities: a billion laughs must not fill the memory."""
    tree, parser = ElementTree.TreeBuilder(), expat.ParserCreate()

    def refuse(*given: object) -> None:
        raise InvalidData(f"{file}: declares entities, which annotations do not need")

    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.data
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(read_bytes(file, MOST_PICTURE_BYTES), True)
        return tree.close()
    except expat.ExpatError as error:
        raise InvalidData(f"{file} is not XML: {error}") from None


def _number(element: ElementTree.Element, path: str, file: Path) -> float:
    text = (element.findtext(path) or "").strip()
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidData(f"{file}: {path} is {text[:40]!r}; it must be a number")
    return number
