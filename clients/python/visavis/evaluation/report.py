"""A study as one HTML file: no script from elsewhere, no font, no picture that is not inside."""

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import jinja2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps

from visavis.cards import Task
from visavis.evaluation import outputs
from visavis.evaluation.accuracy import Booleans, Boxes, matched
from visavis.evaluation.answers import PictureAnswers
from visavis.evaluation.choice import accuracy_of, dominated
from visavis.evaluation.gate import Check
from visavis.evaluation.study import Disagreement, Study, TaskStudy, shown_boxes

_MOST_PICTURES: Final = 60
_THUMBNAIL_PX: Final = 360
_CHART = (640.0, 300.0)
_MARGINS = (56.0, 20.0, 16.0, 44.0)  # left, right, top, bottom


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A box on a thumbnail, in its pixels; who: both, baseline, model."""

    x: float
    y: float
    width: float
    height: float
    who: str
    label: str


@dataclass(frozen=True, slots=True)
class Card:
    """A picture on which models differ: its thumbnail, each model's answer, and boxes."""

    path: str
    data_uri: str
    width: int
    height: int
    answers: Mapping[str, str]
    truth: str
    suspect: bool
    boxes: tuple[Rectangle, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A model on the chart of accuracy against latency, in the chart's pixels."""

    x: float
    y: float
    low_y: float
    high_y: float
    name: str
    dominated: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """Accuracy, or agreement, against latency; ticks: position and text."""

    metric: str
    points: tuple[Point, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: float = _CHART[0]
    height: float = _CHART[1]


def html(
    study: Study,
    answers: Sequence[PictureAnswers],
    pictures: Mapping[str, Path],
    checks: Sequence[Check] = (),
) -> str:
    """Return the report. answers: those of the study. pictures: their files, by path."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = resources.files(__package__).joinpath("report.html.jinja").read_text("utf-8")
    by_path = {one.path: one for one in answers}
    return environment.from_string(text).render(
        study=study,
        verdicts=list(outputs.verdicts(study)),
        tasks=[_task(task, by_path, pictures) for task in study.tasks],
        checks=checks,
    )


def _task(
    task: TaskStudy, answers: Mapping[str, PictureAnswers], pictures: Mapping[str, Path]
) -> dict[str, object]:
    header, rows = outputs.table(task)
    pairs_header, pairs = outputs.pairs_table(task)
    shown = task.disagreements[:_MOST_PICTURES]
    cards = [_card(one, task, answers[one.path], pictures[one.path]) for one in shown]
    return {
        "name": task.task.value.capitalize(),
        "labelled": task.labelled,
        "header": header,
        "rows": rows,
        "pairs_header": pairs_header,
        "pairs": pairs,
        "confusions": [one for one in task.models if one.confusions],
        "errors": outputs.errors_table(task),
        "thresholds": outputs.thresholds_table(task),
        "chart": _chart(task),
        "classes": _classes(task),
        "class_models": [one.card.name for one in task.models if one.per_class],
        "cards": [card for card in cards if card is not None],
        "more": len(task.disagreements) - len(shown),
        "baseline": task.pairs[0].baseline if task.pairs else "",
        "other": task.pairs[0].model if task.pairs else "",
        "detects": task.task is Task.DETECTION,
    }


def _classes(task: TaskStudy) -> list[tuple[str, list[float]]]:
    """Return AP50-95 by class and model, the largest difference first."""
    models = [one for one in task.models if one.per_class]
    names = sorted({name for one in models for name in one.per_class})
    rows = [(name, [one.per_class.get(name, math.nan) for one in models]) for name in names]
    return sorted(rows, key=lambda row: -np.ptp(np.nan_to_num(row[1])))


def _card(one: Disagreement, task: TaskStudy, answers: PictureAnswers, file: Path) -> Card | None:
    try:
        with PillowImage.open(file) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError):
        return None
    upright.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    encoded = io.BytesIO()
    upright.save(encoded, "JPEG", quality=80)
    uri = "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
    boxes = tuple(_boxes(task, answers, upright.width / max(answers.width, 1)))
    return Card(
        one.path, uri, upright.width, upright.height, one.answers, one.truth, one.suspect, boxes
    )


def _boxes(task: TaskStudy, answers: PictureAnswers, scale: float) -> Iterator[Rectangle]:
    """Yield the boxes of the baseline and of the first model beside it, matched."""
    if task.task is not Task.DETECTION or not task.pairs:
        return
    cards = {one.card.name: one.card for one in task.models}
    pair = task.pairs[0]
    runs = [answers.runs.get(name) for name in (pair.baseline, pair.model)]
    if any(run is None or run.failure for run in runs):
        return
    baseline, model = (
        shown_boxes(cards[name], answers.runs[name]) for name in (pair.baseline, pair.model)
    )
    labels = cards[pair.model].label_set.labels
    here, there = matched(model, baseline)
    yield from _rectangles(model, here, ("both", "model"), labels, scale)
    only = baseline.where(~there)
    yield from _rectangles(
        only, np.zeros(len(only.scores), np.bool_), ("", "baseline"), labels, scale
    )


def _rectangles(
    boxes: Boxes, found: Booleans, who: tuple[str, str], labels: Sequence[str], scale: float
) -> Iterator[Rectangle]:
    for box, class_id, score, both in zip(
        boxes.xyxy * scale, boxes.class_ids, boxes.scores, found, strict=True
    ):
        label = labels[class_id] if class_id < len(labels) else str(class_id)
        x, y, right, bottom = (float(edge) for edge in box)
        whose = who[0] if both else who[1]
        yield Rectangle(x, y, right - x, bottom - y, whose, f"{label} {score:.2f}")


def _chart(task: TaskStudy) -> Chart | None:
    """Return the chart; None where fewer than two models have both figures."""
    measured = [(one, accuracy_of(one, task.task)) for one in task.models]
    known = [(one, value) for one, value in measured if value is not None and one.latency]
    if len(known) < 2:
        return None
    left, right, top, bottom = _MARGINS
    most_ms = 1.1 * max(one.latency.p50 for one, _ in known if one.latency)
    low = max(0.0, min(value.low for _, value in known) - 0.02)
    high = min(1.0, max(value.high for _, value in known) + 0.02)

    def x(ms: float) -> float:
        return left + (_CHART[0] - left - right) * ms / most_ms

    def y(value: float) -> float:
        return top + (_CHART[1] - top - bottom) * (high - value) / (high - low)

    points = []
    for one, value in known:
        assert one.latency is not None
        points.append(
            Point(
                x(one.latency.p50),
                y(value.value),
                y(max(low, value.low)),
                y(min(high, value.high)),
                one.card.name,
                dominated(one, task),
            )
        )
    x_ticks = tuple((x(ms), f"{ms:.0f}") for ms in np.linspace(0, most_ms, 5))
    y_ticks = tuple((y(v), f"{v:.2f}") for v in np.linspace(low, high, 5))
    name = outputs.METRIC_NAMES["map50_95" if task.task is Task.DETECTION else "top1"]
    return Chart(name, tuple(points), x_ticks, y_ticks)
