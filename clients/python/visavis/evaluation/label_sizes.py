"""The pictures' sizes as labels have them, against those of the pictures themselves."""

from collections.abc import Iterable
from typing import Final

from PIL import Image

from visavis.dataset.labels import Labelled
from visavis.errors import InvalidData
from visavis.pillow_pictures import upright_size

# Of the sides' ratio. Scaled pictures keep theirs; sides are rounded.
_TOLERANCE: Final = 0.02


def require_sizes(labelled: Iterable[Labelled]) -> None:
    """Raise InvalidData for a picture whose shape is not the one that its labels have.

    Boxes would lie elsewhere on it: it was cropped, or its labels ignore the EXIF orientation.
    Pictures that cannot be read are passed over.
    """
    for one in labelled:
        if one.size is None or not one.truth:
            continue
        try:
            with Image.open(one.path) as picture:
                stored, (width, height) = picture.size, upright_size(picture)
        # As in `brightness`.
        except (OSError, ValueError, SyntaxError, ImportError, Image.DecompressionBombError):
            continue
        across, down = one.size
        scales = across / width, down / height
        if max(scales) / min(scales) - 1 <= _TOLERANCE + 1 / min(width, height, across, down):
            continue
        ignored = " and ignore its EXIF orientation" if one.size == stored else ""
        raise InvalidData(
            f"{one.path} is {width} × {height} px upright, but its labels are for {across:g} "
            f"× {down:g} px{ignored}; label the picture as a person sees it"
        )
