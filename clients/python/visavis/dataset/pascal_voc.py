"""Objects on pictures from Pascal VOC's XML files, one for each picture."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from visavis.dataset.file_reading import read_bytes
from visavis.dataset.labels import MOST_PICTURE_BYTES, Labelled, Truth, box_in_pixels, owned
from visavis.dataset.names import ClassNames, posix
from visavis.dataset.pictures import find_files
from visavis.errors import InvalidData


def read_voc(
    labels: Path,
    folder: Path,
    pictures: Sequence[Path],
    names: Sequence[str],
    left_out: Counter[str],
) -> tuple[Labelled, ...]:
    """Return the pictures with their objects; a picture without a file has none.

    labels: the folder of the XML files, `Annotations` as VOC calls it; each is found at its
    picture's path, or by its name. Objects of classes that the model does not know are counted in
    left_out. Raises InvalidData, by file, for what is wrong, and if it knows none of the classes.
    """
    files = {
        posix(path.relative_to(labels).with_suffix("")): path
        for path in find_files(labels)
        if path.suffix.lower() == ".xml"
    }
    stems = {path: posix(path.relative_to(folder).with_suffix("")) for path in pictures}
    found, known = owned(stems, files, lambda stem: str(labels / f"{stem}.xml")), ClassNames(names)
    if not found:
        raise InvalidData(f"{labels} holds no FILE.xml for any picture of {folder}")
    labelled = tuple(
        Labelled(path, *_objects(files[found[path]], known, left_out))
        if path in found
        else Labelled(path, ())
        for path in pictures
    )
    if left_out and not any(one.truth for one in labelled):
        first = ", ".join(repr(name[:80]) for name, _ in left_out.most_common(3))
        raise InvalidData(f"{labels}: the model knows none of its classes, such as {first}")
    return labelled


def _objects(
    file: Path, known: ClassNames, left_out: Counter[str]
) -> tuple[tuple[Truth, ...], tuple[float, float]]:
    """Return the objects in a file, and the size of their picture."""
    root = _parsed(file)
    across, down = (_number(root, f"size/{side}", file) for side in ("width", "height"))
    if not (0 < across < math.inf and 0 < down < math.inf):
        raise InvalidData(f"{file}: size must be the picture's width and height in pixels")
    truths = []
    for one in root.iter("object"):
        name = (one.findtext("name") or "").strip()
        left, top, right, bottom = (
            _number(one, f"bndbox/{edge}", file) for edge in ("xmin", "ymin", "xmax", "ymax")
        )
        # VOC counts pixels from 1, and both edges belong to the box.
        box = (left - 1, top - 1, right - left + 1, bottom - top + 1)
        difficult = (one.findtext("difficult") or "0").strip() == "1"
        class_id, where = known.find(name), f"{file}: the box of {name[:80]!r}"
        truth = box_in_pixels(class_id or 0, box, (across, down), difficult, where)
        if class_id is None:
            left_out[name] += 1
        else:
            truths.append(truth)
    return tuple(truths), (across, down)


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
    except (LookupError, ValueError) as error:  # of the encoding that it declares
        raise InvalidData(f"{file} can't be read: {error}; save it as UTF-8") from None


def _number(element: ElementTree.Element, path: str, file: Path) -> float:
    text = (element.findtext(path) or "").strip()
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidData(f"{file}: {path} is {text[:40]!r}; it must be a number")
    return number
