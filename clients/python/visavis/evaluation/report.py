"""A study as one HTML file: no script from elsewhere, no font, no picture that is not inside."""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from visavis.cards import Task
from visavis.evaluation import tables
from visavis.evaluation.answers import PictureAnswers
from visavis.evaluation.charts import charts
from visavis.evaluation.figures import FACTS, Study, TaskStudy, Truths
from visavis.evaluation.gallery import Card, gallery
from visavis.evaluation.gate import Check
from visavis.evaluation.heat import heat
from visavis.evaluation.slices import MOST_FOLDERS
from visavis.evaluation.tables import Pictures, Table
from visavis.evaluation.words import chance_sentence, counted_pictures, unknown_sentences, verdicts


def html(
    study: Study,
    answers: Sequence[PictureAnswers],
    pictures: Mapping[str, Path],
    truths: Mapping[Task, Truths],
    checks: Sequence[Check] = (),
) -> str:
    """Return the report. answers, truths: those of the study. pictures: their files, by path."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["counted_pictures"] = counted_pictures
    style, script = _file("report.css"), _file("report.js")
    by_path = {one.path: one for one in answers}
    return environment.from_string(_file("report.html.jinja")).render(
        study=study,
        verdicts=list(verdicts(study)),
        checks=checks,
        tasks=[_task(one, by_path, pictures, truths.get(one.task, {})) for one in study.tasks],
        kinds=FACTS,
        style=Markup(style),
        script=Markup(script),
        # Only this script runs, and only this style applies, whatever a label or a path contains.
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _task(
    task: TaskStudy,
    answers: Mapping[str, PictureAnswers],
    pictures: Mapping[str, Path],
    truths: Truths,
) -> dict[str, Any]:
    shown = gallery(task, answers, pictures, truths)
    index = _Index(task)
    slices = list(tables.slice_tables(task))
    return {
        "id": task.task.value,
        "name": task.task.value.capitalize(),
        "labelled": task.labelled,
        "models": tables.models_table(task),
        "tables": [
            table
            for table in (
                tables.pairs_table(task),
                tables.thresholds_table(task),
                tables.errors_table(task),
            )
            if table.rows
        ],
        "stages": tables.stages_table(task),
        "charts": charts(task),
        "heats": [one for one in map(heat, task.models) if one is not None],
        "slices": [(table, _is_long(table)) for table in slices],
        "chance": chance_sentence(task),
        "unknown": list(unknown_sentences(task)),
        "folders_left_out": task.folders_left_out,
        "most_folders": MOST_FOLDERS,
        "gallery": shown,
        "index": index,
        "model_names": [one.card.name for one in task.models],
        "class_names": index.filterable(shown.cards),
        "kinds": index.kinds(shown.cards),
        "baseline": task.pairs[0].baseline if task.pairs else "",
        "pairs": [pair.model for pair in task.pairs],
        "detects": task.task is Task.DETECTION,
    }


def _is_long(table: Table) -> bool:
    return len(table.rows) > 12


class _Index:
    """Numbers for the models and classes of a task, by which the page's script finds pictures."""

    def __init__(self, task: TaskStudy) -> None:
        self._models = {one.card.name: k for k, one in enumerate(task.models)}
        self._classes: dict[str, int] = {}

    def _class(self, name: str) -> str:
        return str(self._classes.setdefault(name, len(self._classes))) if name else ""

    def facts(self, card: Card) -> str:
        """Return a picture's facts as `model:kind:truth:answer`, separated by blanks."""
        return " ".join(
            f"{self._models[one.model]}:{one.kind}:{self._class(one.truth)}:{self._class(one.answer)}"
            for one in card.about.facts
        )

    def filter(self, pictures: Pictures) -> str:
        """Return what pictures are chosen by: `model:kind:about:truth:answer:part`."""
        fields = (
            self._models.get(pictures.model, ""),
            pictures.kind,
            *(self._class(name) for name in (pictures.about, pictures.truth, pictures.answer)),
            "" if pictures.part is None else pictures.part,
        )
        return ":".join(map(str, fields))

    def filterable(self, cards: Iterable[Card]) -> list[tuple[str, str]]:
        """Return number and name of the classes that occur in facts, by name."""
        names = {
            name for card in cards for one in card.about.facts for name in (one.truth, one.answer)
        }
        return [(self._class(name), name) for name in sorted(names - {""})]

    def kinds(self, cards: Iterable[Card]) -> list[str]:
        """Return the kinds of facts that occur."""
        seen = {one.kind for card in cards for one in card.about.facts}
        return [kind for kind in FACTS if kind in seen]
