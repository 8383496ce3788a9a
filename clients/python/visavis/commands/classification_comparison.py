"""The answers and the agreement of classifiers, side by side."""

from collections.abc import Iterator, Mapping

from rich.console import RenderableType
from rich.text import Text

from visavis.cards import Model
from visavis.commands.answer_tables import score
from visavis.commands.console import plain
from visavis.commands.side_by_side import NOTHING, Column, SideBySide, model_header, time_cells
from visavis.fact_rows import parameters
from visavis.results import ClassificationAgreement, ModelAnswer, TaskComparison

_MEASURES = ("same top-1", "labels shared", "divergence")
_FACTS = ("parameters", "inference ms", "total ms")


def classification_tables(
    task: TaskComparison, cards: Mapping[str, Model]
) -> Iterator[RenderableType]:
    """Yield the labels of all classifiers by rank, and their agreement."""
    answers = sorted(task.answers, key=lambda answer: answer.served_by.model != task.baseline)
    if not answers:
        return
    ranks = max(1, *(len(answer.classifications) for answer in answers))
    agreements = len(answers) > 1
    labels = [
        *(str(rank + 1) for rank in range(ranks)),
        *(_MEASURES if agreements else ()),
        *_FACTS,
    ]
    yield SideBySide(
        corner="",
        rows=[Text(label) for label in labels],
        columns=[_column(answer, task, ranks, cards) for answer in answers],
        lines_after=[ranks - 1, ranks + len(_MEASURES) - 1] if agreements else [ranks - 1],
    )
    if agreements:
        yield Text(
            "\ndivergence: Jensen-Shannon, over all labels; 0 = identical, 1 = nothing in common",
            style="dim",
        )


def _column(
    answer: ModelAnswer, task: TaskComparison, ranks: int, cards: Mapping[str, Model]
) -> Column:
    several = len(task.answers) > 1
    is_baseline = several and answer.served_by.model == task.baseline
    cells = [
        Text(f"{score(item.score)} {plain(item.label)}", style="" if rank else "bold")
        for rank, item in enumerate(answer.classifications)
    ]
    if not answer.status.ok:
        cells = [Text("no answer", style="red")]
    cells += [NOTHING] * (ranks - len(cells))
    if several:
        cells += _measures(answer.agreement)
    card = cards.get(answer.served_by.model)
    cells.append(Text(parameters(card.facts.parameter_count)) if card else NOTHING)
    cells += time_cells(answer.timings)
    return Column(model_header(answer.served_by, baseline=is_baseline), cells)


def _measures(agreement: object) -> list[Text]:
    if not isinstance(agreement, ClassificationAgreement):
        return [NOTHING] * len(_MEASURES)
    same = agreement.same_top1
    divergence = agreement.jensen_shannon_divergence
    return [
        Text("yes" if same else "no", style="green" if same else "yellow"),
        Text(f"{agreement.top_k_overlap:.0%}"),
        Text("other labels", style="dim") if divergence is None else Text(score(divergence)),
    ]
