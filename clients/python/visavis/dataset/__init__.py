"""People's folders of pictures and the labels beside them, read and checked.

Nothing here decodes a picture or needs NumPy: export, `compare` and `bench` share it.
"""

from visavis.dataset.labels import Labelled, Truth, read_boxes, read_classes
from visavis.dataset.pictures import (
    chosen_pictures,
    find_pictures,
    is_picture,
    without_pictures,
)

__all__ = [
    "Labelled",
    "Truth",
    "chosen_pictures",
    "find_pictures",
    "is_picture",
    "read_boxes",
    "read_classes",
    "without_pictures",
]
