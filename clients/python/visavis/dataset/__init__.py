"""Reads and validates the user's folders of pictures and their labels.

It neither decodes pictures nor needs NumPy. Shared by the export stage and the commands.
"""

from visavis.dataset.boxes import read_boxes
from visavis.dataset.classes import read_classes
from visavis.dataset.labels import Labelled, Truth
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
