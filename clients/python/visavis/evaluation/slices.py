"""Parts of a folder of pictures: by folder, by brightness, by shape."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from visavis.evaluation.answers import PictureAnswers
from visavis.evaluation.figures import Slice
from visavis.evaluation.statistics import Estimate

MOST_FOLDERS: Final = 30
"""Folders that are told apart: those with the most pictures."""

_DARK, _BRIGHT = 85.0, 170.0
_SQUARE, _LONG = 1.1, 2.0


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the pictures: its dimension, its name and the pictures' paths."""

    dimension: str
    name: str
    paths: frozenset[str]


@dataclass(frozen=True, slots=True)
class Parts:
    """All parts. folders_left_out: beyond MOST_FOLDERS."""

    parts: tuple[Part, ...]
    folders_left_out: int


Measure = Callable[[frozenset[str]], tuple[dict[str, Estimate], dict[str, Estimate]]]
"""Returns the figures of models on some pictures, and their differences to the baseline."""


def parts(answers: Sequence[PictureAnswers], brightness: Mapping[str, float]) -> Parts:
    """Return the parts of each dimension that tells pictures apart.

    brightness: the mean of each picture's luma, from 0 to 255, by path; others are not told apart.
    """
    folders = {one.path: one.path.rpartition("/")[0] or "." for one in answers}
    sizes = Counter(folders.values())
    kept = {name for name, _ in sorted(sizes.items(), key=_largest_first)[:MOST_FOLDERS]}
    named = {
        "folder": {path: name for path, name in folders.items() if name in kept},
        "brightness": {
            one.path: _brightness(brightness[one.path]) for one in answers if one.path in brightness
        },
        "shape": {one.path: shape(one.width, one.height) for one in answers},
    }
    found = [
        Part(dimension, name, frozenset(path for path, own in of_path.items() if own == name))
        for dimension, of_path in named.items()
        if len(set(of_path.values())) > 1
        for name in _in_order(set(of_path.values()))
    ]
    return Parts(tuple(found), len(sizes) - len(kept))


def sliced(found: Parts, metric: str, measure: Measure) -> list[Slice]:
    """Return the figures of each part of which anything was measured."""
    slices = []
    for part in found.parts:
        figures, differences = measure(part.paths)
        if figures:
            slices.append(
                Slice(part.dimension, part.name, metric, part.paths, figures, differences)
            )
    return slices


def shape(width: int, height: int) -> str:
    """Return a picture's shape in a word."""
    longer, shorter = max(width, height), max(1, min(width, height))
    if longer > _LONG * shorter:
        return "elongated"
    if longer <= _SQUARE * shorter:
        return "square"
    return "landscape" if width > height else "portrait"


def _brightness(luma: float) -> str:
    if luma < _DARK:
        return "dark"
    return "bright" if luma >= _BRIGHT else "medium"


_ORDER: Final = ("dark", "medium", "bright", "portrait", "square", "landscape", "elongated")


def _in_order(names: set[str]) -> list[str]:
    return sorted(names, key=lambda name: (_ORDER.index(name) if name in _ORDER else -1, name))


def _largest_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
