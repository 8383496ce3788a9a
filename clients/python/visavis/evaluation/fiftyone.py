"""A study as a dataset that FiftyOne opens: its own formats for labels, and pictures in place."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from visavis.cards import Model, Task
from visavis.dataset.labels import Truth
from visavis.evaluation.answers import PictureAnswers
from visavis.evaluation.figures import Study, TaskStudy, Truths
from visavis.evaluation.runs import shown_boxes
from visavis.evaluation.shared_classes import Names

_TYPES: Final = {
    Task.CLASSIFICATION: "FiftyOneImageClassificationDataset",
    Task.DETECTION: "FiftyOneImageDetectionDataset",
}
_RESERVED: Final = frozenset(
    {"id", "filepath", "tags", "metadata", "created_at", "last_modified_at", "media_type"}
)
_OPEN: Final = '''"""Opens this comparison in FiftyOne: `pip install fiftyone`, `python open.py`."""

import json
from pathlib import Path

import fiftyone as fo

FOLDER = Path(__file__).resolve().parent


def load(name=None):
    """Return the comparison as a dataset: the truth, each model's answers, and tags."""
    dataset = fo.Dataset(name)
    for field in json.loads((FOLDER / "fields.json").read_text("utf-8")):
        dataset.merge_dir(
            data_path=str(FOLDER / "data.json"),
            labels_path=str(FOLDER / field["labels"]),
            dataset_type=getattr(fo.types, field["type"]),
            label_field=field["field"],
        )
    pictures = json.loads((FOLDER / "data.json").read_text("utf-8"))
    tags = json.loads((FOLDER / "tags.json").read_text("utf-8"))
    by_path = {path: tags.get(key, []) for key, path in pictures.items()}
    dataset.set_values("tags", [by_path.get(path, []) for path in dataset.values("filepath")])
    return dataset


if __name__ == "__main__":
    fo.launch_app(load()).wait()
'''


def write(
    folder: Path,
    study: Study,
    answers: Sequence[PictureAnswers],
    files: Mapping[str, Path],
    truths: Mapping[Task, Truths],
) -> None:
    """Write a comparison for FiftyOne. files: the pictures by path; they are not copied.

    data.json names the pictures, NAME.json holds the labels of a field, in the formats
    FiftyOneImageClassificationDataset and FiftyOneImageDetectionDataset, tags.json what the report
    filters by, and open.py loads it all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = {one.path: f"{number:06}" for number, one in enumerate(answers)}
    fields: list[dict[str, str]] = []
    for task in study.tasks:
        for field, labels in _fields(task, answers, truths.get(task.task, {}), keys):
            file = f"{task.task.value}-{field}.json"
            _save(folder / file, labels)
            name = _field(field if len(study.tasks) == 1 else f"{field}_{task.task.value}")
            fields.append({"field": name, "type": _TYPES[task.task], "labels": file})
    _save(folder / "fields.json", fields)
    _save(folder / "data.json", {keys[path]: str(files[path].resolve()) for path in keys})
    _save(folder / "tags.json", {keys[path]: tags for path, tags in _tags(study).items()})
    (folder / "open.py").write_text(_OPEN, encoding="utf-8")


def _field(name: str) -> str:
    """Return a name as FiftyOne's fields may have it: an identifier that it does not use itself."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return plain if plain[0].isalpha() and plain not in _RESERVED else f"model_{plain}"


def _save(file: Path, values: Any) -> None:
    file.write_text(json.dumps(values), encoding="utf-8")


def _tags(study: Study) -> dict[str, list[str]]:
    tags: dict[str, dict[str, None]] = {}
    for task in study.tasks:
        for one in task.disagreements:
            for fact in one.facts:
                tags.setdefault(one.path, {})[f"{fact.kind}: {fact.model}"] = None
    return {path: list(own) for path, own in tags.items()}


def _fields(
    task: TaskStudy,
    answers: Sequence[PictureAnswers],
    truths: Truths,
    keys: Mapping[str, str],
) -> list[tuple[str, dict[str, Any]]]:
    """Return the name and the labels of the truth, if any, and of each model."""
    first = task.models[0].card
    names = Names(first, first)
    known = {
        keys[one.path]: _truth(truths[one.path], names) for one in answers if one.path in truths
    }
    fields = [("truth", {"labels": known})] if known else []
    for model in task.models:
        names = Names(model.card, first)
        own = {
            keys[one.path]: label
            for one in answers
            if (label := _answer(model.card, one, names)) is not None
        }
        fields.append((model.card.name, {"labels": own}))
    return fields


def _truth(truth: int | tuple[Truth, ...], names: Names) -> Any:
    if isinstance(truth, int):
        return names[truth]
    return [
        {
            "label": names[one.class_id],
            "bounding_box": [
                one.center_x - one.width / 2,
                one.center_y - one.height / 2,
                one.width,
                one.height,
            ],
        }
        for one in truth
    ]


def _answer(card: Model, one: PictureAnswers, names: Names) -> Any:
    run = one.runs.get(card.name)
    if run is None or run.failure:
        return None
    if run.classes:
        return names[run.classes[0]]
    boxes = shown_boxes(card, run)
    return [
        {
            "label": names[int(class_id)],
            "bounding_box": [
                float(x / one.width),
                float(y / one.height),
                float((right - x) / one.width),
                float((bottom - y) / one.height),
            ],
            "confidence": float(score),
        }
        for (x, y, right, bottom), class_id, score in zip(
            boxes.xyxy, boxes.class_ids, boxes.scores, strict=True
        )
    ]
