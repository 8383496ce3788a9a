"""A comparison of a folder on the terminal."""

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from visavis.commands.console import complain, plain, stderr, stdout
from visavis.commands.side_by_side import NOTHING, Column, SideBySide, card_header
from visavis.evaluation import choice
from visavis.evaluation.figures import Study, TaskStudy
from visavis.evaluation.gate import Check
from visavis.evaluation.statistics import Verdict
from visavis.evaluation.tables import models_table, pairs_table
from visavis.evaluation.words import (
    chance_sentence,
    counted_pictures,
    points,
    unknown_sentences,
    verdicts,
)

_MANY_FAILURES: Final = 5
_MOST_SLICES: Final = 5
_VERDICTS: Final = {
    Verdict.BETTER.value: "green",
    Verdict.WORSE.value: "red",
    Verdict.CANNOT_TELL.value: "yellow",
}


def show(study: Study, checks: Sequence[Check], within_ms: float | None) -> None:
    """Print the verdict, the models, their differences, and the limits' outcomes."""
    console = stdout()
    for line in verdicts(study):
        console.print(plain(line), style="bold", soft_wrap=True)
    for task in study.tasks:
        console.print(_title(task, study.pictures))
        console.print(_side_by_side(task))
        console.print()
        for sentence in unknown_sentences(task):
            console.print(plain(sentence), soft_wrap=True)
        _show_slices(console, task)
        _show_suspects(console, task)
    for path, why in list(study.failures.items())[:_MANY_FAILURES]:
        complain(why, about=path)
    if len(study.failures) > _MANY_FAILURES:
        stderr().print(f"… and {len(study.failures) - _MANY_FAILURES} more failed")
    for task in study.tasks:
        for model in task.models:
            if model.failures:
                asked = counted_pictures(model.failures + model.pictures)
                many = f"without an answer: {model.failures} of {asked}"
                complain(f"{many}; the first: {model.why}", about=model.card.name)
    for check in checks:
        console.print(plain(f"{check.outcome.value}: {check.model}: {check.why}"), soft_wrap=True)
    if within_ms is not None:
        for task in study.tasks:
            console.print(plain(choice.sentence(task, within_ms)), style="bold", soft_wrap=True)


def _title(task: TaskStudy, pictures: int) -> Text:
    title = Text.assemble(
        "\n",
        (task.task.capitalize(), "bold underline"),
        f", {counted_pictures(pictures)} ({task.labelled} with truth)",
    )
    if task.pairs:
        title.append(f", compared with {plain(task.pairs[0].baseline)}")
    return title


def _side_by_side(task: TaskStudy) -> SideBySide:
    """Return a row per figure and a column per model, the baseline's first."""
    baseline = task.pairs[0].baseline if task.pairs else ""
    own, differences = models_table(task), pairs_table(task)
    texts: dict[str, dict[str, str]] = {}
    for one, row in zip(task.models, own.texts, strict=True):
        texts[one.card.name] = dict(zip(own.header, row, strict=True))
        texts[one.card.name]["failed"] = str(one.failures)
    for pair, row in zip(task.pairs, differences.texts, strict=True):
        texts[pair.model] |= zip(differences.header, row, strict=True)
    # The header of a column names the model, how it runs and the baseline.
    figures = [name for name in own.header if name not in ("model", "runs as")]
    measures = [name for name in differences.header if name not in ("model", "against")]
    failed = ["failed"] if any(one.failures for one in task.models) else []
    rows = [*failed, *figures, *(measures if task.pairs else ())]
    models = sorted(task.models, key=lambda one: one.card.name != baseline)
    columns = [
        Column(
            card_header(one.card, baseline=one.card.name == baseline),
            [_cell(texts[one.card.name].get(name, "")) for name in rows],
        )
        for one in models
    ]
    return SideBySide(
        corner="",
        rows=[Text(name) for name in rows],
        columns=columns,
        lines_after=[len(failed) + len(figures) - 1] if task.pairs else [],
    )


def _cell(text: str) -> Text:
    """Return a figure with its interval dimmed; a dash for none."""
    if not text:
        return NOTHING
    figure, bracket, interval = plain(text).partition(" (")
    return Text.assemble((figure, _VERDICTS.get(figure, "")), (bracket + interval, "dim"))


def _show_slices(console: Console, task: TaskStudy) -> None:
    """Print the slices with the largest differences that are told from zero."""
    told = [
        (one, model, difference)
        for one in task.slices
        for model, difference in one.differences.items()
        if difference.verdict is not Verdict.CANNOT_TELL
    ]
    told.sort(key=lambda each: -abs(each[2].value))
    for one, model, difference in told[:_MOST_SLICES]:
        text = f"  {one.dimension} {one.name}: {model} {points(difference)}"
        console.print(plain(f"{text} on {counted_pictures(len(one.paths))}"), soft_wrap=True)
    if note := chance_sentence(task):
        console.print(note, soft_wrap=True)


def _show_suspects(console: Console, task: TaskStudy) -> None:
    suspects = [one for one in task.disagreements if one.suspect]
    if suspects:
        wrong = "1 label looks" if len(suspects) == 1 else f"{len(suspects)} labels look"
        console.print(f"{wrong} wrong: all models agree on another class")
        for one in suspects[:_MANY_FAILURES]:
            said = next(iter(one.answers.values()))
            console.print(
                plain(f"  {one.path}: {one.truth}, the models say {said}"), soft_wrap=True
            )
