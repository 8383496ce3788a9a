"""A comparison of a folder on the terminal."""

from collections.abc import Sequence
from typing import Final

from rich import table as rich_table
from rich.console import Console

from visavis.commands.answer_tables import plain_table
from visavis.commands.console import complain, plain, stderr, stdout
from visavis.evaluation import choice
from visavis.evaluation.figures import Study, TaskStudy
from visavis.evaluation.gate import Check
from visavis.evaluation.statistics import Verdict
from visavis.evaluation.tables import Table, models_table, pairs_table
from visavis.evaluation.words import chance_sentence, points, unknown_sentences, verdicts

_MANY_FAILURES: Final = 5
_MOST_SLICES: Final = 5
_WIDEST_WORD: Final = 24


def show(study: Study, checks: Sequence[Check], within_ms: float | None) -> None:
    """Print the verdict, the models, their differences, and the limits' outcomes."""
    console = stdout()
    for line in verdicts(study):
        console.print(plain(line), style="bold", soft_wrap=True)
    for task in study.tasks:
        console.print(
            f"\n{task.task.value.capitalize()}, {study.pictures} pictures"
            f" ({task.labelled} with truth)"
        )
        for table in (models_table(task), pairs_table(task)):
            if table.rows:
                console.print()
                console.print(_rich(table))
        console.print()
        for sentence in unknown_sentences(task):
            console.print(plain(sentence), soft_wrap=True)
        _show_slices(console, task)
        _show_suspects(console, task)
    for path, why in list(study.failures.items())[:_MANY_FAILURES]:
        complain(why, about=path)
    if len(study.failures) > _MANY_FAILURES:
        stderr().print(f"… and {len(study.failures) - _MANY_FAILURES} more pictures failed")
    for task in study.tasks:
        for model in task.models:
            if model.failures:
                many = f"{model.failures} of {model.failures + model.pictures} pictures"
                complain(f"{many} are not answered; the first: {model.why}", about=model.card.name)
    for check in checks:
        console.print(plain(f"{check.outcome.value}: {check.model}: {check.why}"), soft_wrap=True)
    if within_ms is not None:
        for task in study.tasks:
            console.print(plain(choice.sentence(task, within_ms)), style="bold", soft_wrap=True)


def _rich(table: Table) -> rich_table.Table:
    shown = plain_table()
    for name, *cells in zip(table.header, *table.texts, strict=True):
        # A cell is broken between words: "0.950 (0.92-0.97)" in two lines, at most.
        words = [word for text in (name, *cells) for word in plain(text).split()]
        longest = max(map(len, words), default=0)
        shown.add_column(name, overflow="fold", min_width=min(longest, _WIDEST_WORD))
    for row in table.texts:
        shown.add_row(*map(plain, row))
    return shown


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
        console.print(plain(f"{text} on {len(one.paths)} pictures"), soft_wrap=True)
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
