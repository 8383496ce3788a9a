"""A comparison as tables: the answers of all models and their agreement."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from visavis.agreement import left_out
from visavis.cards import Task
from visavis.commands.answer_tables import heat_map_line, milliseconds
from visavis.commands.card_tables import cards_table
from visavis.commands.classification_comparison import classification_tables
from visavis.commands.console import plain
from visavis.commands.detection_comparison import detection_tables
from visavis.results import Comparison, ModelAnswer, TaskComparison


def comparison_tables(comparison: Comparison) -> RenderableType:
    """Return the comparison of one picture, task by task."""
    return Group(*_parts(comparison))


def _parts(comparison: Comparison) -> Iterator[RenderableType]:
    size, timings = comparison.image_size, comparison.timings
    yield Text.assemble(
        f"{size.width} × {size.height} px, compared in {milliseconds(timings.total_ms)} ms ",
        (f"(decoding {milliseconds(timings.decode_ms)} ms)", "dim"),
    )
    cards = {card.name: card for card in comparison.models}
    for task in comparison.comparisons:
        yield _title(task)
        if task.task == Task.CLASSIFICATION:
            yield from classification_tables(task, cards)
        else:
            yield from detection_tables(task)
        for answer in task.answers:
            if answer.heat_map:
                yield Text.assemble(
                    "\n",
                    (plain(answer.served_by.model), "bold"),
                    ", ",
                    heat_map_line(answer.heat_map),
                )
        for answer in task.answers:
            yield from _unknown_labels(answer, task.baseline)
            if not answer.status.ok:
                yield Text.assemble(
                    "\n",
                    (plain(answer.served_by.model), "bold"),
                    (" failed: ", "red"),
                    f"{answer.status.code}: {plain(answer.status.message)}",
                )
        if task.nothing_to_compare:
            yield Text(f"\n{plain(task.nothing_to_compare)}", style="yellow")
    compared = {a.served_by.model for task in comparison.comparisons for a in task.answers}
    shown = [card for card in comparison.models if card.name in compared]
    if len(shown) > 1:
        yield Text("\nModels", style="bold underline")
        yield Text()
        yield cards_table(shown)
    if comparison.left_out:
        yield Text("\nLeft out", style="bold underline")
        for left in comparison.left_out:
            yield Text.assemble((plain(left.model), "bold"), f": {plain(left.reason)}")
    yield Text()


def _unknown_labels(answer: ModelAnswer, baseline: str) -> Iterator[RenderableType]:
    """Yield a sentence if labels were left out of an agreement."""
    agreement = answer.agreement
    if agreement is None or not (agreement.unknown_here or agreement.unknown_in_baseline):
        return
    yield Text.assemble(
        "\n",
        (plain(answer.served_by.model), "bold"),
        f": {left_out(plain(baseline), agreement.unknown_here, agreement.unknown_in_baseline)}",
    )


def _title(task: TaskComparison) -> Text:
    title = Text.assemble("\n", (task.task.capitalize(), "bold underline"))
    if len(task.answers) > 1:
        title.append(f", compared with {plain(task.baseline)}")
    return title
