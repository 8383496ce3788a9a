"""Classes by folder: `dog/a.jpg` shows a dog."""

from collections.abc import Sequence
from pathlib import Path

from visavis.dataset.labels import Labelled
from visavis.dataset.names import ClassNames
from visavis.errors import InvalidData


def read_class_folders(
    folder: Path, pictures: Sequence[Path], names: Sequence[str]
) -> tuple[Labelled, ...]:
    """Return pictures with the class of the folder that they lie in, directly below `folder`.

    names: the model's labels; a folder is called as one of them, or by its class id. Raises
    InvalidData, by folder, for one that is no class.
    """
    known = ClassNames(names)
    found = []
    for path in pictures:
        below = path.relative_to(folder).parts
        if len(below) < 2:
            raise InvalidData(
                f"{path} lies in no folder of a class; put it in one, or give --labels"
            )
        found.append(Labelled(path, known.class_id(below[0], str(folder / below[0]))))
    return tuple(found)
