"""The pictures of a report: thumbnails with boxes, and what each is about."""

import base64
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image as PillowImage

from visavis.cards import Task
from visavis.dataset.labels import Truth
from visavis.evaluation.answers import PictureAnswers
from visavis.evaluation.boxes import Boxes, matched
from visavis.evaluation.figures import Disagreement, Fact, TaskStudy, Truths
from visavis.evaluation.runs import shown_boxes
from visavis.evaluation.shared_classes import Names, SharedClasses
from visavis.pillow_pictures import upright

MOST_THUMBNAILS: Final = 120
"""Pictures that a report holds, about 20 kB each."""
MOST_NAMED: Final = 2000
"""Pictures that a report names, with those that it holds."""
_OF_A_KIND: Final = 5
_THUMBNAIL_PX: Final = 360
_MOST_BOXES: Final = 40


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A box on a thumbnail, in its pixels; kind: both, here, baseline, truth, or empty."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    label: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes on a picture. title: of whom. left_out: boxes beyond the most that are drawn."""

    title: str
    boxes: tuple[Rectangle, ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Card:
    """A picture: its thumbnail, if it has one, what is on it and what each model says.

    differences: of each model and the baseline; panels: the truth and each model's own boxes.
    """

    about: Disagreement
    parts: tuple[int, ...]
    data_uri: str = ""
    width: int = 0
    height: int = 0
    differences: tuple[Drawing, ...] = ()
    panels: tuple[Drawing, ...] = ()


@dataclass(frozen=True)
class Gallery:
    """The pictures of a task. left_out: how many are not even named."""

    cards: list[Card]
    thumbnails: int
    left_out: int


def gallery(
    task: TaskStudy,
    answers: Mapping[str, PictureAnswers],
    files: Mapping[str, Path],
    truths: Truths,
) -> Gallery:
    """Return the pictures on which something is wrong or different.

    Thumbnails are of pictures of each kind; so many others are named.
    """
    drawn = chosen(task.disagreements, MOST_THUMBNAILS)
    named = [one for one in task.disagreements if one.path not in drawn]
    kept = {*drawn, *(one.path for one in named[: max(0, MOST_NAMED - len(drawn))])}
    parts: dict[str, list[int]] = {}
    for number, one in enumerate(task.slices):
        for path in one.paths & kept:
            parts.setdefault(path, []).append(number)
    cards = []
    for about in task.disagreements:
        if about.path in kept:
            own = tuple(parts.get(about.path, ()))
            card = Card(about, own)
            if about.path in drawn:
                card = _drawn(card, task, answers[about.path], files[about.path], truths)
            cards.append(card)
    cards.sort(key=lambda card: not card.data_uri)
    thumbnails = sum(bool(card.data_uri) for card in cards)
    return Gallery(cards, thumbnails, len(task.disagreements) - len(cards))


def chosen(disagreements: Sequence[Disagreement], most: int) -> set[str]:
    """Return the paths of pictures to show: some of each kind, of each class, then in order."""
    found: dict[str, None] = {}
    kinds: Counter[tuple[str, str]] = Counter()
    cells: Counter[Fact] = Counter()
    for wanted in (_of_a_kind, _of_a_cell, _any):
        for one in disagreements:
            if len(found) >= most:
                return {*found}
            if one.path not in found and wanted(one, kinds, cells):
                found[one.path] = None
                kinds.update({(fact.model, fact.kind) for fact in one.facts})
                cells.update(one.facts)
    return {*found}


_Kinds = Counter[tuple[str, str]]


def _of_a_kind(one: Disagreement, kinds: _Kinds, cells: Counter[Fact]) -> bool:
    return any(kinds[fact.model, fact.kind] < _OF_A_KIND for fact in one.facts)


def _of_a_cell(one: Disagreement, kinds: _Kinds, cells: Counter[Fact]) -> bool:
    return any(not cells[fact] for fact in one.facts)


def _any(one: Disagreement, kinds: _Kinds, cells: Counter[Fact]) -> bool:
    return True


def _drawn(
    card: Card, task: TaskStudy, answers: PictureAnswers, file: Path, truths: Truths
) -> Card:
    """Return a card with its thumbnail; without one if the picture cannot be read any more."""
    try:
        with PillowImage.open(file) as picture:
            picture.draft("RGB", (2 * _THUMBNAIL_PX, 2 * _THUMBNAIL_PX))
            thumbnail = upright(picture)
    # As in `brightness`.
    except (OSError, ValueError, SyntaxError, ImportError, PillowImage.DecompressionBombError):
        return card
    thumbnail.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    encoded = io.BytesIO()
    thumbnail.save(encoded, "JPEG", quality=78, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
    differences: tuple[Drawing, ...] = ()
    panels: tuple[Drawing, ...] = ()
    if task.task is Task.DETECTION:
        draw = _Draw(task, answers, thumbnail.width / max(answers.width, 1))
        differences, panels = draw.differences(), draw.panels(truths.get(answers.path))
    return Card(card.about, card.parts, uri, thumbnail.width, thumbnail.height, differences, panels)


class _Draw:
    """Boxes on one picture, scaled to its thumbnail."""

    def __init__(self, task: TaskStudy, answers: PictureAnswers, scale: float) -> None:
        self._task, self._answers, self._scale = task, answers, scale
        self._cards = {one.card.name: one.card for one in task.models}
        first = task.models[0].card
        self._names = {name: Names(card, first) for name, card in self._cards.items()}

    def _boxes(self, name: str) -> Boxes | None:
        run = self._answers.runs.get(name)
        return None if run is None or run.failure else shown_boxes(self._cards[name], run)

    def differences(self) -> tuple[Drawing, ...]:
        """Return the boxes that a model and the baseline share, and those of one of both."""
        found = []
        for pair in self._task.pairs:
            here, there = self._boxes(pair.model), self._boxes(pair.baseline)
            if here is None or there is None:
                found.append(Drawing(pair.model, ()))
                continue
            shared = SharedClasses(self._cards[pair.model], self._cards[pair.baseline])
            here, there = shared.of_ours(here), shared.of_theirs(there)
            same, same_there = matched(here, there)
            names = self._names[pair.baseline]
            only = there.where(~same_there)
            rectangles = [
                *self._rectangles(here, ["both" if each else "here" for each in same], names),
                *self._rectangles(only, ["baseline"] * len(only.scores), names),
            ]
            # Those that differ are drawn last, and are the last to be left out.
            rectangles.sort(key=lambda one: one.kind == "both")
            kept = rectangles[:_MOST_BOXES]
            drawn = Drawing(pair.model, tuple(reversed(kept)), len(rectangles) - len(kept))
            found.append(drawn)
        return tuple(found)

    def panels(self, truth: int | tuple[Truth, ...] | None) -> tuple[Drawing, ...]:
        """Return the truth, if it is known, and each model's boxes."""
        found = []
        if isinstance(truth, tuple):
            first = self._names[self._task.models[0].card.name]
            found.append(_limited("truth", [self._truth(one, first) for one in truth]))
        for name in self._cards:
            boxes = self._boxes(name)
            if boxes is not None:
                kinds = [""] * len(boxes.scores)
                found.append(_limited(name, [*self._rectangles(boxes, kinds, self._names[name])]))
        return tuple(found)

    def _truth(self, one: Truth, names: Names) -> Rectangle:
        width = self._answers.width * self._scale
        height = self._answers.height * self._scale
        return Rectangle(
            (one.center_x - one.width / 2) * width,
            (one.center_y - one.height / 2) * height,
            one.width * width,
            one.height * height,
            "truth",
            names[one.class_id],
        )

    def _rectangles(self, boxes: Boxes, kinds: Sequence[str], names: Names) -> Iterator[Rectangle]:
        rows = zip(boxes.xyxy * self._scale, boxes.class_ids, boxes.scores, kinds, strict=True)
        for box, class_id, score, kind in rows:
            x, y, right, bottom = (float(edge) for edge in box)
            label = f"{names[int(class_id)]} {score:.2f}"
            yield Rectangle(x, y, right - x, bottom - y, kind, label)


def _limited(title: str, boxes: Sequence[Rectangle]) -> Drawing:
    return Drawing(title, tuple(boxes[:_MOST_BOXES]), max(0, len(boxes) - _MOST_BOXES))
